"""A model and prompts, or pictures with captions -> a profile in a file. An interrupted run goes on where it was."""

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from surgery.activations.guidance import Guidance, find_guidance
from surgery.activations.noised import Sample, measure_noised
from surgery.activations.recorder import Recorder, Token
from surgery.activations.trajectories import measure_trajectories
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.identity import identify
from surgery.anatomy.parts import Component
from surgery.anatomy.pretrained import load_pretrained
from surgery.anatomy.sources import ModelSource, find_source
from surgery.demo.location import DEMO_CALL, DEMO_NAME
from surgery.errors import InputError
from surgery.evaluate.draw import check_call
from surgery.experiment.captions import CaptionedPicture, open_picture, read_captions
from surgery.experiment.variants import library_versions
from surgery.profiles.layer_profile import Profile
from surgery.profiles.profile_file import read_profile, write_profile

SECONDS_BETWEEN_SIGNS = 1.0
TRAJECTORIES, NOISED = "trajectories", "noised pictures"


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure; see `surgery profile --help`. Without `pictures` the model samples from the prompts."""

    model: str
    out: Path
    prompts: tuple[str, ...] = ()
    pictures: Path | None = None
    samples: int | None = None
    seed: int = 0
    batch_size: int = 8
    bins: int = 10
    token: Token = "all"
    components: tuple[str, ...] = ()
    mean_states: bool = False
    dtype: str = "auto"
    device: str = "auto"
    call: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False


@dataclass(frozen=True)
class Batch:
    """What is measured between two writes: the names of its samples, and how they are measured."""

    samples: tuple[str, ...]
    measure: Callable[[Recorder, Callable[[], None]], None]


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
) -> Profile:
    """Measure the layers of a pipeline's transformer while it samples; `call` are arguments of the pipeline.

    Prompt k starts from the noise of the CPU generator of `seed + k`. The profile is not written:
    `profiles.profile_file.write_profile` does that. For forwards of your own there is `activations.recorder.Recorder`.

    Raises:
        InputError: the pipeline refuses the call, or a layer gives values that are no finite numbers.
        RefusedError: the model has no stack that can be measured.
    """
    request = ProfileRequest(
        "", Path(), tuple(prompts), None, None, seed, batch_size, bins, token, mean_states=mean_states, call=call or {}
    )
    recorder = make_recorder(pipe.transformer, request)
    samples: list[str] = []
    for batch in _trajectories(pipe, request, request.call):
        batch.measure(recorder, lambda: None)
        samples += batch.samples
    return recorder.profile({"mode": TRAJECTORIES, "token": token, "call": dict(request.call), "samples": samples})


def measure_profile(request: ProfileRequest, say: Callable[[str], None] = lambda text: None) -> Profile:  # noqa: ARG005
    """Measure and write a profile; `say` is told what a user should know before it takes its time.

    After every batch what was measured lies beside the target, in a file that a later run of the same request goes on
    from.

    Raises:
        InputError: the model, an option or the target is not usable, or a layer gives values that are no numbers.
        RefusedError: the model has no stack that can be measured.
    """
    refuse_profile_target(request.out, force=request.force)
    source = find_source(request.model)
    if source.pipeline is None:
        raise InputError(f"{source.name} is a bare transformer; to measure it, give the folder of its pipeline")
    call = {**(DEMO_CALL if source.name == DEMO_NAME else {}), **request.call}
    pairs = () if request.pictures is None else read_captions(request.pictures)
    pipe = load_pretrained(source, dtype=request.dtype, device=request.device)
    pipe.set_progress_bar_config(disable=True)
    check_call(pipe, call)
    recorder = make_recorder(pipe.transformer, request)
    recorder.on_means = lambda size: say(f"the mean states of one batch take {size / 1e6:,.1f} MB")
    batches = list(_noised(pipe, pairs, request, call) if pairs else _trajectories(pipe, request, call))
    recipe = make_recipe(source, request, call)
    beside = request.out.with_name(f".{request.out.name}.unfinished")
    done = _resume(recorder, beside, recipe, say)
    with tqdm(total=sum(len(batch.samples) for batch in batches), unit="sample", desc="measuring") as bar:
        for batch in batches:
            if not set(batch.samples) <= set(done):
                batch.measure(recorder, _sign_of_life(bar))
                done += batch.samples
                write_profile(recorder.profile({**recipe, "samples": done}), beside)
            bar.update(len(batch.samples))
    profile = recorder.profile({**recipe, "samples": sorted(done)})
    write_profile(profile, request.out)
    beside.unlink(missing_ok=True)
    return profile


def _sign_of_life(bar: Any) -> Callable[[], None]:
    """Counts steps beside the progress bar, shown now and then: a batch can take minutes."""
    steps, shown = 0, time.monotonic()

    def count() -> None:
        nonlocal steps, shown
        steps += 1
        bar.set_postfix_str(f"step {steps}", refresh=False)
        if time.monotonic() - shown > SECONDS_BETWEEN_SIGNS:
            shown = time.monotonic()
            bar.refresh()

    return count


def refuse_profile_target(out: Path, *, force: bool) -> None:
    """Raise InputError where a profile can't be written, or would hurt what is there."""
    if out.suffix != ".safetensors":
        raise InputError(f"{out} must be named .safetensors")
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file")
    if out.exists() and not force:
        raise InputError(f"{out} is there already; give another file, or --force to replace it")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out} can't be written: there is no folder {out.absolute().parent}")


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


