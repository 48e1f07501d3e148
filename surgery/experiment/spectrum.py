"""A model or its variants, and prompts -> spectra of sampling, beside the null, and the bands that surgery damages."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surgery.errors import InputError
from surgery.experiment.controls import BASELINE
from surgery.experiment.gallery import TargetsRequest, find_targets
from surgery.experiment.own_model import OwnModel
from surgery.experiment.own_model_fit import refuse_unfit
from surgery.experiment.rows import ModelRow, OwnModelRow, Row, Target, VariantRow, control_rows, rows_of_targets
from surgery.experiment.run import library_versions, open_run
from surgery.graph.apply import Variants
from surgery.pipelines.draw import check_call
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.shared_text import text_encoded_once
from surgery.progress import Meter, show_progress
from surgery.spec.load import Spec, load_spec
from surgery.spectra.band_damage import BandDamage
from surgery.spectra.bands import Array, Bands, read_bands, refuse_bands_above
from surgery.spectra.compare_pictures import damage_in_bands
from surgery.spectra.forward_noise import filter_noised, mean_spectrum, noise_forward, noise_of_null
from surgery.spectra.latent_pictures import Decoding, find_decoding
from surgery.spectra.power import power_spectrum
from surgery.spectra.prediction import NoiseLevel
from surgery.spectra.sampling import Sampled, sample_batch
from surgery.spectra.trajectory import LATENTS, PICTURES, PREDICTED, Trajectories, ViewCurves

END = NoiseLevel(1.0, 0.0)
Drawn = ModelRow | VariantRow | OwnModelRow


@dataclass(frozen=True, kw_only=True)
class SpectrumRequest(TargetsRequest):
    """What to analyse; see `surgery spectrum --help`. `bands` is the text of its option."""

    prompts: tuple[str, ...]
    out: Path
    profile: Path | None = None
    force: bool = False
    bands: str | None = None
    pictures: bool = True


@dataclass(frozen=True)
class Spectra:
    """The trajectories of the model as it is, and what surgery did to the pictures, by row and view."""

    trajectories: Trajectories
    damages: Mapping[str, Mapping[str, BandDamage]]
    kinds: Mapping[str, str]
    prompts: tuple[str, ...]
    class_name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """How a pipeline is sampled."""

    pipe: Any
    prompts: tuple[str, ...]
    seed: int
    batch_size: int
    call: Mapping[str, Any]
    bands: str | None
    pictures: bool

    def batches(self) -> list[range]:
        """The numbers of the prompts of each batch."""
        count, size = len(self.prompts), self.batch_size
        return [range(start, min(start + size, count)) for start in range(0, count, size)]


def spectrum(
    pipe: Any,
    prompts: Sequence[str],
    *,
    specs: Sequence[str | Path | Spec] = (),
    bands: str | None = None,
    pictures: bool = True,
    seed: int = 0,
    batch_size: int = 8,
    call: Mapping[str, Any] | None = None,
    profile: str | Path | None = None,
) -> Spectra:
    """Analyse how power in bands of frequency comes about while a pipeline samples, as `surgery spectrum` does.

    `bands` is a number of octaves ("4"), or upper edges in cycles per picture ("2,4,8,16"); without `pictures` the
    latents alone are looked at. `specs` say which variants' pictures are compared with the pipeline's, band by band;
    `profile` holds their means, and `call` are arguments of the pipeline's call. Nothing is written.

    Raises:
        InputError: there is no prompt, bands do not fit, or the pipeline refuses the call, or samples no pictures.
        SpecError: a spec has faults.
        RefusedError: a spec can't be done on the model, or how its latents are laid out or decoded is not known.
    """
    if not prompts:
        raise InputError("there is no prompt; give at least one, and two or more for intervals")
    asked = Asked(pipe, tuple(prompts), seed, batch_size, dict(call or {}), bands, pictures)
    check_call(pipe, asked.call)
    loaded = [spec if isinstance(spec, Spec) else load_spec(spec) for spec in specs]
    learn_unless_known(pipe, asked.call)
    rows = list_rows(loaded, pipe, seed, None if profile is None else Path(profile))
    return measure_spectra(asked, rows, {})


def run_spectrum(request: SpectrumRequest) -> Spectra:
    """Open the model of a request and analyse it; raises as `spectrum`, and where the model can't be opened."""
    targets, source = find_targets(request)
    run = open_run(source, request, request.prompts)
    for target in targets:
        if isinstance(target, OwnModel):
            refuse_unfit(target, run)
    learn_unless_known(run.pipe, run.call)
    rows = list_rows(targets, run.pipe, request.seed, request.profile)
    asked = Asked(
        run.pipe, request.prompts, request.seed, request.batch_size, run.call, request.bands, request.pictures
    )
    return measure_spectra(asked, rows, {"model": source.name, "identity": run.identity()})


