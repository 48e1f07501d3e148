"""A profile of one part of what was measured: a branch of guidance, the tokens that are no padding, or both."""

from collections.abc import Mapping
from dataclasses import replace

from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments, Profile, ProfiledStack, StreamSums, add_up

TEXT, PADDING = "text", "padding"  # the tokens that are told apart where it is known which are padding


def only_part(profile: Profile, part: str) -> Profile:
    """The profile as it would be if nothing else had been measured.

    `part` is a branch (`conditional`), tokens (`text`: those that are no padding; `padding`), or tokens of a branch
    (`conditional:text`). A stream whose padding is not told apart counts whole as `text`, and not as `padding`. Outputs
    of components are of the branch, and always without padding.

    Raises:
        InputError: nothing was measured of this part.
    """
    branch, colon, tokens = part.partition(":")
    if branch in (TEXT, PADDING) and not colon:
        branch, tokens = "", branch
    is_malformed = not part or (colon and not (branch and tokens)) or tokens not in ("", TEXT, PADDING)
    streams = {} if is_malformed else _streams_of(profile, branch, tokens)
    if not streams:
        raise InputError(f"the profile has no part {part}; it has {', '.join(list_parts(profile))}")
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


def list_parts(profile: Profile) -> list[str]:
    """All parts that can be asked for: branches, tokens, and tokens of a branch."""
    known = list(dict.fromkeys(part for *_, part in profile.streams))
    tokens = dict.fromkeys(part.partition(":")[2] for part in known if ":" in part)
    return [*(part for part in known if ":" not in part), *tokens, *(part for part in known if ":" in part)]


def _streams_of(profile: Profile, branch: str, tokens: str) -> Mapping[tuple[str, str, str], StreamSums]:
    """The sums of these tokens, under the names of their branches; an empty text asks for all."""
    found: list[dict[tuple[str, str, str], StreamSums]] = []
    for (stack, stream, part), sums in profile.streams.items():
        of_branch, _, of_tokens = part.partition(":")
        is_told_apart = (stack, stream, f"{of_branch}:{PADDING}") in profile.streams
        wanted = tokens if is_told_apart or tokens == PADDING else ""
        if branch in ("", of_branch) and of_tokens == wanted:
            found.append({(stack, stream, of_branch): sums})
    return add_up(found)
