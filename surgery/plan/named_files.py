"""The files that a spec names: its plan is made from what is in them as well as from its text."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from surgery.files import hash_file
from surgery.plan.cumulative_order import file_of_order
from surgery.spec.load import Spec


def hash_named_files(spec: Spec, *, profile: Path | None = None) -> dict[str, str]:
    """The SHA-256 of each file that the plans of a spec depend on, by its path: the order of a cumulative sweep, the
    profiles of groups, and the means, or `profile`, which takes their place.

    A file that can't be read is left out: what is wrong with it is a fault, which planning finds.
    """
    found: dict[str, str] = {}
    for path in _named_files(spec, profile):
        with contextlib.suppress(OSError, ValueError):
            found[str(path)] = hash_file(path)
    return found


def _named_files(spec: Spec, profile: Path | None) -> Iterator[Path]:
    order = None if spec.cumulative is None else file_of_order(spec.cumulative, spec.folder)
    if order is not None:
        yield order
    yield from (spec.folder / group.file for group in spec.profile_groups)
    if profile is not None:
        yield profile
    elif spec.profile is not None:
        yield spec.folder / spec.profile
