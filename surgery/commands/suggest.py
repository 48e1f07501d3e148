"""`surgery suggest PROFILE --remove N`: a spec that says why, from what layers do; planned at once."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from surgery.commands.output import JsonFlag, print_json, say
from surgery.commands.profile_options import PartOption
from surgery.errors import InputError
from surgery.outputs import refuse_file, write_file

SEARCH = "surgery search MODEL --prompts FILE --budget ... measures damage, and finds what does least within a budget"

if TYPE_CHECKING:
    from surgery.plan.planned import PlannedSource
    from surgery.profiles.suggesting import Suggestion


def run(
    profile: Annotated[Path, typer.Argument(help="A profile, as `surgery profile` writes it.")],
    remove: Annotated[int | None, typer.Option(min=1, help="Leave out this many layers.")] = None,
    keep: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Leave out layers until this share of them is left, like 0.75."),
    ] = None,
    repeat: Annotated[int | None, typer.Option(min=1, help="Run this many layers twice.")] = None,
    by: Annotated[
        Literal["influence", "span", "greedy"] | None,
        typer.Option(
            help="influence: the layers that change least, one by one, over all stacks (what --remove takes without "
            "it). span: the neighbours that change least together (what --repeat takes without it). "
            "greedy: one after the other, of those of about the least influence the one of the least gap."
        ),
    ] = None,
    stack: Annotated[str | None, typer.Option(help="Choose among the layers of this stack only.")] = None,
    stream: Annotated[str | None, typer.Option(help="Judge by this stream, instead of the mean over all.")] = None,
    part: PartOption = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SELECTOR",
            help="Layers to leave alone, instead of the ends of each stack; none for none; repeatable.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model, instead of the one that was measured.")] = None,
    out: Annotated[Path | None, typer.Option(help="The spec to write (.yaml); without it, it is printed.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a spec that is there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Suggest a spec from a profile: which layers to leave out or to run twice, and why. Plans it at once.

    A low number says that a layer changes little, not that it is not needed: judge by pictures.
    """
    if [remove, keep, repeat].count(None) != 2:
        raise typer.BadParameter("give one of --remove N, --keep SHARE and --repeat N")
    if by == "greedy" and repeat is not None:
        raise typer.BadParameter("greedy leaves layers out; repeat by influence or span", param_hint="--by")
    if out is not None:
        refuse_file(out, force=force, suffixes=(".yaml", ".yml"))
    from surgery.profiles.suggesting import SuggestionRequest, make_suggestion

    forbidden = None if forbid is None else tuple(forbid)
    request = SuggestionRequest(remove, keep, repeat, by, stack, stream, part, forbidden, model)
    suggestion = make_suggestion(profile, request)
    planned, reason = plan_suggestion(suggestion, out, is_given=model is not None)
    if out is not None:
        write_file(out, suggestion.text, force=force)
    if json:
        print_json(suggestion_to_json(suggestion, out, planned, reason))
        return
    if out is None:
        say(suggestion.text, end="")
    say(plan_text(planned, reason), err=out is None)
    say(SEARCH, err=out is None)
    if out is not None:
        say(f"written to {out}")


def plan_suggestion(
    suggestion: "Suggestion", out: Path | None, *, is_given: bool
) -> tuple["PlannedSource | None", str | None]:
    """The plan of the suggestion; or None and why not, where the model that was measured is not at hand.

    Raises:
        InputError: the model that is asked for is not at hand, or is another than the profile is of.
        SpecError: the model can't take the suggestion.
    """
    from surgery.anatomy.sources import anatomy_of_source, find_source
    from surgery.plan.planned import plan_spec, with_source
    from surgery.plan.profile_groups import refuse_other_model
    from surgery.spec.load import read_spec
    from surgery.spec.parts import spec_of_part

    if suggestion.model is None:
        return None, "the profile does not say of which model it is; give --model to plan the spec"
    spec = read_spec(suggestion.text, file=str(out or "suggestion.yaml"), folder=Path() if out is None else out.parent)
    part = suggestion.profile.transformer
    try:
        source = find_source(suggestion.model, part=part)
    except InputError as error:
        if is_given:
            raise
        return None, f"not planned, since the model is not at hand: {error}; give --model"
    anatomy = anatomy_of_source(source)
    refuse_other_model(suggestion.profile, anatomy, part=part)
    return with_source(plan_spec(spec_of_part(spec, part), anatomy), source), None


def plan_text(planned: "PlannedSource | None", reason: str | None) -> str:
    """What `surgery check` says of the suggestion."""
    if planned is None:
        return reason or ""
    from surgery.commands.planned_text import describe_plan
    from surgery.plan.backends import judge_backends

    return describe_plan(planned, judge_backends(planned.plan, planned.anatomy))


def suggestion_to_json(
    suggestion: "Suggestion", out: Path | None, planned: "PlannedSource | None", reason: str | None
) -> dict[str, Any]:
    """The document of `--json`."""
    from surgery.commands.planned_text import Show, describe

    choice = suggestion.choice
    document: dict[str, Any] = {
        "by": choice.by,
        "layers": [asdict(layer) for layer in choice.layers],
        "forbidden": {stack: sorted(indices) for stack, indices in choice.forbidden.items()},
        "out": None if out is None else str(out),
        "text": suggestion.text,
    }
    if planned is None:
        return {**document, "not_planned": reason}
    return {**document, **describe(planned, Show.plan)[0]}