def _trajectories(pipe: Any, request: ProfileRequest, call: Mapping[str, Any]) -> Iterator[Batch]:
    guidance = find_guidance(pipe, call)
    for start in range(0, len(request.prompts), request.batch_size):
        prompts = request.prompts[start : start + request.batch_size]
        seeds = [request.seed + start + position for position in range(len(prompts))]
        names = tuple(_sample_name(seed, prompt) for seed, prompt in zip(seeds, prompts, strict=True))
        yield Batch(names, _measure_batch(pipe, guidance, prompts, seeds, call))


def _measure_batch(
    pipe: Any, guidance: Guidance, prompts: Sequence[str], seeds: Sequence[int], call: Mapping[str, Any]
) -> Callable[[Recorder, Callable[[], None]], None]:
    return lambda recorder, on_step: measure_trajectories(pipe, recorder, guidance, prompts, seeds, call, on_step)


def _noised(
    pipe: Any, pairs: Sequence[CaptionedPicture], request: ProfileRequest, call: Mapping[str, Any]
) -> Iterator[Batch]:
    """Samples at shares of the noise range drawn uniformly; pictures come round again where more are asked for."""
    count = request.samples or len(pairs)
    for start in range(0, count, request.batch_size):
        numbers = range(start, min(start + request.batch_size, count))
        chosen = [pairs[number % len(pairs)] for number in numbers]
        seeds = [request.seed + number for number in numbers]
        names = tuple(
            _sample_name(seed, f"{pair.caption}\n{_hash_of(pair.file)}")
            for seed, pair in zip(seeds, chosen, strict=True)
        )
        yield Batch(names, _measure_pictures(pipe, chosen, seeds, call))


def _measure_pictures(
    pipe: Any, pairs: Sequence[CaptionedPicture], seeds: Sequence[int], call: Mapping[str, Any]
) -> Callable[[Recorder, Callable[[], None]], None]:
    def measure(recorder: Recorder, on_step: Callable[[], None]) -> None:
        for pair, seed in zip(pairs, seeds, strict=True):
            sample = Sample(open_picture(pair.file), pair.caption, random.Random(seed).random(), seed)
            measure_noised(pipe, recorder, sample, call, on_step)

    return measure


def _hash_of(file: Path) -> str:
    with contextlib.suppress(OSError):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    raise InputError(f"the picture {file} can't be read")


def _sample_name(seed: int, text: str) -> str:
    """What tells a sample from others: its seed, and a hash of its text."""
    return f"{seed}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def make_recipe(source: ModelSource, request: ProfileRequest, call: Mapping[str, Any]) -> dict[str, Any]:
    """How a profile is made, but for its samples: profiles of the same recipe can be joined."""
    identity = identify(source)
    return {
        "model": source.name,
        "identity": {key: value for key, value in identity.to_json().items() if key != "model"},
        "mode": TRAJECTORIES if request.pictures is None else NOISED,
        "token": request.token,
        "components": list(request.components),
        "mean_states": request.mean_states,
        "dtype": request.dtype,
        "call": dict(call),
        "versions": library_versions(),
    }


def _resume(recorder: Recorder, beside: Path, recipe: Mapping[str, Any], say: Callable[[str], None]) -> list[str]:
    """Take up what an interrupted run of the same recipe left; the names of its samples."""
    if not beside.exists():
        return []
    try:
        found = read_profile(beside)
    except InputError:
        return []
    done = list(found.recipe.get("samples", []))
    if {**found.recipe, "samples": None} != {**recipe, "samples": None} or found.num_bins != recorder.sums.num_bins:
        say(f"{beside} is of another request, and is written over")
        return []
    recorder.sums.resume(found)
    say(f"going on after {len(done)} samples of an interrupted run")
    return done
