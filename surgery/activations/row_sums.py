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

import numpy as np
import torch

from surgery.profiles.layer_profile import Array

CHUNK_BYTES = 2**24  # of float64 states that are compared at once

Masks = Mapping[str, torch.Tensor]  # name of a set of tokens -> which (rows, tokens) are of it


@dataclass(frozen=True)
class RowSums:
    """For each row of a batch: the sums above, of one set of tokens. The first axis of every array is the row."""

    tokens: Array
    cosine: Array
    token_cosine: Array
    angle: Array
    angles: Array
    residual: Array


def where_exact(values: torch.Tensor) -> torch.Tensor:
    """Values on a device that has float64: their own, or else the CPU."""
    return values.cpu() if values.device.type == "mps" else values


def exact(values: torch.Tensor, *, layout: torch.memory_format = torch.preserve_format) -> torch.Tensor:
    """Values in float64, on the CPU where their device has none."""
    return where_exact(values).to(torch.float64, memory_format=layout)


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
        pairs, residual = _compare_tokens(turned)
        for into in sums.values():
            into.add(start, pairs.unflatten(1, (rows, -1)), residual.unflatten(0, (rows, -1)))
    _refuse_nonfinite(sums["all"].pairs[0].numpy())
    return {name: into.result() for name, into in sums.items()}


def _compare_tokens(turned: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of tokens' states (tokens, channels, S): of pairs (3, tokens, S, S), and residuals (tokens, S - 1).

    Of pairs there are the dot products, their cosines and the angles of those in radians.
    """
    num_tokens, _, num_states = turned.shape
    pairs = turned.new_empty(3, num_tokens, num_states, num_states)
    dots, cosine, angle = pairs
    torch.bmm(turned.mT, turned, out=dots)
    squares = dots.diagonal(dim1=1, dim2=2)
    inverse = squares.rsqrt().masked_fill_(squares == 0, 0)
    torch.mul(dots, inverse[:, :, None], out=cosine).mul_(inverse[:, None, :]).clamp_(-1, 1)
    torch.acos(cosine, out=angle)
    steps = (squares[:, 1:] + squares[:, :-1]).sub_(dots.diagonal(1, 1, 2), alpha=2)
    return pairs, steps.clamp_(min=0).sqrt_().mul_(inverse[:, :-1])


def _refuse_nonfinite(dots: Array) -> None:
    is_finite = np.isfinite(dots.diagonal(0, 1, 2)).all(0)
    if not is_finite.all():
        raise FloatingPointError(int(np.argmin(is_finite)))


class _Sums:
    """The sums of one set of tokens while its chunks come in."""

    def __init__(self, num_states: int, rows: int, mask: torch.Tensor | None, last_token: bool) -> None:
        self.mask = mask
        self.last_token = last_token
        self.pairs = torch.zeros(3, rows, num_states, num_states, dtype=torch.float64)
        self.residual = torch.zeros(rows, num_states - 1, dtype=torch.float64)
        self.last = torch.zeros(rows, num_states, num_states, dtype=torch.float64)
        self.tokens = np.zeros(rows)

    def add(self, start: int, pairs: torch.Tensor, residual: torch.Tensor) -> None:
        """Add the values of some tokens, the first of which is token `start`.

        `pairs` are (3, rows, tokens, S, S) and `residual` (rows, tokens, S - 1), as of `_compare_tokens`.
        """
        rows, num_tokens = residual.shape[:2]
        weights = None if self.mask is None else self.mask[:, start : start + num_tokens].to(residual)
        if weights is None:
            self.tokens += num_tokens
            self.pairs += pairs.sum(2).cpu()
            self.residual += residual.sum(1).cpu()
        else:
            self.tokens += weights.sum(1).cpu().numpy()
            self.pairs += torch.einsum("rt,krtab->krab", weights, pairs).cpu()
            self.residual += torch.einsum("rt,rta->ra", weights, residual).cpu()
        if self.last_token:
            chosen = residual.new_ones(rows, num_tokens) if weights is None else weights
            self._keep_last(chosen.bool(), pairs[2])

    def _keep_last(self, chosen: torch.Tensor, angle: torch.Tensor) -> None:
        """The angles of the last token of the set in each row: those of later chunks replace those of earlier ones."""
        positions = torch.arange(chosen.shape[1], device=chosen.device)
        last = torch.where(chosen, positions, -1).max(1).values
        found = angle[torch.arange(len(last), device=last.device), last.clamp(min=0)]
        self.last = torch.where((last >= 0).cpu()[:, None, None], found.cpu(), self.last)

    def result(self) -> RowSums:
        dots, cosines, angle = self.pairs.numpy()
        norms = np.sqrt(dots.diagonal(0, 1, 2))
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        cosine = np.clip(dots * inverse[:, :, None] * inverse[:, None, :], -1, 1)
        if self.last_token:
            has_any = (self.tokens > 0).astype(np.float64)
            angle, angles = self.last.numpy() * has_any[:, None, None], has_any
        else:
            angles = self.tokens
        return RowSums(self.tokens, cosine, cosines, angle / math.pi, angles, self.residual.numpy())
