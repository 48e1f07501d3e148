"""Groups that a profile defines, as a spec names them: `profile.safetensors#transformer_blocks.middle`.

After the name may stand `?groups=5` (or `auto`; 3 without it), `?stream=NAME` (all streams without it) and
`?part=conditional:text` (all that was measured without it), in this order and joined by `&`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from surgery.spec.document import Scalar
from surgery.spec.nearest import shorten
from surgery.spec.places import Faults, Place

SIGN = ".safetensors#"  # what tells a reference from a selector
PATTERN = (
    r"(?P<file>[^#]+\.safetensors)#(?P<stack>\w+(?:\.\w+)*)\.(?P<group>[A-Za-z]+(?:-[0-9]+)?)"
    r"(?:\?groups=(?P<groups>auto|[2-9]|[1-9][0-9]))?(?:[?&]stream=(?P<stream>\w+))?"
    r"(?:[?&]part=(?P<part>\w+(?::\w+)?))?"
)


@dataclass(frozen=True)
class ProfileGroup:
    """A group that is defined in a profile: the file, relative to the spec's folder, and the group in it.

    `name` is what the spec calls it; `reference` what stands in the spec, at `place`.
    """

    name: str
    reference: str
    place: Place
    file: str
    stack: str
    group: str
    num_groups: int | Literal["auto"] = 3
    stream: str | None = None
    part: str | None = None


def read_profile_group(name: str, value: Scalar, faults: Faults) -> ProfileGroup | None:
    """The group that a text names; None (and a fault) where it is malformed."""
    found = re.fullmatch(PATTERN, value.text)
    if found is None:
        example = "profile.safetensors#transformer_blocks.middle"
        faults.add(
            value.place,
            f'"{shorten(value.text)}" names no stack and group of a profile; write them like {example}, '
            "and behind them ?groups=5&stream=NAME&part=PART or some of these, in this order",
        )
        return None
    wanted = found["groups"] or "3"
    number: int | Literal["auto"] = "auto" if wanted == "auto" else int(wanted)
    file, stack, group, stream, part = (found[key] for key in ("file", "stack", "group", "stream", "part"))
    return ProfileGroup(name, value.text, value.place, file, stack, group, number, stream, part)
