"""What a LyCORIS config asks for beside what is trained: the differences, and the faults that tell their causes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from surgery.export.lycoris_apply import Trained
from surgery.export.read_config import AskedModule, ModelModule, Preset, Shadowed, list_shadowed, read_preset

Words = Mapping[str, object]
Cases = Iterator[tuple[Words, Iterable[str]]]  # of a kind of fault: words of its message, and names of modules


@dataclass(frozen=True)
class Difference:
    """A module that is not trained as asked; None where it was not asked for, or is not trained."""

    module: ModelModule
    asked: AskedModule | None
    trained: Trained | None


@dataclass(frozen=True)
class Fault:
    """A sentence: the fact and what to write. `modules` are those whose difference it is the cause of.

    One that `decides` makes a config unfit even where every module is trained as asked; others are warnings.
    """

    kind: str
    text: str
    decides: bool
    modules: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Judgement:
    """`built` is what LyCORIS makes, in its order, a module twice where it is wrapped twice.

    `failure` is what LyCORIS says where it can't build the network; then nothing is trained.
    """

    class_name: str
    config: Mapping[str, Any]
    modules: tuple[ModelModule, ...]
    asked: Mapping[str, AskedModule]
    built: tuple[Trained, ...]
    differences: tuple[Difference, ...]
    failure: str | None
    lycoris: str
    faults: tuple[Fault, ...] = ()

    @cached_property
    def preset(self) -> Preset:
        return read_preset(self.config)

    @cached_property
    def shadowed(self) -> list[Shadowed]:
        return list_shadowed(self.config, self.preset, self.modules)

    @cached_property
    def trained(self) -> Mapping[str, Trained]:
        """By name, what is trained; of what is wrapped twice the last."""
        return {item.name: item for item in self.built}

    @cached_property
    def twice(self) -> frozenset[str]:
        """The modules that are wrapped more than once."""
        return frozenset(name for name, count in Counter(item.name for item in self.built).items() if count > 1)

    @property
    def num_as_asked(self) -> int:
        """How many of the modules that were asked for are trained as asked."""
        return len(self.asked) - sum(item.asked is not None for item in self.differences)

    @property
    def as_asked(self) -> bool:
        """Whether the config trains what it says, and anything at all, and nothing in it is ignored."""
        return not (self.differences or self.failure or any(fault.decides for fault in self.faults)) and bool(
            self.asked
        )

    @property
    def num_parameters(self) -> int:
        """That are trained."""
        return sum(module.num_parameters for module in self.built)

    @property
    def num_parameters_asked(self) -> int | None:
        """That would be trained as asked; None where not all is full-matrix LoKr."""
        shapes = {module.name: module.shape for module in self.modules}
        counts = [asked.num_parameters(shapes[name]) for name, asked in self.asked.items()]
        return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    def cause_of(self, name: str) -> str | None:
        """The sentence that explains the difference of a module."""
        return next((fault.text for fault in self.faults if name in fault.modules), self.failure)


def unasked_modules(judgement: Judgement) -> list[ModelModule]:
    """What is trained and was not asked for."""
    return [item.module for item in judgement.differences if item.asked is None]


def count_words(names: Iterable[str]) -> Words:
    """How many modules there are, and which is the first, as words of a message."""
    found = list(names)
    return {"count": len(found), "first": found[0], "modules": "module" if len(found) == 1 else "modules"}
