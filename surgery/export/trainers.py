"""What is known of a trainer, and of each class of diffusers in it; `trainer_table` holds the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Family:
    """A class of diffusers as one trainer knows it.

    `called` is the trainer's own word for it: a model family, an architecture, a model type or a script. `stacks` maps
    the stacks of diffusers to the names in the trainer's own class; one that is not among them is not trained there.
    `has` names options that only some families of the trainer take.
    """

    called: str
    stacks: Mapping[str, str]
    has: tuple[str, ...] = ()
    module: str = ""  # the `network_module` to name
    options: str = ""  # that its script needs beside
    inside: str = ""  # a regular expression of the names within a block that it trains by itself; empty: all
    counted: tuple[str, ...] = ()  # stacks whose layers it numbers through, in this order
    most_layers: Mapping[str, int] = field(default_factory=dict)  # of a stack, where it takes no more
    prefix: str = "transformer."  # before the names of modules


@dataclass(frozen=True)
class Trainer:
    """A trainer: the version that the rows were last compared with, when, and its rows by class of diffusers.

    `families` None: it takes any class, by the names of diffusers.
    """

    title: str
    version: str
    compared: str  # year-month-day
    families: Mapping[str, Family] | None

    def find(self, class_name: str, needed: str = "") -> Family | None:
        """The row of a class, if it has what is needed."""
        if self.families is None:
            return ANY_FAMILY
        family = self.families.get(class_name)
        return family if family is not None and (not needed or needed in family.has) else None

    def known(self, needed: str = "") -> list[str]:
        """The classes that have what is needed."""
        return [name for name, family in (self.families or {}).items() if not needed or needed in family.has]


ANY_FAMILY = Family("", {})
