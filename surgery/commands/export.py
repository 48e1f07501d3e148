"""`surgery export lokr PROFILE` and `surgery export check FILE`: training configs from profiles, and what others do."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.commands.export_text import (
    count_as_asked,
    describe_judgement,
    describe_written,
    judgement_to_json,
    plan_to_json,
    written_to_json,
)
from surgery.commands.given_options import refuse_options
from surgery.commands.output import JsonFlag, print_json, say
from surgery.commands.profile_options import PartOption, read_profile_part
from surgery.errors import InputError
from surgery.export.shipped import shipped_model
from surgery.export.target_text import TargetRequest
from surgery.export.targets import TARGETS, unread_options
from surgery.outputs import refuse_file, write_file
from surgery.spec.nearest import unknown_text
from surgery.spec.selector import FIRST, SECOND

if TYPE_CHECKING:
    from surgery.export.weighted_layers import Settings
    from surgery.profiles.layer_profile import Profile

LAYOUTS = ("works", "published")
NORMALIZATIONS = ("apart", "jointly")
OF_PROFILES = {"clip_percentile", "weight", "normalize", "ignore_empty_bins", "part", "stack"}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Training configs from a profile: the layers that do most get the most parameters.",
)


@app.command("lokr")
def run_lokr(
    context: typer.Context,
    profile: Annotated[
        Path | None,
        typer.Argument(help="A profile: the file that `surgery profile` writes; none: the contributions of --preset."),
    ] = None,
    trainer: Annotated[
        str, typer.Option("--for", metavar="TRAINER", help=f"What reads it: {', '.join(TARGETS)}.")
    ] = next(iter(TARGETS)),
    model: Annotated[
        str | None,
        typer.Option(help="The model, instead of the profile's or preset's: a folder (config.json is enough), or id."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; without it the text is printed.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Values of all steps by name, and without a profile its contributions: sd35-layerwise."),
    ] = None,
    clip_percentile: Annotated[
        float | None, typer.Option(help="Distances above this percentile are clipped; 100: none. [90]")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="STREAM=W", help="Weight of a stream (2/3); streams not named do not count. [all alike]"),
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(help="Each stack between 0 and 1 by itself (apart), or all together (jointly). [apart]"),
    ] = None,
    ignore_empty_bins: Annotated[
        bool, typer.Option("--ignore-empty-bins", help="Leave timestep bins without samples out.")
    ] = False,
    max_factor: Annotated[int | None, typer.Option(help="Factor of the layer that does least. [16]")] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Trainable parameters; solves for the largest factor.")
    ] = None,
    critical: Annotated[
        list[str] | None, typer.Option(metavar="LAYERS", help="Layers with factor 1: transformer_blocks[0, 31:36].")
    ] = None,
    multiply: Annotated[
        list[str] | None,
        typer.Option(metavar="COMPONENT=N", help="Factor of a component times N; *=N for all that is not named."),
    ] = None,
    powers_of_two: Annotated[
        bool, typer.Option("--powers-of-two", help="Round factors to powers of two, which all widths have.")
    ] = False,
    part: PartOption = None,
    stack: Annotated[list[str] | None, typer.Option(help="Train this stack only; repeatable. [all]")] = None,
    layout: Annotated[
        str, typer.Option(help="works, or published: the file of the SD3.5 study, which LyCORIS misreads.")
    ] = LAYOUTS[0],
    max_rank: Annotated[int, typer.Option(min=1, help="Rank of the layer that does most, for trainers of LoRA.")] = 16,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of a layer that is trained, where it is on or off.")
    ] = 0.5,
    learning_rate: Annotated[
        float, typer.Option(help="Of the layer that does most, where a trainer takes one a layer.")
    ] = 1e-4,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not build the network with LyCORIS.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Turn what layers do into LoKr factors (or ranks, or a choice of layers), as text that a trainer takes.

    Angular distances are clipped, weighted by stream, averaged over timesteps and normalised to a share by layer:
    share 1 gets factor 1, share 0 the largest. A larger factor trains fewer parameters. The config is built by LyCORIS
    as SimpleTuner does it, and compared module by module, before it is written.
    """
    _refuse_unknown("trainer", trainer, tuple(TARGETS))
    _refuse_unknown("layout", layout, LAYOUTS)
    if budget is not None:
        refuse_options(context, {"max_factor"}, "--budget solves for it")
    refuse_options(context, unread_options(TARGETS[trainer]), f"{trainer} reads none of it")
    if not 0 < learning_rate < math.inf:
        raise InputError(f"the learning rate must be above 0, not {learning_rate:g}")
    if profile is None:
        refuse_options(context, OF_PROFILES, "it is of a profile, and there is none")
    if out is not None:
        refuse_file(out, force=force)
    from surgery.export import weighted_layers

    settings = _settings(preset, clip_percentile, weight, normalize, ignore_empty_bins=ignore_empty_bins)
    settings = replace(
        settings,
        max_factor=settings.max_factor if max_factor is None else max_factor,
        budget=budget,
        critical=settings.critical if critical is None else tuple(critical),
        multipliers=settings.multipliers if multiply is None else _read_multipliers(multiply),
        powers_of_two=powers_of_two,
    )
    if profile is None:
        if preset is None:
            raise InputError("give a profile (`surgery profile` writes one), or a --preset, which has contributions")
        transformer = build_transformer(model or shipped_model(preset))
        layers = weighted_layers.weigh_by_preset(preset, transformer, settings)
    else:
        measured = read_profile_part(profile, part)
        transformer = build_transformer(model or _model_of(measured), part=measured.transformer)
        layers = weighted_layers.weigh_layers(measured, transformer, settings, stack)
    factors = weighted_layers.choose_factors(layers, settings)
    plan = weighted_layers.plan_layers(layers, factors, settings)
    request = TargetRequest(
        layers,
        plan,
        factors,
        max_rank,
        threshold,
        layout="published" if layout == "published" else "works",
        path=str(out or "lycoris_config.json"),
        verified_on=None if no_verify else transformer,
        learning_rate=learning_rate,
    )
    written = TARGETS[trainer].write(request)
    description = describe_written(TARGETS[trainer], request, written)
    if out is not None:
        write_file(out, written.text, force=force)
    if json:
        print_json(
            {"for": trainer, "out": None if out is None else str(out), **plan_to_json(layers, factors, plan)}
            | written_to_json(TARGETS[trainer], written)
        )
        return
    say(description, err=out is None)
    say(written.text if out is None else f"written to {out}", end="" if out is None else "\n")


