"""A model and prompts, or pictures with captions -> a profile in a file. An interrupted run goes on where it was."""

import functools
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.activations.noised import Sample, measure_noised
from surgery.activations.recorder import Recorder, Token
from surgery.activations.trajectories import measure_trajectories
from surgery.activations.unfinished import Unfinished
from surgery.anatomy.anatomy import Component
from surgery.anatomy.from_model import read_anatomy
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.captions import CaptionedPicture, read_captions
from surgery.experiment.run import Run, RunRequest, library_versions
from surgery.experiment.targets import find_alone
from surgery.files import hash_file, key_of_recipe
from surgery.metrics.open_picture import open_picture
from surgery.outputs import refuse_file, unfinished_runs
from surgery.pipelines.guidance import find_guidance, names_of_transformers
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import pick_device
from surgery.profiles.layer_profile import Profile
from surgery.profiles.profile_file import write_profile
from surgery.progress import Meter, show_progress
from surgery.spec.selector import FIRST, SECOND

SUFFIXES = (".safetensors",)
KEY_LENGTH = 32
TRAJECTORIES, NOISED = "trajectories", "noised pictures"


@dataclass(frozen=True, kw_only=True)
class ProfileRequest(RunRequest):
    """What to measure; see `surgery profile --help`. Without `pictures` the model samples from the prompts."""

    model: str
    out: Path
    prompts: tuple[str, ...] = ()
    pictures: Path | None = None
    samples: int | None = None
    bins: int = 10
    token: Token = "all"
    components: tuple[str, ...] = ()
    mean_states: bool = False
    part: str = FIRST
    force: bool = False


@dataclass(frozen=True)
class AskedSample:
    """One sample: the seed of its noise, and the prompt or the picture that it starts from."""

    seed: int
    of: str | CaptionedPicture

    @property
    def text(self) -> str:
        """The prompt, or the picture's caption."""
        return self.of if isinstance(self.of, str) else self.of.caption

    @functools.cached_property
    def name(self) -> str:
        """What tells it from others: its seed, and a hash of its text."""
        if isinstance(self.of, str):
            text = self.of
        else:
            with told_as(f"the picture {self.of.file} can't be read"):
                text = f"{self.of.caption}\n{hash_file(self.of.file)}"
        return f"{self.seed}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


Measure = Callable[
    [Recorder, Sequence[AskedSample], Callable[[], None]], None
]  # a batch, and what to call at every step


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
    request = ProfileRequest(
        model="",
        part=part,
        out=Path(),
        prompts=tuple(prompts),
        seed=seed,
        batch_size=batch_size,
        bins=bins,
        token=token,
        mean_states=mean_states,
        call=call or {},
    )
    learn_unless_known(pipe, request.call)
    recorder = make_recorder(find_transformer(pipe, part), request)
    measure, asked = _measure_prompts(pipe, request.call), list_samples(request, ())
    for batch in _batches(asked, batch_size):
        measure(recorder, batch, lambda: None)
    samples = [one.name for one in asked]
    recipe = {"mode": TRAJECTORIES, **_transformer_of(request), "token": token, "call": dict(request.call)}
    return _whole_profile(recorder, {**recipe, "samples": samples}, part)


def measure_profile(request: ProfileRequest, say: Callable[[str], None] = lambda text: None) -> Profile:  # noqa: ARG005
    """Measure and write a profile; `say` is told what a user should know before it takes its time.

    After every batch what was measured lies beside the target, under the request's key; a later run of the same request
    goes on from there, with `force` it starts afresh.

    Raises:
        InputError: the model, an option or the target is not usable, or a layer gives values that are no numbers.
        RefusedError: the model has no stack that can be measured.
    """
    refuse_file(request.out, force=request.force, suffixes=SUFFIXES)
    alone = find_alone(request.model, "to measure it")
    source = alone.source
    if source.has_second:
        other = SECOND if request.part == FIRST else FIRST
        say(f"{source.name} has two transformers: {request.part} is measured; --transformer {other} measures the other")
    elif request.part != FIRST:
        raise InputError(f"{source.name} has one transformer; leave --transformer out")
    pairs = () if request.pictures is None else read_captions(request.pictures)
    asked = list_samples(request, pairs)
    with unfinished_runs(request.out) as folder:
        refuse_file(request.out, force=request.force, suffixes=SUFFIXES)
        run = alone.open(request, [one.text for one in asked])
        learn_unless_known(run.pipe, run.call)
        profile, kept = _measure(run, request, asked, folder, say)
        write_profile(profile, request.out)
        kept.unlink(missing_ok=True)
    return profile


def _measure(
    run: Run, request: ProfileRequest, asked: Sequence[AskedSample], folder: Path, say: Callable[[str], None]
) -> tuple[Profile, Path]:
    """Measure what is asked for and not yet measured; also the file of the folder in which all that is kept."""
    pipe, call = run.pipe, run.call
    transformer = find_transformer(pipe, request.part)
    recorder = make_recorder(transformer, request)
    recorder.on_means = lambda size: say(f"the mean states of one batch take {size / 1e6:,.1f} MB")
    measure = _measure_prompts(pipe, call) if request.pictures is None else _measure_pictures(pipe, call)
    recipe = {**make_recipe(run, request), "dtype": str(transformer.dtype).removeprefix("torch.")}
    kept = _find_unfinished(folder, request, recipe, asked, say)
    done = [] if request.force else kept.resume(recorder.sums)
    if done:
        say(f"going on after {len(done)} samples of an interrupted run")
    finished = set(done)
    left = [one for one in asked if one.name not in finished]
    try:
        with show_progress(len(asked), unit="sample", label="measuring", done=len(done)) as meter:
            for batch in _batches(left, request.batch_size):
                measure(recorder, batch, _steps_noted(meter))
                done += [one.name for one in batch]
                kept.write(recorder.sums, done)
                meter.advance(len(batch))
    except KeyboardInterrupt:
        say(_kept_text(request, kept.path, len(done), len(asked)))
        raise
    return _whole_profile(recorder, {**recipe, "samples": sorted(done)}, request.part), kept.path


