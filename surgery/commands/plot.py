"""`surgery plot PROFILE|EVALUATION --out DIR`: what layers do, or what is lost without them, as figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from surgery.commands.damage import OF_BESIDE, OF_PROFILES, Beside, is_evaluation, plot_evaluation
from surgery.commands.given_options import refuse_options
from surgery.commands.output import JsonFlag, print_json, say
from surgery.commands.profile_options import PartOption, read_profile_part
from surgery.errors import InputError
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.profiles.groups import LayerGroups, NumGroups
    from surgery.profiles.layer_profile import Profile, Similarity

MAX_GROUPS = 99
DEFAULT_GROUPS = "3"
KIND_OF: Mapping[str, "Similarity"] = {"states": "cosine", "tokens": "token", "means": "means"}


def run(
    context: typer.Context,
    profile: Annotated[
        Path,
        typer.Argument(
            metavar="PROFILE|EVALUATION",
            help="A profile, as `surgery profile` writes it; or the folder (or evaluation.json) of `surgery evaluate` "
            "with a sweep over single layers, for the map of damage.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the figures into.")],
    format: Annotated[Literal["png", "svg"], typer.Option(help="Of the files.")] = "png",  # noqa: A002  (the option)
    theme: Annotated[Literal["light", "dark", "both"], typer.Option(help="Paper of the figures.")] = "light",
    groups: Annotated[
        str, typer.Option(metavar="N|auto", help="How many groups of layers; auto: by the mean silhouette width.")
    ] = DEFAULT_GROUPS,
    stream: Annotated[
        str | None, typer.Option(help="Group the layers by this stream, instead of the mean over all.")
    ] = None,
    part: PartOption = None,
    similarity: Annotated[
        Literal["states", "tokens", "means"],
        typer.Option(
            help="What is compared in the figures (groups are of whole states): whole states, token by token, or "
            "states averaged over a trajectory (of a profile with --mean-states)."
        ),
    ] = "states",
    embedding: Annotated[
        bool, typer.Option("--embedding/--no-embedding", help="Compare the input of layer 0 too, or outputs alone.")
    ] = True,
    by_time: Annotated[
        bool,
        typer.Option("--by-time", help="Also the similarity in each timestep bin (of many, in ten), side by side."),
    ] = False,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="PROFILE",
            help="Of an evaluation: draw the angular distances of this profile beside the damage, and say whether they "
            "predict it (--stream and --part are of this profile).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace figures that were drawn there before.")] = False,
    json: JsonFlag = False,
) -> None:
    """Draw what layers do: similarity with their groups, heat maps over timesteps, curves, best spans.

    The groups (first, middle, last) are those that a spec takes with `groups: {middle: "PROFILE#STACK.middle"}`.
    Of an evaluation: what the edit of each layer costs at each timestep.
    """
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark") if theme == "both" else (theme,)
    if is_evaluation(profile):
        refuse_options(context, OF_PROFILES, "that is for figures of a profile")
        if beside is None:
            refuse_options(context, OF_BESIDE, "that is for a profile, or for --beside")
        given = None if beside is None else Beside(beside, stream, part)
        plot_evaluation(profile, given, out, file_format=format, themes=themes, force=force, json=json)
        return
    refuse_options(context, {"beside"}, "that is for the folder of an evaluation, in place of the profile")
    wanted = read_num_groups(groups)
    if by_time and similarity == "means":
        raise typer.BadParameter("means over trajectories belong to no timestep; leave it out", param_hint="--by-time")
    found = read_profile_part(profile, part)
    if found.has_only_angles:
        refuse_options(context, {"similarity", "embedding", "by_time"}, "the profile holds angular distances alone")
    by_stack, reasons = group_stacks(found, wanted, stream)
    if not by_stack and groups != DEFAULT_GROUPS and not found.has_only_angles:
        raise InputError("; ".join(reasons.values()))
    from surgery.report.plot_profile import plot_profile
    from surgery.report.similarity_figures import SimilarityView

    view = SimilarityView(KIND_OF[similarity], with_embedding=embedding)
    written = plot_profile(
        found, by_stack, out, file_format=format, themes=themes, view=view, by_time=by_time, force=force
    )
    empty = found.empty_bins()
    if json:
        stacks = {name: groups_to_json(item) for name, item in by_stack.items()}
        document = {"files": [str(path) for path in written], "groups": stacks, "not_grouped": reasons}
        print_json({**document, "bins": found.num_bins, "empty_bins": empty})
        return
    lines = [groups_text(item, profile.name, wanted, stream, part) for item in by_stack.values()]
    lines += reasons.values()
    if empty:
        from surgery.report.panels import bin_labels

        labels = bin_labels(found.num_bins)
        lines.append(f"no samples at timesteps {', '.join(labels[number] for number in empty)}; hatched in the figures")
    lines += [str(path) for path in written]
    say("\n".join(lines))


def read_num_groups(text: str) -> "NumGroups":
    """`3` or `auto`; raises a usage error for anything else."""
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and 2 <= int(text[:9]) <= MAX_GROUPS:
        return int(text)
    raise typer.BadParameter(f"{text} is no number of groups; write 2 to {MAX_GROUPS}, or auto", param_hint="--groups")


def group_stacks(
    profile: "Profile", num_groups: "NumGroups", stream: str | None
) -> tuple[dict[str, "LayerGroups"], dict[str, str]]:
    """The groups of each stack, and why others have none: a stack may be too short.

    Raises:
        InputError: no stack has the stream.
    """
    from surgery.profiles.groups import find_groups

    known = dict.fromkeys(name for stack in profile.stacks for name in stack.streams)
    if stream is not None and stream not in known:
        raise InputError(f"the profile has no stream {stream}; it has {', '.join(known)}")
    found: dict[str, LayerGroups] = {}
    reasons: dict[str, str] = {}
    for stack in profile.stacks:
        try:
            found[stack.name] = find_groups(profile, stack.name, stream=stream, num_groups=num_groups)
        except InputError as error:
            reasons[stack.name] = str(error)
    return found, reasons


def groups_to_json(groups: "LayerGroups") -> dict[str, Any]:
    """Plain data of the groups of a stack."""
    return {
        "groups": {name: [run.start, run.stop] for name, run in groups.by_name.items()},
        "streams": list(groups.streams),
        "silhouette": groups.silhouette,
        "silhouette_of_even_drift": groups.even_drift,
    }


def groups_text(groups: "LayerGroups", profile: str, wanted: "NumGroups", stream: str | None, part: str | None) -> str:
    """The groups of a stack, and how a spec takes one."""
    number = f"{len(groups.starts)} groups" + (" (chosen)" if wanted == "auto" else "")
    over = " and ".join(groups.streams)
    rows = [[name, groups.selector(name)] for name in groups.names]
    options = [f"groups={len(groups.starts)}"] if len(groups.starts) != 3 else []
    options += [f"{name}={value}" for name, value in (("stream", stream), ("part", part)) if value is not None]
    asked = "?" * bool(options) + "&".join(options)
    example = groups.names[len(groups.names) // 2]
    reference = f"{profile}#{groups.stack}.{example}{asked}"
    return "\n".join(
        [
            f"{groups.stack}: {number}, by the similarity of {over}",
            f"  mean silhouette width {groups.silhouette:.2f}; "
            f"layers that drift evenly would have {groups.even_drift:.2f}",
            table(rows, indent="  "),
            f'  in a spec beside it:  groups: {{{example.replace("-", "_")}: "{reference}"}}',
        ]
    )
