"""The states of one forward -> sums for each element of the batch, in float64. Nothing of them is kept.

For a stream with states x_0 .. x_{S-1}, each (rows, tokens, channels), and the tokens T that a mask selects in a row:

* `cosine[a, b]`        = <X_a, X_b> / (|X_a| |X_b|), X_a the tokens of x_a as one vector
* `token_cosine[a, b]`  = sum over t in T of cos(x_a[t], x_b[t])
* `angle[a, b]`         = sum over t of arccos(cos(x_a[t], x_b[t])) / pi, over T or over its last token alone
* `residual[a]`         = sum over t in T of |x_{a+1}[t] - x_a[t]| / |x_a[t]|

A cosine with a vector of norm zero counts as 0, and so does a residual relative to one. |x_{a+1} - x_a| comes from the
products <x_a, x_b> too, so that for a block that moves a token by u times its norm it is good to about 1e-16 / u^2
(1e-10 for u = 1e-3); float32 states hold such a step to 1e-7 / u.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

CHUNK_BYTES = 2**24  # of float64 states that are compared at once

Masks = Mapping[str, torch.Tensor]  # name of a set of tokens -> which (rows, tokens) are of it


@dataclass(frozen=True)
class RowSums:
    """For each row of a batch: the sums above, of one set of tokens. The first axis of every array is the row."""

    tokens: torch.Tensor
    cosine: torch.Tensor
    token_cosine: torch.Tensor
    angle: torch.Tensor
    angles: torch.Tensor
    residual: torch.Tensor


def where_exact(values: torch.Tensor) -> torch.Tensor:
    """Values on a device that has float64: their own, or else the CPU."""
    return values.cpu() if values.device.type == "mps" else values


def exact(
    values: torch.Tensor, *, copy: bool = False, layout: torch.memory_format = torch.preserve_format
) -> torch.Tensor:
    """Values in float64, on the CPU where their device has none; `copy` where the caller writes into them."""
    return where_exact(values).to(torch.float64, copy=copy, memory_format=layout)


def compare_states(states: Sequence[torch.Tensor], masks: Masks, *, last_token: bool) -> dict[str, RowSums]:
    """The sums of a stream's states for each set of tokens; `all` is every token, and `masks` are further sets.

    Raises:
        FloatingPointError: a state has values that are no finite numbers; its argument is the state's number.
    """
    rows, num_tokens, channels = states[0].shape
    chunk = max(1, CHUNK_BYTES // (8 * len(states) * rows * channels))
    sums = {name: _Sums(len(states), rows, mask, last_token) for name, mask in {"all": None, **masks}.items()}
    for start in range(0, num_tokens, chunk):
        part = torch.stack([state[:, start : start + chunk] for state in states], 2).flatten(0, 1)
        turned = exact(part.mT, layout=torch.contiguous_format)  # a product of this takes a third of the time on a CPU
        dots = turned.mT @ turned
        squares = dots.diagonal(dim1=1, dim2=2)
        norms = squares.sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0)
        cosine = (dots * inverse[:, :, None]).mul_(inverse[:, None, :]).clamp_(-1, 1)
        steps = (squares[:, 1:] + squares[:, :-1]).sub_(dots.diagonal(1, 1, 2), alpha=2)
        residual = steps.clamp_(min=0).sqrt_().mul_(inverse[:, :-1])
        values = (dots, cosine, cosine.acos(), residual)
        for into in sums.values():
            into.add(start, *(value.unflatten(0, (rows, -1)) for value in values))
    _refuse_nonfinite(sums["all"].dots)
    return {name: into.result() for name, into in sums.items()}


def _refuse_nonfinite(dots: torch.Tensor) -> None:
    squares = dots.diagonal(dim1=1, dim2=2).sum(0)
    if not math.isfinite(squares.sum()):
        raise FloatingPointError(int(squares.isfinite().logical_not().nonzero()[0]))


class _Sums:
    """The sums of one set of tokens while its chunks come in."""

    def __init__(self, num_states: int, rows: int, mask: torch.Tensor | None, last_token: bool) -> None:
        self.mask = mask
        self.last_token = last_token
        self.dots, self.cosine, self.angle, self.last = (_zeros(rows, num_states, num_states) for _ in range(4))
        self.residual = _zeros(rows, num_states - 1)
        self.tokens = _zeros(rows)

    def add(
        self, start: int, dots: torch.Tensor, cosine: torch.Tensor, angle: torch.Tensor, residual: torch.Tensor
    ) -> None:
        """Add the values of some tokens, each (rows, tokens, ...), the first of which is token `start`.

        Angles are in radians until they are a result.
        """
        rows, num_tokens = dots.shape[:2]
        weights = None if self.mask is None else self.mask[:, start : start + num_tokens].to(dots)
        self.tokens += num_tokens if weights is None else weights.sum(1).cpu()
        for name, values in (("dots", dots), ("cosine", cosine), ("angle", angle), ("residual", residual)):
            summed = values.sum(1) if weights is None else torch.einsum("rt,rt...->r...", weights, values)
            setattr(self, name, getattr(self, name) + summed.cpu())
        if self.last_token:
            chosen = torch.ones(rows, num_tokens, device=dots.device) if weights is None else weights
            self._keep_last(chosen.bool(), angle)

    def _keep_last(self, chosen: torch.Tensor, angle: torch.Tensor) -> None:
        """The angles of the last token of the set in each row: those of later chunks replace those of earlier ones."""
        positions = torch.arange(chosen.shape[1], device=chosen.device)
        last = torch.where(chosen, positions, -1).max(1).values
        found = angle[torch.arange(len(last), device=last.device), last.clamp(min=0)]
        self.last = torch.where((last >= 0).cpu()[:, None, None], found.cpu(), self.last)

    def result(self) -> RowSums:
        norms = self.dots.diagonal(dim1=1, dim2=2).sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0)
        cosine = (self.dots * inverse[:, :, None] * inverse[:, None, :]).clamp(-1, 1)
        has_any = (self.tokens > 0).double()
        angles = has_any if self.last_token else self.tokens
        angle = self.last * has_any[:, None, None] if self.last_token else self.angle
        return RowSums(self.tokens, cosine, self.cosine, angle / math.pi, angles, self.residual)


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)
