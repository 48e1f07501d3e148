"""The part of a profile that a command looks at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile

PartOption = Annotated[
    str | None,
    typer.Option(
        help="Look at a part only: a branch of guidance (conditional), tokens (text: without padding; padding), or "
        "both (conditional:text)."
    ),
]


def read_profile_part(path: Path, part: str | None) -> "Profile":
    """A profile, or the part of it that is asked for; raises InputError where there is none."""
    from surgery.profiles.parts import only_part
    from surgery.profiles.profile_file import read_profile

    profile = read_profile(path)
    return profile if part is None else only_part(profile, part)
