"""`surgery.suggest`: a profile -> the spec that leaves out, or runs twice, the layers that change least."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.errors import InputError
from surgery.profiles.layer_profile import Profile
from surgery.profiles.parts import only_part
from surgery.profiles.profile_file import read_profile
from surgery.profiles.suggested_spec import ProfileFacts, write_suggestion
from surgery.profiles.suggestion import METHODS, Choice, Method, choose_layers, number_to_remove, read_forbidden
from surgery.spec.load import Spec, read_spec


@dataclass(frozen=True)
class SuggestionRequest:
    """What to suggest; see `surgery suggest --help`. One of `remove`, `keep` and `repeat` is given."""

    remove: int | None = None
    keep: float | None = None
    repeat: int | None = None
    by: Method | None = None
    stack: str | None = None
    stream: str | None = None
    part: str | None = None
    forbid: tuple[str, ...] | None = None
    model: str | None = None


@dataclass(frozen=True)
class Suggestion:
    """The profile, or the part of it, that was looked at, what was chosen, the model's name, and the spec's text."""

    profile: Profile
    choice: Choice
    model: str | None
    text: str


def suggest(
    profile: Profile | str | Path,
    *,
    remove: int | None = None,
    keep: float | None = None,
    repeat: int | None = None,
    by: Method | None = None,
    stack: str | None = None,
    stream: str | None = None,
    part: str | None = None,
    forbid: Sequence[str] | None = None,
    model: str | None = None,
) -> Spec:
    """The spec that `surgery suggest` writes of a profile (a `Profile`, or the path of one); its `text` says why.

    One of these is given: `remove`, a number of layers to leave out; `keep`, the share of layers to keep, between 0 and
    1; `repeat`, a number of layers to run twice. `by` is `influence`, `span` or `greedy`. `stack`, `stream` and `part`
    narrow what is looked at; `forbid` are selectors of layers to leave alone, by default the ends of each stack;
    `model` is named in the spec in place of the one that was measured. The spec is not planned: `surgery.check`.

    Raises:
        InputError: the profile can't be read, has no such stack, stream or part, or not as many layers to choose from.
    """
    forbidden = None if forbid is None else tuple(forbid)
    request = SuggestionRequest(remove, keep, repeat, by, stack, stream, part, forbidden, model)
    return read_spec(make_suggestion(profile, request).text, file="suggestion.yaml")


def make_suggestion(profile: Profile | str | Path, request: SuggestionRequest) -> Suggestion:
    """Choose the layers that a request asks for, and write the spec; raises as `suggest` does."""
    if [request.remove, request.keep, request.repeat].count(None) != 2:
        raise InputError("give one of remove, keep and repeat")
    if request.by not in (None, *METHODS):
        raise InputError(f"layers can't be chosen by {request.by}; write one of {', '.join(METHODS)}")
    if request.by == "greedy" and request.repeat is not None:
        raise InputError("greedy leaves layers out; repeat by influence or span")
    whole = profile if isinstance(profile, Profile) else read_profile(profile)
    looked_at = whole if request.part is None else only_part(whole, request.part)
    choice = _choose(looked_at, request)
    name = request.model or looked_at.recipe.get("model")
    text = write_suggestion(
        choice,
        "remove" if request.repeat is None else "repeat",
        _facts_of(profile, looked_at),
        {stack.name: stack.num_blocks for stack in looked_at.stacks},
        model=name,
    )
    return Suggestion(looked_at, choice, str(name) if name else None, text)


def _choose(profile: Profile, request: SuggestionRequest) -> Choice:
    stacks = _stacks_of(profile, request.stack, request.stream)
    forbidden = None if request.forbid is None else read_forbidden(request.forbid, profile, stacks)
    if request.keep is not None:
        number = number_to_remove(profile, stacks, request.keep)
    else:
        number = request.remove or request.repeat or 0
    method: Method = request.by or ("influence" if request.repeat is None else "span")
    return choose_layers(profile, number, by=method, stacks=stacks, stream=request.stream, forbidden=forbidden)


def _stacks_of(profile: Profile, stack: str | None, stream: str | None) -> list[str]:
    """The stack that is asked for, or all that have the stream that is asked for."""
    if stack is not None:
        return [profile.find_stack(stack).name]
    found = [item.name for item in profile.stacks if stream is None or stream in item.streams]
    if not found:
        known = dict.fromkeys(name for item in profile.stacks for name in item.streams)
        raise InputError(f"the profile has no stream {stream}; it has {', '.join(known)}")
    return found


def _facts_of(given: Profile | str | Path, looked_at: Profile) -> ProfileFacts:
    if isinstance(given, Profile):
        return ProfileFacts(None, None, looked_at.recipe)
    digest = hashlib.sha256(Path(given).read_bytes()).hexdigest()
    return ProfileFacts(Path(given).name, digest, looked_at.recipe)
