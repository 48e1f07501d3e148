"""What shows that a profile is of another model than the one at hand."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from surgery.spec.nearest import unknown_text

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile


def find_mismatch(
    profile: "Profile", class_name: str, lengths: Mapping[str, int], stack: str | None = None
) -> str | None:
    """A sentence, or None where nothing does. `lengths` are the model's blocks by stack; looks at one stack or at all.

    Models of one class and as many blocks are taken for the same: fine-tuned weights may share a profile.
    """
    identity = profile.recipe.get("identity")
    profiled = identity.get("class_name") if isinstance(identity, Mapping) else None
    other = "the profile is of another model: "
    if isinstance(profiled, str) and profiled != class_name:
        return f"{other}a {profiled}, and this is a {class_name}"
    for item in profile.stacks:
        if stack not in (None, item.name):
            continue
        if item.name not in lengths:
            return other + unknown_text("stack", item.name, lengths, f"in {class_name}")
        if lengths[item.name] != item.num_blocks:
            has = f"it has {item.num_blocks} blocks of {item.name}"
            return f"{other}{has}, and this {class_name} has {lengths[item.name]}"
    return None