def find_transformer(pipe: Any, part: str) -> Any:
    """The transformer of a pipeline that has this name there; raises InputError where there is none."""
    found = getattr(pipe, part, None)
    if found is None:
        raise InputError(
            f"{type(pipe).__name__} has no {part} here; it has {' and '.join(names_of_transformers(pipe))}"
        )
    return found


def _whole_profile(recorder: Recorder, recipe: Mapping[str, Any], part: str) -> Profile:
    """What was counted; raises InputError where the transformer never ran."""
    profile = recorder.profile(recipe)
    if not profile.stacks:
        raise InputError(
            f"the pipeline never ran its {part} in these calls, so that nothing was measured; its boundary_ratio says "
            "at which timesteps it does: sample more steps, or measure the other"
        )
    return profile


def _transformer_of(request: ProfileRequest) -> dict[str, str]:
    """What a recipe says of a transformer that is not the first."""
    return {} if request.part == FIRST else {"transformer": request.part}


def _find_unfinished(
    folder: Path,
    request: ProfileRequest,
    recipe: Mapping[str, Any],
    asked: Sequence[AskedSample],
    say: Callable[[str], None],
) -> Unfinished:
    """Where the sums of a request are kept; what is kept of others is left alone, and told."""
    device = pick_device(request.device)
    samples = sorted(one.name for one in asked)
    key = key_of_recipe({**recipe, "bins": request.bins, "device": device, "samples": samples})
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


def _steps_noted(meter: Meter) -> Callable[[], None]:
    """Counts steps for the meter: a batch can take minutes."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        meter.note(f"step {steps}")

    return count


def make_recorder(model: Any, request: ProfileRequest) -> Recorder:
    """The recorder of a request.

    Raises:
        InputError: no block has a component of a name that is asked for.
    """
    anatomy = read_anatomy(model)
    wanted: Callable[[Component], bool] | None = None
    if request.components:
        known = dict.fromkeys(
            c.name for stack in anatomy.stacks for kind in stack.kinds for c in kind.components if c.outputs
        )
        unknown = [name for name in request.components if name not in known and name != "all"]
        if unknown:
            raise InputError(
                f"no block has a component {unknown[0]} whose output can be measured; there are: {', '.join(known)}"
            )
        chosen = set(request.components)
        wanted = lambda component: "all" in chosen or component.name in chosen  # noqa: E731
    return Recorder(
        model,
        anatomy,
        num_bins=request.bins,
        token=request.token,
        components=wanted,
        keep_means=request.mean_states,
    )


def list_samples(request: ProfileRequest, pairs: Sequence[CaptionedPicture]) -> list[AskedSample]:
    """All that a request asks for; pictures come round again where more are asked for than there are."""
    of: Sequence[str | CaptionedPicture] = pairs or request.prompts
    count = (request.samples or len(pairs)) if pairs else len(of)
    return [AskedSample(request.seed + number, of[number % len(of)]) for number in range(count)]


def _batches(asked: Sequence[AskedSample], size: int) -> Iterator[Sequence[AskedSample]]:
    return (asked[start : start + size] for start in range(0, len(asked), size))


def _measure_prompts(pipe: Any, call: Mapping[str, Any]) -> Measure:
    guidance = find_guidance(pipe, call)

    def measure(recorder: Recorder, batch: Sequence[AskedSample], on_step: Callable[[], None]) -> None:
        prompts, seeds = [one.text for one in batch], [one.seed for one in batch]
        measure_trajectories(pipe, recorder, guidance, prompts, seeds, call, on_step)

    return measure


def _measure_pictures(pipe: Any, call: Mapping[str, Any]) -> Measure:
    """At shares of the noise range that are drawn uniformly, each by its sample's seed."""

    def measure(recorder: Recorder, batch: Sequence[AskedSample], on_step: Callable[[], None]) -> None:
        for one in batch:
            assert isinstance(one.of, CaptionedPicture), "a request is for prompts or for pictures"
            share = random.Random(one.seed).random()
            sample = Sample(open_picture(one.of.file).image, one.of.caption, share, one.seed)
            measure_noised(pipe, recorder, sample, call, on_step)

    return measure


def make_recipe(run: Run, request: ProfileRequest) -> dict[str, Any]:
    """How a profile is made, but for its samples: profiles of the same recipe can be joined."""
    return {
        "model": run.source.name,
        "identity": run.identity(request.part),
        **_transformer_of(request),
        "mode": TRAJECTORIES if request.pictures is None else NOISED,
        "token": request.token,
        "components": list(request.components),
        "mean_states": request.mean_states,
        "call": dict(run.call),
        "versions": library_versions(),
    }