@app.command("check")
def run_check(
    file: Annotated[Path, typer.Argument(help="A LyCORIS config: SimpleTuner's JSON, or a TOML of sd-scripts.")],
    model: Annotated[str, typer.Option(help="What it is to train: a folder (config.json is enough), or hub id.")],
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write the repaired config.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Judge a LyCORIS config: which modules it really trains and how, where its patterns say otherwise, and why.

    Exit status 1 where it does not train what it says, and --fix was not given.
    """
    from surgery.export.check_config import judge_config, read_config
    from surgery.export.config_faults import list_faults
    from surgery.export.repair_config import repair_config, repaired_text

    if fix is not None:
        if fix.exists() and file.exists() and fix.samefile(file):
            raise InputError(f"{fix} is the config itself; give another file")
        refuse_file(fix, force=force, suffixes=(".toml",) if file.suffix == ".toml" else (".json",))
    config = read_config(file)
    transformer = build_transformer(model)
    judgement = judge_config(config, transformer)
    faults = list_faults(judgement)
    repaired = None
    if fix is not None:
        repaired = repair_config(judgement, transformer)
        write_file(fix, repaired_text(repaired.config), force=force)
    if json:
        print_json(judgement_to_json(file, judgement, faults, fix, repaired))
    else:
        say(describe_judgement(file, type(transformer).__name__, judgement, faults))
        if repaired is not None:
            say(f"repaired in {fix}: {count_as_asked(repaired)}")
    if fix is None and not judgement.as_asked:
        raise typer.Exit(1)


def _refuse_unknown(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(unknown_text(what, name, known))


def _settings(
    preset: str | None,
    clip_percentile: float | None,
    weight: list[str] | None,
    normalize: str | None,
    *,
    ignore_empty_bins: bool,
) -> "Settings":
    """The preset's values, or the plain ones, with what options say."""
    from surgery.export.contributions import read_weight
    from surgery.export.weighted_layers import PRESETS, Settings

    if preset is not None:
        _refuse_unknown("preset", preset, tuple(PRESETS))
    settings = Settings() if preset is None else PRESETS[preset]
    weighing = replace(settings.weighing, ignore_empty_bins=ignore_empty_bins)
    if clip_percentile is not None:
        weighing = replace(weighing, clip_percentile=clip_percentile)
    if weight is not None:
        weighing = replace(weighing, weights=dict(map(read_weight, weight)))
    if normalize is not None:
        _refuse_unknown("normalisation", normalize, NORMALIZATIONS)
        weighing = replace(weighing, normalization="jointly" if normalize == "jointly" else "apart")
    return replace(settings, weighing=weighing)


def _read_multipliers(texts: list[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not name.strip() or not number.strip().isdecimal() or int(number) < 1:
            raise InputError(f'"{text}" is no multiplier; write COMPONENT=N with N from 1, like attn=2 or *=2')
        found[name.strip()] = int(number)
    return found


def _model_of(profile: "Profile") -> str:
    name = profile.recipe.get("model")
    if not isinstance(name, str):
        raise InputError("the profile does not say of which model it is; name it (--model)")
    return name


def build_transformer(model: str, *, part: str = FIRST) -> Any:
    """A model on the meta device; of a pipeline with two transformers, `part` of them."""
    from surgery.anatomy.sources import build_on_meta, find_source, second_source

    source = find_source(model)
    second = second_source(source) if part == SECOND else None
    return build_on_meta(second or source)