def list_rows(targets: Sequence[Target], pipe: Any, seed: int, profile: Path | None) -> list[Drawn]:
    """A row a variant or model of its own, and two controls: nothing changed, and the baseline from other noise; none
    without targets.
    """
    if not targets:
        return []
    variants = Variants(pipe)
    rows: list[Row] = rows_of_targets(variants, targets, seed, profile=profile, taken=[BASELINE])
    return [row for row in (*rows, *control_rows(variants, seed, (1, 1))) if isinstance(row, Drawn)]


def measure_spectra(asked: Asked, rows: Sequence[Drawn], named: Mapping[str, Any]) -> Spectra:
    """Sample the model, its null and its variants, and measure all of them."""
    total = len(asked.prompts) * (2 + len(rows))
    texts: dict[str, Any] = {}
    with ExitStack() as stack:
        meter = stack.enter_context(show_progress(total, unit="picture", label="sampling"))
        stack.enter_context(text_encoded_once([asked.pipe], texts))
        watched = _Watched(asked, meter)
        for numbers in asked.batches():
            watched.sample(numbers)
        trajectories = watched.finish()
        damages = {row.name: _damage_of(row, watched, texts) for row in rows}
    recipe = {
        **named,
        "call": dict(asked.call),
        "seed": asked.seed,
        "batch_size": asked.batch_size,
        "dtype": str(asked.pipe.transformer.dtype).removeprefix("torch."),
        "versions": library_versions(),
    }
    kinds = {row.name: row.kind for row in rows}
    return Spectra(trajectories, damages, kinds, asked.prompts, type(asked.pipe.transformer).__name__, recipe)


