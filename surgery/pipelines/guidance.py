"""Which rows of a forward are of which branch of classifier-free guidance: the pipeline is asked, no forward is run.

It is called with two prompts while its transformer only notes what it is given. Rows with the conditioning of another
row can't be of either prompt: they are the unconditional branch. The pipeline is stopped at its first step.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from surgery.errors import InputError
from surgery.pipelines.conditions import conditions_of, is_class_conditional
from surgery.pipelines.replaced import replaced
from surgery.spec.selector import MODELS
from surgery.tracing.arguments import parameters_of_module

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"
TOLERANCE = 0.01  # relative; bfloat16 rounds to 0.004, and two prompts are further apart
PROBES = ("a red apple on a table", "two blue birds")
CLASSES = ("0", "1")  # in their place where the pipeline draws classes


class StopSampling(BaseException):
    """Ends a pipeline's call at its first step; no pipeline catches it."""


@dataclass(frozen=True)
class Guidance:
    """The branches of the transformer's forwards in one step, for a batch of two prompts, in their order."""

    forwards: tuple[tuple[str, ...], ...]

    def branches_of_rows(self, number: int, rows: int) -> list[str]:
        """The branch of each row of forward `number` of a step, for a batch of any size."""
        pattern = self.forwards[number % len(self.forwards)]
        times, rest = divmod(rows, len(pattern) // len(PROBES))
        if rest:
            raise InputError(f"a forward of {rows} rows is not laid out as one of {len(pattern)}")
        if pattern[0] == pattern[1]:  # all rows of one branch, then all of the other
            return [branch for branch in pattern[:: len(PROBES)] for _ in range(times)]
        return list(pattern[: len(pattern) // len(PROBES)]) * times

    @property
    def branches(self) -> tuple[str, ...]:
        """All branches that there are."""
        return tuple(dict.fromkeys(branch for forward in self.forwards for branch in forward))


def find_guidance(pipe: Any, call: Mapping[str, Any]) -> Guidance:
    """Find out how a pipeline lays out the branches, for a call with these arguments.

    Raises:
        InputError: the pipeline refuses the call, or never runs its transformer.
    """
    model = pipe.transformer
    names = parameters_of_module(model)
    probes = conditions_of(pipe, CLASSES if is_class_conditional(pipe) else PROBES)
    seen: list[tuple[str, ...]] = []  # by what is given to each row
    seen_nested: list[tuple[str, ...]] = []  # by what lists and dicts hold too: mostly residuals, of the latents

    def note(*args: Any, **kwargs: Any) -> Any:
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        seen.append(_branches_of_rows(named, with_nested=False))
        seen_nested.append(_branches_of_rows(named, with_nested=True))
        return nothing_predicted(named)

    noise = [torch.Generator().manual_seed(0) for _ in PROBES]  # alike: a ControlNet's residuals follow from it
    failure: Exception | None = None
    with noting_forwards(pipe, note), stopping_at_first_step(pipe):
        try:
            pipe(probes, generator=noise, output_type="latent", **call)
        except StopSampling:
            pass
        except Exception as error:
            failure = error
    if not seen:
        raise InputError(f"{type(pipe).__name__} refuses the call: {failure}") from failure
    told = next((found for found in (seen, seen_nested) if any(CONDITIONAL in branches for branches in found)), None)
    if told is None:
        raise InputError(
            f"{type(pipe).__name__} was called with two prompts, and nothing that its transformer was given tells them "
            "apart; the branches of guidance are not known"
        )
    return Guidance(tuple(told))


@contextmanager
def noting_forwards(pipe: Any, note: Callable[..., Any]) -> Iterator[None]:
    """Within it, `note` runs in place of the forward of each of a pipeline's transformers."""
    with ExitStack() as stack:
        for model in transformers_of(pipe):
            stack.enter_context(replaced(model, "forward", note))
        yield


def transformers_of(pipe: Any) -> list[Any]:
    """The transformer of a pipeline, or both of one that has two."""
    return [getattr(pipe, part) for part in names_of_transformers(pipe)]


def names_of_transformers(pipe: Any) -> list[str]:
    """`transformer`, and `transformer_2` where a pipeline has that."""
    return [part for part in MODELS if getattr(pipe, part, None) is not None]


def nothing_predicted(arguments: Mapping[str, Any]) -> Any:
    """Zeros in the shape of what a transformer is given first: what it returns where it only notes its arguments."""
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    first = next(iter(arguments.values()))
    zeros: Any = [torch.zeros_like(row) for row in first] if isinstance(first, list) else torch.zeros_like(first)
    return Transformer2DModelOutput(sample=zeros) if arguments.get("return_dict", True) else (zeros,)


def _branches_of_rows(arguments: Mapping[str, Any], *, with_nested: bool) -> tuple[str, ...]:
    values = list(arguments.values())
    rows = len(values[0])
    is_listed = isinstance(values[0], list)
    given = [value for value in values[1:] if with_nested or _is_of_rows(value, rows, is_listed=is_listed)]
    conditioning = list(_batches(given, rows, is_listed=is_listed))
    twins = [
        any(other != row and all(_is_near(value[row], value[other]) for value in conditioning) for other in range(rows))
        for row in range(rows)
    ]
    return tuple(UNCONDITIONAL if has_twin else CONDITIONAL for has_twin in twins)


def _is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two are the same but for rounding: the same text in two rows of a batch may differ in its last bits."""
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    return bool((one - other).norm() <= TOLERANCE * one.norm())


def is_an_entry_a_row(value: Sequence[Any], rows: int, *, is_listed: bool) -> bool:
    """Whether a list has a tensor a row: latents or texts of unequal sizes.

    As many tensors that are of all rows are none: a ControlNet's residuals, one a layer. Where the latents themselves
    come as such a list (`is_listed`), so does all else.
    """
    if len(value) != rows or not all(isinstance(item, torch.Tensor) and item.ndim for item in value):
        return False
    return is_listed or any(len(item) != rows for item in value)


def _is_of_rows(value: Any, rows: int, *, is_listed: bool) -> bool:
    is_list = isinstance(value, (list, tuple))
    return isinstance(value, torch.Tensor) or (is_list and is_an_entry_a_row(value, rows, is_listed=is_listed))


def _batches(values: Iterable[Any], rows: int, *, is_listed: bool) -> Iterator[Sequence[torch.Tensor]]:
    """All tensors of so many rows, and lists with a tensor a row."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.ndim and len(value) == rows:
                yield list(value)
        elif isinstance(value, Mapping):
            yield from _batches(value.values(), rows, is_listed=is_listed)
        elif isinstance(value, (list, tuple)):
            if is_an_entry_a_row(value, rows, is_listed=is_listed):
                yield value
            else:
                yield from _batches(value, rows, is_listed=is_listed)


@contextmanager
def stopping_at_first_step(pipe: Any) -> Iterator[None]:
    """Within it, a pipeline's call ends with StopSampling where it would take its first step."""

    @functools.wraps(pipe.scheduler.step)  # pipelines look at its signature
    def stop(*_args: Any, **_kwargs: Any) -> None:
        raise StopSampling

    with replaced(pipe.scheduler, "step", stop):
        yield
