"""A profile of one part of what was measured: a branch of guidance, the tokens that are no padding, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack, StreamSums, add_up

TEXT, PADDING = "text", "padding"  # the tokens that are told apart where it is known which are padding


def only_part(profile: Profile, part: str) -> Profile:
    """The profile as it would be if nothing else had been measured.

    `part` is a branch (`conditional`), tokens (`text`: those that are no padding; `padding`), or tokens of a branch
    (`conditional:text`). A stream whose padding is not told apart, like that of a picture, counts whole as `text`, and
    not as `padding`. Outputs of components are of the branch, and always without padding.

    Raises:
        InputError: nothing was measured of this part, padding is known of some forwards only, or the profile is of a
            part already.
    """
    if "part" in profile.recipe:
        raise InputError(f"the profile is of the part {profile.recipe['part']} already; take the part of the whole")
    if part not in list_parts(profile):
        raise InputError(f"the profile has no part {part}; it has {', '.join(list_parts(profile))}")
    branch, tokens = split_part(part)
    streams = _streams_of(profile, branch, tokens)
    found: dict[tuple[str, str, str], Moments] = {}
    if tokens != PADDING:
        found = {key: moments for key, moments in profile.components.items() if branch in ("", key[2])}
    stacks = [
        ProfiledStack(stack.name, stack.num_blocks, names)
        for stack in profile.stacks
        if (names := tuple(name for name in stack.streams if any((stack.name, name) == key[:2] for key in streams)))
    ]
    recipe = {**profile.recipe, "part": part}
    return replace(profile, recipe=recipe, stacks=tuple(stacks), streams=streams, components=found)


def split_part(part: str) -> tuple[str, str]:
    """The branch and the tokens that a part names; empty where it names none."""
    branch, _, tokens = part.partition(":")
    return ("", branch) if branch in (TEXT, PADDING) else (branch, tokens)


def list_parts(profile: Profile) -> list[str]:
    """All parts that can be asked for: branches, tokens, and tokens of a branch, where any were counted."""
    known = list(dict.fromkeys(part for (*_, part), sums in profile.streams.items() if sums.angles.any()))
    tokens = dict.fromkeys(part.partition(":")[2] for part in known if ":" in part)
    return [*(part for part in known if ":" not in part), *tokens, *(part for part in known if ":" in part)]


def _streams_of(profile: Profile, branch: str, tokens: str) -> Mapping[tuple[str, str, str], StreamSums]:
    """The sums of these tokens, under the names of their branches; an empty text asks for all."""
    found: list[dict[tuple[str, str, str], StreamSums]] = []
    for (stack, stream, part), whole in profile.streams.items():
        if ":" in part or branch not in ("", part):
            continue
        told_apart = {name: profile.streams.get((stack, stream, f"{part}:{name}")) for name in (TEXT, PADDING)}
        sums = whole if not tokens or (tokens == TEXT and told_apart[TEXT] is None) else told_apart[tokens]
        if tokens and told_apart[TEXT] is not None:
            _refuse_gaps(f"{stack}/{stream}", whole, [one for one in told_apart.values() if one is not None])
        if sums is not None and sums.angles.any():
            found.append({(stack, stream, part): sums})
    return add_up(found)


def _refuse_gaps(place: str, whole: StreamSums, parts: Sequence[StreamSums]) -> None:
    """Raise InputError where some forwards were counted whole only, as padding was unknown in them."""
    known, counted = sum(int(one.tokens.sum()) for one in parts), int(whole.tokens.sum())
    if known != counted:
        raise InputError(
            f"of {place} it is known of {known:,} of {counted:,} tokens whether they are padding; measure again, or "
            "look at whole branches"
        )
