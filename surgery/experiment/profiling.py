"""A model and prompts, or pictures with captions -> a profile in a file. An interrupted run goes on where it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from surgery.activations.recorder import Token
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.captions import CaptionedPicture, read_captions
from surgery.experiment.drawing import telling
from surgery.experiment.engine_choice import EngineChoice, open_engine
from surgery.experiment.engines import Engine, in_order
from surgery.experiment.profile_units import AskedSample, Probe, ProfileSettings, ProfileUnit, open_probe
from surgery.experiment.run import Run, RunRequest, library_versions
from surgery.experiment.targets import Alone, find_alone
from surgery.files import key_of_recipe
from surgery.outputs import refuse_file, unfinished_runs
from surgery.pipelines.pretrained import check_device
from surgery.profiles.layer_profile import Profile, join_profiles
from surgery.profiles.profile_file import write_profile
from surgery.profiles.unfinished import Unfinished
from surgery.progress import show_progress
from surgery.spec.selector import FIRST, SECOND

SUFFIXES = (".safetensors",)
KEY_LENGTH = 32
TRAJECTORIES, NOISED = "trajectories", "noised pictures"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ProfileRequest(RunRequest):
    """What to measure; see `surgery profile --help`. Without `pictures` the model samples from the prompts."""

    model: str
    out: Path
    prompts: tuple[str, ...] = ()
    pictures: Path | None = None
    samples: int | None = None
    settings: ProfileSettings = field(default_factory=ProfileSettings)
    engine: EngineChoice = field(default_factory=EngineChoice)
    force: bool = False


def profile(
    pipe: Any,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 8,
    bins: int = 10,
    token: Token = "all",
    mean_states: bool = False,
    call: Mapping[str, Any] | None = None,
    part: str = FIRST,
) -> Profile:
    """Measure the layers of a pipeline's transformer while it samples; `call` are arguments of the pipeline.

    `part` says which of two transformers (Wan 2.2): `transformer` or `transformer_2`.

    Prompt k starts from the noise of the CPU generator of `seed + k`. The profile is not written:
    `profiles.profile_file.write_profile` does that. For forwards of your own there is `activations.recorder.Recorder`.

    Raises:
        InputError: the pipeline refuses the call, or a layer gives values that are no finite numbers; or it has no such
            transformer, or never runs it in this call.
        RefusedError: the model has no stack that can be measured.
    """
    if not prompts:
        raise InputError("there is no prompt; give at least one")
    settings, call = ProfileSettings(bins, token, mean_states=mean_states, part=part), dict(call or {})
    probe = Probe(pipe, call, settings)
    asked = [AskedSample(seed + number, prompt) for number, prompt in enumerate(prompts)]
    parts = [probe.measure(batch) for batch in _batches(asked, batch_size)]
    recipe = {"mode": TRAJECTORIES, **_transformer_of(part), "token": token, "call": call}
    return _whole_profile(parts, {**recipe, "samples": [one.name for one in asked]}, part)


def measure_profile(request: ProfileRequest, say: Say = lambda text: None) -> Profile:  # noqa: ARG005
    """Measure and write a profile; `say` is told what a user should know before it takes its time.

    After every batch what was measured lies beside the target, under the request's key; a later run of the same request
    goes on from there, with `force` it starts afresh.

    Raises:
        InputError: the model, an option or the target is not usable, or a layer gives values that are no numbers.
        RefusedError: the model has no stack that can be measured.
        WorkerError: the workers of the engine can't do their work.
    """
    refuse_file(request.out, force=request.force, suffixes=SUFFIXES)
    alone = find_alone(request.model, "to measure it")
    _say_which_part(alone, request.settings.part, say)
    asked = list_samples(request, () if request.pictures is None else read_captions(request.pictures))
    device = check_device(request.device)
    with open_engine(request.engine, device) as engine, unfinished_runs(request.out) as folder:
        refuse_file(request.out, force=request.force, suffixes=SUFFIXES)
        bench = alone.open(request, [one.text for one in asked])
        recipe = make_recipe(replace(bench.run, source=alone.source), bench, request)
        kept = _find_unfinished(folder, request, {**recipe, "device": device}, asked, say)
        found = _measure(bench, engine, request, asked, kept, say)
        samples = sorted(found.recipe["samples"])
        whole = _whole_profile([found], {**recipe, "samples": samples}, request.settings.part)
        write_profile(whole, request.out)
        kept.path.unlink(missing_ok=True)
    return whole


def _say_which_part(alone: Alone, part: str, say: Say) -> None:
    """Tell of a second transformer; raises InputError where it is asked for and there is none."""
    source = alone.source
    if source.has_second:
        other = SECOND if part == FIRST else FIRST
        say(f"{source.name} has two transformers: {part} is measured; --transformer {other} measures the other")
    elif part != FIRST:
        raise InputError(f"{source.name} has one transformer; leave --transformer out")


def _measure(
    bench: Bench, engine: Engine, request: ProfileRequest, asked: Sequence[AskedSample], kept: Unfinished, say: Say
) -> Profile:
    """Measure what is asked for and not yet measured; its recipe has the samples."""
    found = None if request.force else kept.resume()
    done = [] if found is None else list(found.recipe["samples"])
    if done:
        say(f"going on after {len(done)} samples of an interrupted run")
    left = [one for one in asked if one.name not in set(done)]
    units = [ProfileUnit(request.settings, tuple(batch)) for batch in _batches(left, request.batch_size)]
    try:
        with show_progress(len(asked), unit="sample", label="measuring", done=len(done)) as meter:
            for part in in_order(engine.run(bench, units, telling(meter))):
                samples = [*done, *part.recipe["samples"]]
                found = join_profiles([part] if found is None else [found, part], {"samples": samples})
                kept.write(found)
                done = samples
    except KeyboardInterrupt:
        say(_kept_text(request, kept.path, len(done), len(asked)))
        raise
    assert found is not None, "a sample at least is asked for"
    return found


def _whole_profile(parts: Sequence[Profile], recipe: Mapping[str, Any], part: str) -> Profile:
    """What was counted; raises InputError where the transformer never ran."""
    found = join_profiles(parts, recipe)
    if not found.stacks:
        raise InputError(
            f"the pipeline never ran its {part} in these calls, so that nothing was measured; its boundary_ratio says "
            "at which timesteps it does: sample more steps, or measure the other"
        )
    return found


def _transformer_of(part: str) -> dict[str, str]:
    """What a recipe says of a transformer that is not the first."""
    return {} if part == FIRST else {"transformer": part}


def _find_unfinished(
    folder: Path, request: ProfileRequest, recipe: Mapping[str, Any], asked: Sequence[AskedSample], say: Say
) -> Unfinished:
    """Where the sums of a request are kept; what is kept of others is left alone, and told."""
    samples = sorted(one.name for one in asked)
    key = key_of_recipe({**recipe, "bins": request.settings.bins, "samples": samples})
    path = folder / f"{key[:KEY_LENGTH]}.safetensors"
    others = sorted(other for other in folder.glob("*.safetensors") if other != path)
    if others:
        say(f"{others[0]} is of another request, and is left as it is")
    return Unfinished(path, key)


def _kept_text(request: ProfileRequest, path: Path, num_done: int, num_asked: int) -> str:
    """What is said of an interrupted run."""
    if not path.exists():
        return f"stopped before a batch was measured: nothing is kept of {num_asked} samples"
    again = "give the same command without --force" if request.force else "give the same command"
    moved = f", once {request.out} is moved away" if request.force and request.out.exists() else ""
    return f"stopped: {num_done} of {num_asked} samples are kept in {path}; to go on, {again}{moved}"


def list_samples(request: ProfileRequest, pairs: Sequence[CaptionedPicture]) -> list[AskedSample]:
    """All that a request asks for; pictures come round again where more are asked for than there are.

    A picture's file has its whole path, for a process that may run in another folder.
    """
    of: Sequence[str | CaptionedPicture] = [replace(pair, file=pair.file.absolute()) for pair in pairs]
    of = of or request.prompts
    count = (request.samples or len(pairs)) if pairs else len(of)
    return [AskedSample(request.seed + number, of[number % len(of)]) for number in range(count)]


def _batches(asked: Sequence[AskedSample], size: int) -> Iterator[Sequence[AskedSample]]:
    return (asked[start : start + size] for start in range(0, len(asked), size))


def make_recipe(run: Run, bench: Bench, request: ProfileRequest) -> dict[str, Any]:
    """How a profile is made, but for its samples: profiles of the same recipe can be joined. `run` is of the model.

    Raises:
        InputError: there is nothing of what is asked for.
        RefusedError: the model has no stack that can be measured.
    """
    settings = request.settings
    return {
        "model": run.source.name,
        "identity": run.identity(settings.part),
        **_transformer_of(settings.part),
        "mode": TRAJECTORIES if request.pictures is None else NOISED,
        "token": settings.token,
        "components": list(settings.components),
        "mean_states": settings.mean_states,
        "call": dict(run.call),
        "versions": library_versions(),
        "dtype": str(open_probe(bench, settings).model.dtype).removeprefix("torch."),
    }
