"""What a pruned checkpoint holds, as data: each tensor as rows of tensors of the original, and the new config.

A tensor is written as segments, one after the other. A segment is a run of rows (indices of the first dimension; a
scalar has one) of one tensor of the original, kept as it is or changed in one of three ways. Names are those in files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Change = Literal["keep", "zero", "mean", "scale"]
SHOWN = 3


@dataclass(frozen=True)
class Segment:
    """Rows `start` to `stop` (exclusive) of `tensor`.

    `keep`: their bytes. `zero`: as many rows of zeros. `mean`: the values of a vector of calibrated means named `mean`
    (COMPONENT/STREAM), from `mean_start` on. `scale`: their values times `by`, rounded to the tensor's dtype.
    """

    tensor: str
    start: int
    stop: int
    change: Change = "keep"
    by: float = 1.0
    mean: str | None = None
    mean_start: int = 0

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def part(self, start: int, stop: int) -> "Segment":
        """Its rows `start` to `stop`, counted from its first."""
        return replace(
            self, start=self.start + start, stop=self.start + stop, mean_start=self.mean_start + start * bool(self.mean)
        )

    def continues(self, before: "Segment") -> bool:
        """Whether it begins where `before` ends, so that the two are one."""
        if (self.tensor, self.start) != (before.tensor, before.stop):
            return False
        next_value = before.mean_start + before.num_rows * bool(before.mean)
        kind = (before.change, before.by, before.mean, next_value)
        return (self.change, self.by, self.mean, self.mean_start) == kind


def join_segments(segments: list[Segment]) -> tuple[Segment, ...]:
    """The same rows in as few segments as possible."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.continues(joined[-1]):
            joined[-1] = replace(joined[-1], stop=segment.stop)
        else:
            joined.append(segment)
    return tuple(joined)


@dataclass(frozen=True)
class NewTensor:
    """One tensor of the pruned checkpoint: its name in the file, and what it is made of, in order."""

    name: str
    segments: tuple[Segment, ...]

    @property
    def num_rows(self) -> int:
        """The size of its first dimension (1 for a scalar)."""
        return sum(segment.num_rows for segment in self.segments)


@dataclass(frozen=True)
class Misfit:
    """A block that is another one in the place where it is to stand, though that has tensors for it from its own.

    `tensors` are those of the block of which the place takes nothing, or not all rows; `settings` what its modules are
    told by the class there and not here, as texts.
    """

    block: str
    place: str
    tensors: tuple[str, ...]
    settings: tuple[str, ...] = ()


def describe_misfits(misfits: Sequence[Misfit]) -> str:
    """A line for the first of them, in words, and how many more there are."""
    first = misfits[0]
    facts = []
    if first.tensors:
        facts.append(f"has no place for {_shorten(first.tensors)} of {first.block}")
    if first.settings:
        facts.append(f"sets {_shorten(first.settings)} otherwise than in {first.block}")
    others = f" ({len(misfits) - 1} more blocks are like that)" if len(misfits) > 1 else ""
    return f"at {first.place} the stock class {' and '.join(facts)}{others}"


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True)
class NewCheckpoint:
    """A pruned checkpoint before it is written.

    `config` is the transformer's; `dropped` are the tensors of the original of which nothing is kept; `repeated` the
    blocks that are written more than once, with how often; `unknown` the tensors that the class does not know, and that
    come along; `misfits` the blocks that do not come whole.
    """

    config: Mapping[str, Any]
    tensors: tuple[NewTensor, ...]
    dropped: tuple[str, ...] = ()
    repeated: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    misfits: tuple[Misfit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; `new_checkpoint_from_json` reads it back."""
        return {
            "config": dict(self.config),
            "tensors": {
                tensor.name: [
                    [s.tensor, s.start, s.stop, s.change, s.by, s.mean, s.mean_start] for s in tensor.segments
                ]
                for tensor in self.tensors
            },
            "dropped": list(self.dropped),
            "repeated": dict(self.repeated),
            "unknown": list(self.unknown),
            "misfits": [[m.block, m.place, list(m.tensors), list(m.settings)] for m in self.misfits],
        }


def new_checkpoint_from_json(data: Mapping[str, Any]) -> NewCheckpoint:
    """What `NewCheckpoint.to_json` wrote."""
    tensors = tuple(
        NewTensor(name, tuple(Segment(*segment) for segment in segments)) for name, segments in data["tensors"].items()
    )
    misfits = tuple(Misfit(block, place, tuple(names), tuple(told)) for block, place, names, told in data["misfits"])
    return NewCheckpoint(
        data["config"], tensors, tuple(data["dropped"]), dict(data["repeated"]), tuple(data["unknown"]), misfits
    )
