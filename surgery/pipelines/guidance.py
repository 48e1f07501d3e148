"""Which rows of a forward are of which branch of classifier-free guidance: the pipeline is asked, no forward is run.

It is called with two prompts while its transformer only notes what it is given. Rows with the conditioning of another
row can't be of either prompt: they are the unconditional branch. The pipeline is stopped at its first step.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from surgery.errors import InputError
from surgery.pipelines.conditioning_rows import Conditioning, conditioning_of, is_near
from surgery.pipelines.probes import BOTH, PROBES, probe_arguments, refusal_of
from surgery.pipelines.replaced import replaced
from surgery.spec.selector import MODELS
from surgery.tracing.arguments import parameters_of_module

CONDITIONAL, UNCONDITIONAL = "conditional", "unconditional"


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

    It is called with two prompts at once, or, where it takes one at a time, with each.

    Raises:
        InputError: the pipeline refuses the call, or never runs its transformer; or the branches can't be told.
    """
    failure: InputError | None = None
    for ask in (_ask_at_once, _ask_one_by_one):
        try:
            return Guidance(_named(pipe, *ask(pipe, call)))
        except InputError as error:
            failure = failure or error
    assert failure is not None, "both ways were tried"
    raise failure


Layouts = tuple[list[tuple[str, ...]], ...]  # the branches of the rows of each forward, in each way of telling


def _named(pipe: Any, *ways: list[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """The first way of telling by which some row is of a prompt."""
    told = next((found for found in ways if any(CONDITIONAL in branches for branches in found)), None)
    if told is None:
        raise InputError(
            f"{type(pipe).__name__} was called with two prompts, and nothing that its transformer was given tells them "
            "apart; the branches of guidance are not known"
        )
    return tuple(told)


def _ask_at_once(pipe: Any, call: Mapping[str, Any]) -> Layouts:
    """Rows with the conditioning of another row can't be of either prompt."""
    noted = _note_forwards(pipe, probe_arguments(pipe, call, BOTH), len(BOTH))
    return tuple([_branches_by_twins(rows, given) for rows, given in way] for way in _ways(noted))


def _ask_one_by_one(pipe: Any, call: Mapping[str, Any]) -> Layouts:
    """Rows with the same conditioning in both calls can't be of either prompt; as if both were asked at once."""
    one, other = (_note_forwards(pipe, probe_arguments(pipe, call, (number,)), 1) for number in BOTH)
    if [each.num_rows for each in one] != [each.num_rows for each in other]:
        raise InputError(f"{type(pipe).__name__} runs its transformer otherwise for one prompt than for another")
    return tuple(
        [_branches_by_calls(rows, given, also) for (rows, given), (_, also) in zip(way, beside, strict=True)]
        for way, beside in zip(_ways(one), _ways(other), strict=True)
    )


def _ways(noted: Sequence[Conditioning]) -> Iterator[list[tuple[int, tuple[Sequence[torch.Tensor], ...]]]]:
    """The conditioning of forwards by what is given to each row, and by what lists and dicts hold too."""
    yield [(each.num_rows, each.direct) for each in noted]
    yield [(each.num_rows, each.nested) for each in noted]


def _branches_by_twins(rows: int, given: Sequence[Sequence[torch.Tensor]]) -> tuple[str, ...]:
    has_twin = [
        any(other != row and all(is_near(value[row], value[other]) for value in given) for other in range(rows))
        for row in range(rows)
    ]
    return tuple(UNCONDITIONAL if each else CONDITIONAL for each in has_twin)


def _branches_by_calls(
    rows: int, given: Sequence[Sequence[torch.Tensor]], also: Sequence[Sequence[torch.Tensor]]
) -> tuple[str, ...]:
    is_shared = [
        len(given) == len(also) and all(is_near(one[row], two[row]) for one, two in zip(given, also, strict=True))
        for row in range(rows)
    ]
    return tuple(UNCONDITIONAL if each else CONDITIONAL for each in is_shared for _ in BOTH)


def _note_forwards(pipe: Any, arguments: Mapping[str, Any], count: int) -> list[Conditioning]:
    """What the forwards of the first step are given in a call with these arguments, of so many prompts."""
    names = parameters_of_module(pipe.transformer)
    noted: list[Conditioning] = []

    def note(*args: Any, **kwargs: Any) -> Any:
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        noted.append(conditioning_of(named))
        return nothing_predicted(named)

    noise = [torch.Generator().manual_seed(0) for _ in range(count)]  # alike: a ControlNet's residuals follow from it
    with noting_forwards(pipe, note), stopping_at_first_step(pipe):
        try:
            pipe(**arguments, generator=noise, output_type="latent")
        except StopSampling:
            pass
        except Exception as error:  # what comes behind the first step is nobody's business here
            if not noted:
                raise refusal_of(pipe, error) from error
    if not noted:
        raise InputError(f"{type(pipe).__name__} never runs its transformer")
    return noted


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


@contextmanager
def stopping_at_first_step(pipe: Any) -> Iterator[None]:
    """Within it, a pipeline's call ends with StopSampling where it would take its first step."""

    @functools.wraps(pipe.scheduler.step)  # pipelines look at its signature
    def stop(*_args: Any, **_kwargs: Any) -> None:
        raise StopSampling

    with replaced(pipe.scheduler, "step", stop):
        yield
