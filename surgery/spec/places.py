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
    """Collects all faults of one file: each a place, and a text that says the fact, what exists, what to write.

    `num_met` counts how often a fault was met, also one that was said before: whoever reads something twice learns from
    it that it is as faulty as the first time.
    """

    file: str
    found: dict[tuple[Place, str], None] = field(default_factory=dict)
    settled: set[Place] = field(default_factory=set)
    num_met: int = 0

    def add(self, place: Place, text: str) -> None:
        """One more fault; the same fault at the same place is said once."""
        self.num_met += 1
        if place not in self.settled:
            self.found[place, text] = None

    def meet_again(self) -> None:
        """What is read here has a fault that was said elsewhere."""
        self.num_met += 1

    def settle(self, place: Place) -> None:
        """Whatever is still said of what stands at this place only follows from another fault."""
        self.settled.add(place)

    def settle_found(self) -> None:
        """The same for all places where there is a fault by now."""
        self.settled |= {place for place, _ in self.found}

    def apart(self) -> "Faults":
        """None yet, of the same file, and with the same settled: to be joined or left."""
        return Faults(self.file, settled=set(self.settled))

    def add_final(self, place: Place, text: str) -> None:
        """The last word on what stands at this place: later faults there only follow from this one."""
        self.add(place, text)
        self.settle(place)

    def raise_if_any(self, partial: object = None) -> None:
        """Raise SpecError with all faults in the order of their places, and what was read all the same."""
        if self.found:
            raise SpecError(self.texts, partial)

    @property
    def texts(self) -> tuple[str, ...]:
        """All faults as messages, in the order of their places."""
        return tuple(f"{self.file}:{place.line}:{place.column}: {text}" for place, text in sorted(self.found))