class _Watched:
    """The baseline's trajectories, batch by batch; what is large is measured at once and let go."""

    def __init__(self, asked: Asked, meter: Meter) -> None:
        self.asked, self.meter = asked, meter
        self.bands: Bands | None = None
        self.decoding: Decoding | None = None
        self.levels: list[NoiseLevel] = []
        self.shares: list[float] = []
        self.latents: list[torch.Tensor] = []
        self.pictures: list[torch.Tensor] = []
        self.own, self.null = _Measured(), _Measured()

    def sample(self, numbers: range) -> None:
        """Sample and measure one batch."""
        found = self._sampled(self.asked.pipe, numbers, self.asked.seed, with_steps=True)
        if self.bands is None:
            self._begin(found)
        if [step.share for step in found.steps] != self.shares:
            raise InputError("the batches were not sampled at the same timesteps, so that they can't be averaged")
        self.latents.append(found.latents)
        self.pictures += [] if found.pictures is None else [found.pictures]
        for view, tensors in self._views(
            [step.state for step in found.steps], [step.predicted for step in found.steps], found
        ).items():
            self.own.add(view, tensors, self.known_bands)
        self.meter.advance(len(numbers))

    @property
    def known_bands(self) -> Bands:
        """The bands, which the size of the first pictures decides."""
        assert self.bands is not None, "something was sampled"
        return self.bands

    def _begin(self, found: Sampled) -> None:
        """What the first batch says of all: bands, timesteps, and how latents are decoded."""
        grid = found.latents if found.pictures is None else found.pictures
        self.bands = read_bands(self.asked.bands, min(grid.shape[-2:]) / 2)
        refuse_bands_above(self.bands, min(found.latents.shape[-2:]))
        if found.pictures is not None:
            self.decoding = find_decoding(self.asked.pipe, found.latents, found.pictures)
        self.shares = [step.share for step in found.steps]
        self.levels = [step.level for step in found.steps]

    def _sampled(self, pipe: Any, numbers: range, seed: int, *, with_steps: bool) -> Sampled:
        return sample_batch(
            pipe,
            [self.asked.prompts[number] for number in numbers],
            [seed + number for number in numbers],
            self.asked.call,
            with_steps=with_steps,
            with_pictures=self.asked.pictures,
        )

    def _views(
        self, states: Sequence[torch.Tensor], predicted: Sequence[torch.Tensor], end: Sampled
    ) -> dict[str, list[torch.Tensor]]:
        """Each view at each time, the end last."""
        views = {LATENTS: [*states, end.latents], PREDICTED: [*predicted, end.latents]}
        if self.decoding is not None and end.pictures is not None:
            views[PICTURES] = [*(self.decoding.pictures(each) for each in predicted), end.pictures]
        return views

    def finish(self) -> Trajectories:
        """Noise what was drawn forward, measure that, and put both together."""
        spectrum_of_all = mean_spectrum(torch.cat(self.latents))
        for place, numbers in enumerate(self.asked.batches()):
            latents = self.latents[place]
            noise = noise_of_null(latents.shape[1:], [self.asked.seed + number for number in numbers])
            states = [noise_forward(latents, noise, level) for level in self.levels]
            predicted = [
                filter_noised(state, spectrum_of_all, level) for state, level in zip(states, self.levels, strict=True)
            ]
            end = Sampled((), latents, self.pictures[place] if self.pictures else None)
            for view, tensors in self._views(states, predicted, end).items():
                self.null.add(view, tensors, self.known_bands)
            self.meter.advance(len(numbers))
        views = tuple(self._curves(view) for view in self.own.power)
        return Trajectories(self.known_bands, np.array([*self.shares, 0.0]), views)

    def _curves(self, view: str) -> ViewCurves:
        grid = self.pictures[0] if view == PICTURES else self.latents[0]
        own, null = self.own, self.null
        return ViewCurves(
            view, int(min(grid.shape[-2:])), own.joined(view), null.joined(view), own.mean(view), null.mean(view)
        )

    def damage(self, pipe: Any, seed: int) -> dict[str, BandDamage]:
        """What another pipeline, or other noise, makes of the same prompts, against what was drawn."""
        found = []
        for numbers in self.asked.batches():
            found.append(self._sampled(pipe, numbers, seed, with_steps=False))
            self.meter.advance(len(numbers))
        bands = self.known_bands
        latents = torch.cat([each.latents for each in found])
        damages = {LATENTS: damage_in_bands(latents, torch.cat(self.latents), bands)}
        pictures = [each.pictures for each in found if each.pictures is not None]
        if pictures:
            damages[PICTURES] = damage_in_bands(torch.cat(pictures), torch.cat(self.pictures), bands)
        return damages


class _Measured:
    """Power in bands and rings by view, batch by batch."""

    def __init__(self) -> None:
        self.power: dict[str, list[Array]] = {}
        self.rings: dict[str, list[Array]] = {}

    def add(self, view: str, tensors: Sequence[torch.Tensor], bands: Bands) -> None:
        """Measure one batch at all times."""
        spectra = [power_spectrum(each, bands) for each in tensors]
        self.power.setdefault(view, []).append(np.stack([each.power for each in spectra], axis=1))
        self.rings.setdefault(view, []).append(np.stack([each.rings for each in spectra], axis=1))

    def joined(self, view: str) -> Array:
        """Power (N, T, 2 + B)."""
        return np.concatenate(self.power[view])

    def mean(self, view: str) -> Array:
        """Rings (T, R), a mean over prompts."""
        found: Array = np.concatenate(self.rings[view]).mean(axis=0)
        return found


def _damage_of(row: Drawn, watched: _Watched, texts: dict[str, Any]) -> dict[str, BandDamage]:
    watched.meter.note(row.name)
    with text_encoded_once([row.pipe], texts):
        found = watched.damage(row.pipe, row.seed)
    row.let_go()
    return found
