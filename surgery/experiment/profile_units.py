"""Samples of a model -> a profile of them: by batches, each of which is a unit of work whose sums add up to the whole.

Sums of floats hang on their order, so that every batch is counted from nothing, and joined to those before it.
"""

import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgery.activations.noised import Sample, measure_noised
from surgery.activations.recorder import Recorder, Token
from surgery.activations.trajectories import measure_trajectories
from surgery.anatomy.anatomy import Component
from surgery.anatomy.from_model import read_anatomy
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.captions import CaptionedPicture
from surgery.experiment.controls import BASELINE
from surgery.experiment.engines import Tell
from surgery.experiment.rows import ModelRow, OwnModelRow
from surgery.files import hash_file
from surgery.metrics.open_picture import open_picture
from surgery.pipelines.guidance import Guidance, find_guidance, names_of_transformers
from surgery.pipelines.learn import learn_unless_known
from surgery.profiles.layer_profile import Profile
from surgery.progress import say_stage
from surgery.spec.nearest import shorten
from surgery.spec.selector import FIRST


@dataclass(frozen=True)
class ProfileSettings:
    """What is measured of a model, and in which transformer of its pipeline."""

    bins: int = 10
    token: Token = "all"
    components: tuple[str, ...] = ()
    mean_states: bool = False
    part: str = FIRST


@dataclass(frozen=True)
class AskedSample:
    """One sample: the seed of its noise, and the prompt or the picture that it starts from."""

    seed: int
    of: str | CaptionedPicture

    @property
    def text(self) -> str:
        """The prompt, or the picture's caption."""
        return self.of if isinstance(self.of, str) else self.of.caption

    @property
    def share(self) -> float:
        """Where in the noise range a picture is noised, 0 clean, 1 pure noise: uniform, by the sample's seed."""
        return random.Random(self.seed).random()

    @functools.cached_property
    def name(self) -> str:
        """What tells it from others: its seed, and a hash of its text."""
        if isinstance(self.of, str):
            text = self.of
        else:
            with told_as(f"the picture {self.of.file} can't be read"):
                text = f"{self.of.caption}\n{hash_file(self.of.file)}"
        return f"{self.seed}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Probe:
    """A pipeline, called in one way, with a recorder on one of its transformers.

    Raises:
        InputError: it has no such transformer, or no block has a component of a name that is asked for.
        RefusedError: the transformer has no stack that can be measured.
    """

    def __init__(self, pipe: Any, call: Mapping[str, Any], settings: ProfileSettings) -> None:
        learn_unless_known(pipe, call)
        self.pipe, self.call = pipe, call
        self.model = find_transformer(pipe, settings.part)
        self.recorder = make_recorder(self.model, settings)
        self.recorder.on_means = lambda size: say_stage(f"the mean states of one batch take {size / 1e6:,.1f} MB")

    @functools.cached_property
    def guidance(self) -> Guidance:
        """How the pipeline lays out the branches of classifier-free guidance, which takes a call to find out."""
        return find_guidance(self.pipe, self.call)

    def measure(self, samples: Sequence[AskedSample], on_step: Callable[[], None] = lambda: None) -> Profile:
        """The profile of a batch: of prompts sampled together, of pictures one by one.

        Raises:
            InputError: the pipeline refuses the call, or a layer gives values that are no finite numbers.
            RefusedError: the pipeline's pictures are no latents that can be noised.
        """
        self.recorder.restart()
        prompts = [one.of for one in samples if isinstance(one.of, str)]
        if prompts:
            seeds = [one.seed for one in samples]
            measure_trajectories(self.pipe, self.recorder, self.guidance, prompts, seeds, self.call, on_step)
        for one in samples:
            if isinstance(one.of, CaptionedPicture):
                sample = Sample(open_picture(one.of.file).image, one.text, one.share, one.seed)
                measure_noised(self.pipe, self.recorder, sample, self.call, on_step)
        return self.recorder.profile({"samples": [one.name for one in samples]})


@dataclass(frozen=True)
class ProfileUnit:
    """A batch of samples of the one model of a bench."""

    settings: ProfileSettings
    samples: tuple[AskedSample, ...]

    @property
    def label(self) -> str:
        """What people call it."""
        return f"the batch that begins with {shorten(self.samples[0].text)}"

    @property
    def size(self) -> int:
        """How many samples it measures."""
        return len(self.samples)

    def run(self, bench: Bench, tell: Tell) -> Profile:
        """Their profile; each step is a sign of life: a batch can take minutes."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1
            tell(0, f"step {steps}")

        profile = open_probe(bench, self.settings).measure(self.samples, count)
        tell(self.size, "")
        return profile


def open_probe(bench: Bench, settings: ProfileSettings) -> Probe:
    """The probe of a bench's one model, which is opened once; raises as `Probe`."""
    if settings not in bench.kept:
        row = bench.row(BASELINE)
        assert isinstance(row, (ModelRow, OwnModelRow)), "a profile is of a model"
        bench.kept[settings] = Probe(row.pipe, bench.run.call, settings)
    probe: Probe = bench.kept[settings]
    return probe


def find_transformer(pipe: Any, part: str) -> Any:
    """The transformer of a pipeline that has this name there; raises InputError where there is none."""
    found = getattr(pipe, part, None)
    if found is None:
        raise InputError(
            f"{type(pipe).__name__} has no {part} here; it has {' and '.join(names_of_transformers(pipe))}"
        )
    return found


def make_recorder(model: Any, settings: ProfileSettings) -> Recorder:
    """A recorder of what is asked for.

    Raises:
        InputError: no block has a component of a name that is asked for.
        RefusedError: the model has no stack that can be measured.
    """
    anatomy = read_anatomy(model)
    wanted: Callable[[Component], bool] | None = None
    if settings.components:
        known = dict.fromkeys(
            c.name for stack in anatomy.stacks for kind in stack.kinds for c in kind.components if c.outputs
        )
        unknown = [name for name in settings.components if name not in known and name != "all"]
        if unknown:
            raise InputError(
                f"no block has a component {unknown[0]} whose output can be measured; there are: {', '.join(known)}"
            )
        chosen = set(settings.components)
        wanted = lambda component: "all" in chosen or component.name in chosen  # noqa: E731
    return Recorder(
        model,
        anatomy,
        num_bins=settings.bins,
        token=settings.token,
        components=wanted,
        keep_means=settings.mean_states,
    )
