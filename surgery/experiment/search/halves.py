"""Prompts -> two halves: one to choose by, and one that the search never sees, to report on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from surgery.errors import InputError

FEWEST = 4  # different prompts: two of each half, so that there is an interval


@dataclass(frozen=True)
class Half:
    """Prompts by their numbers among all that are run: `prompts[first:end]`. Prompt k has the noise of `seed + k`."""

    name: str
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def batches(self, size: int) -> Iterator[range]:
        """The numbers of its prompts, so many at once."""
        for start in range(self.first, self.end, size):
            yield range(start, min(start + size, self.end))


def split_prompts(prompts: Sequence[str]) -> tuple[tuple[str, ...], Half, Half]:
    """Every other prompt to choose by, then the others; one that is there twice counts once, so that no half knows it
    from the other.

    Raises:
        InputError: there are too few.
    """
    different = tuple(dict.fromkeys(prompts))
    if len(different) < FEWEST:
        raise InputError(
            f"{len(different)} different prompt{'s are' if len(different) != 1 else ' is'} too few to split; give "
            f"{FEWEST} or more: layers are chosen by one half, and what is reported is measured on the other"
        )
    ordered = (*different[::2], *different[1::2])
    middle = len(different[::2])
    return ordered, Half("choosing", 0, middle), Half("held out", middle, len(ordered))
