"""Where in a file something stands, and the faults that were found there."""

from dataclasses import dataclass, field

from surgery.errors import SpecError


@dataclass(frozen=True, order=True)
class Place:
    """Line and column, both counted from 1."""

    line: int
    column: int

    def after(self, num_characters: int) -> "Place":
        """The place that many characters further on the same line."""
        return Place(self.line, self.column + num_characters)


@dataclass
class Faults:
    """Collects all faults of one file: each a place, and a text that says the fact, what exists, what to write."""

    file: str
    found: dict[tuple[Place, str], None] = field(default_factory=dict)
    settled: set[Place] = field(default_factory=set)

    def add(self, place: Place, text: str) -> None:
        """One more fault; the same fault at the same place counts once."""
        if place not in self.settled:
            self.found[place, text] = None

    def add_final(self, place: Place, text: str) -> None:
        """The last word on what stands at this place: later faults there only follow from this one."""
        self.add(place, text)
        self.settled.add(place)

    def raise_if_any(self, partial: object = None) -> None:
        """Raise SpecError with all faults in the order of their places, and what was read all the same."""
        if self.found:
            texts = [f"{self.file}:{place.line}:{place.column}: {text}" for place, text in sorted(self.found)]
            raise SpecError(texts, partial)
