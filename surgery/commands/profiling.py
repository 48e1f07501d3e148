"""`surgery profile MODEL`: what the layers of a model do, over prompts and timesteps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from surgery.commands.drawing_options import (
    CallOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    HeightOption,
    PromptOption,
    PromptsOption,
    SampleOption,
    SampleSeedOption,
    StepsOption,
    WidthOption,
    pipeline_arguments,
    read_prompts,
)
from surgery.commands.engine_options import AddressOption, EngineOption, ThreadsOption, WorkersOption
from surgery.commands.given_options import refuse_options
from surgery.commands.output import JsonFlag, QuietFlag, bytes_text, print_json, say
from surgery.commands.spec_options import TransformerOption
from surgery.errors import InputError
from surgery.outputs import refuse_file, unfinished_runs
from surgery.progress import quietly
from surgery.spec.selector import FIRST
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile


FOR_MERGE = {"targets", "out", "merge", "force", "quiet", "json"}
SAMPLING_ONLY = {"steps", "guidance_scale", "mean_states"}


def run(
    context: typer.Context,
    targets: Annotated[
        list[str], typer.Argument(metavar="MODEL|PROFILE...", help="The model; with --merge, the profiles to join.")
    ],
    out: Annotated[Path, typer.Option(help="The profile to write, a .safetensors file.")],
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    sample: SampleOption = None,
    sample_seed: SampleSeedOption = 0,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures with captions: measure them noised, as in training, not sampling."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="With --pictures: how many to measure; default each caption once.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Join profiles of one model over different prompts.")] = False,
    bins: Annotated[int, typer.Option(min=1, max=1000, help="Timestep bins of equal width.")] = 10,
    token: Annotated[
        Literal["all", "last"],
        typer.Option(
            help="Tokens whose angles are averaged. last: one token of each sample, as papers on language models do; "
            "in a DiT it is a corner of the picture, or a padding token, and says little of the others."
        ),
    ] = "all",
    component: Annotated[
        list[str] | None,
        typer.Option(help="Measure the mean output of this component (attn, ff.net.0.proj, ...; or all); repeatable."),
    ] = None,
    transformer: TransformerOption = None,
    mean_states: Annotated[
        bool, typer.Option("--mean-states", help="Also the cosine of states averaged over a trajectory's steps.")
    ] = False,
    engine: EngineOption = "serial",
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    address: AddressOption = None,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Sample k has the noise of seed + k.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts sampled at once; samples between two writes.")] = 8,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile that is there, and start afresh.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure what layers do: similarity, angular distance, influence, mean outputs; an interrupted run goes on."""
    if merge:
        refuse_options(context, set(context.params) - FOR_MERGE, "--merge joins what was measured")
        profile = _merge(targets, out, force=force)
    else:
        arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
        from surgery.experiment.engine_choice import EngineChoice
        from surgery.experiment.profile_units import ProfileSettings
        from surgery.experiment.profiling import ProfileRequest, measure_profile

        if len(targets) > 1:
            raise InputError(f"there are {len(targets)} models; give one, or --merge to join profiles")
        if pictures is None:
            refuse_options(context, {"samples"}, "that is for --pictures")
        else:
            refuse_options(context, {"prompt", "prompts", "sample"}, "pictures have captions")
            refuse_options(context, SAMPLING_ONLY, "with --pictures there is one forward, without guidance")
        request = ProfileRequest(
            model=targets[0],
            out=out,
            prompts=() if pictures is not None else read_prompts(prompt or [], prompts, sample, sample_seed),
            pictures=pictures,
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            settings=ProfileSettings(bins, token, tuple(component or ()), mean_states, transformer or FIRST),
            engine=EngineChoice(engine, workers, threads, address),
            dtype=dtype,
            device=device,
            call=arguments,
            force=force,
        )
        with quietly(quiet):
            profile = measure_profile(request, say=lambda text: say(text, err=True))
    if json:
        print_json({"out": str(out), "size_bytes": out.stat().st_size, **describe_profile(profile)})
    else:
        say(profile_text(profile))
        say(f"written to {out} ({bytes_text(out.stat().st_size)})")


def _merge(targets: list[str], out: Path, *, force: bool) -> "Profile":
    from surgery.profiles.profile_file import merge_profiles, read_profile, write_profile

    refuse_file(out, force=force, suffixes=(".safetensors",))
    profile = merge_profiles([read_profile(target) for target in targets])
    with unfinished_runs(out):
        refuse_file(out, force=force)
        write_profile(profile, out)
    return profile


def describe_profile(profile: "Profile") -> dict[str, Any]:
    """What a profile holds, as plain data: the numbers of each layer, over all timesteps."""
    stacks = {
        stack.name: {
            stream: {
                "angular_distance": profile.span_angular(stack.name, stream).diagonal(1).tolist(),
                "block_influence": profile.influence(stack.name, stream).tolist(),
                "parts": list(profile.parts(stack.name, stream)),
            }
            for stream in stack.streams
        }
        for stack in profile.stacks
    }
    empty = profile.empty_bins()
    return {
        "samples": len(profile.recipe.get("samples", ())),
        "bins": profile.num_bins,
        "empty_bins": empty,
        "stacks": stacks,
    }


def profile_text(profile: "Profile") -> str:
    """The layers of each stack with their angular distance and influence, for people."""
    described = describe_profile(profile)
    lines = [f"{described['samples']} samples, {profile.num_bins} timestep bins"]
    if described["empty_bins"]:
        shown = ", ".join(str(number) for number in described["empty_bins"])
        lines.append(
            f"no sample in bins {shown} (of 0 to {profile.num_bins - 1}): sample more steps, or take fewer bins"
        )
    for stack in profile.stacks:
        streams = described["stacks"][stack.name]
        lines.append(f"{stack.name}: angular distance (in units of pi) and block influence of each layer")
        every = range(1 + 2 * len(streams))
        rows = [["layer", *(f"{name} {what}" for name in streams for what in ("angle", "influence"))]]
        for index in range(stack.num_blocks):
            cells = [
                _cell(values[what], index)
                for values in streams.values()
                for what in ("angular_distance", "block_influence")
            ]
            rows.append([str(index), *cells])
        lines.append(table(rows, indent="  ", right=every, wrap=every))
    return "\n".join(lines)


def _cell(values: list[float], index: int) -> str:
    return f"{values[index]:.4f}" if index < len(values) else "-"
