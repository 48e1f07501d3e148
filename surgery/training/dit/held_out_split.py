"""Pictures with labels -> which are learnt from, and which only measure: a share of each class, by chance.

A picture that is there twice is on one side with its like.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from surgery.errors import InputError
from surgery.training.dit.pictures import Picture

LEAST = 2  # pictures to learn from, and to measure by


@dataclass(frozen=True)
class Split:
    """The numbers of pictures, in order."""

    learnt: tuple[int, ...]
    held_out: tuple[int, ...]


def split_pictures(pictures: Sequence[Picture], share: float, most: int, seed: int, *, by_label: bool) -> Split:
    """Hold out a share, but at most so many; of each label, where these are classes. The rest is learnt from.

    Raises:
        InputError: there are too few.
    """
    groups: dict[str, dict[str, None]] = {}
    for picture in pictures:
        groups.setdefault(picture.label if by_label else "", {})[picture.key] = None
    shuffled = random.Random(seed)
    chosen: set[str] = set()
    share = min(share, most / len(pictures)) if pictures else share
    for keys in groups.values():
        chosen |= set(shuffled.sample(list(keys), round(share * len(keys)) if len(keys) > 1 else 0))
    sides: tuple[list[int], list[int]] = ([], [])
    for number, picture in enumerate(pictures):
        sides[picture.key in chosen].append(number)
    split = Split(tuple(sides[False]), tuple(sides[True]))
    if len(split.learnt) < LEAST or len(split.held_out) < LEAST:
        raise InputError(
            f"there are too few pictures: {len(split.learnt)} to learn from and {len(split.held_out)} to measure by, "
            f"and {LEAST} of each are the least; give more, or another share in validation"
        )
    return split
