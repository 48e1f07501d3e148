"""Spectra of sampling -> a folder: numbers as JSON, all arrays as safetensors, figures; and a text for people."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from surgery.metrics.intervals import Interval
from surgery.outputs import added_files, refuse_in_the_way
from surgery.report.band_damage_figures import draw_band_damage
from surgery.report.plot_profile import Format, render
from surgery.report.spectrum_figures import draw_bands, draw_rings, draw_settled
from surgery.report.themes import THEMES, Theme, ThemeName
from surgery.spectra.band_damage import BandDamage, lean
from surgery.spectra.bands import Array
from surgery.spectra.trajectory import VIEWS, Trajectories, ViewCurves, intervals_of, settling_times
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.experiment.spectrum import Spectra, SpectrumRequest

COMMAND = "spectrum"
NUMBERS, ARRAYS = "spectrum.json", "spectrum.safetensors"
KINDS = ("bands", "spectra", "settled", "damage")
KEY = "surgery"  # of the JSON in the header of the safetensors file


def spectrum_into(
    request: "SpectrumRequest", *, file_format: Format = "png", themes: Sequence[ThemeName] = ("light",)
) -> "tuple[Spectra, list[Path]]":
    """Run an analysis and write all of it into its folder, which is there whole or not at all; the files for people.

    Raises:
        InputError: the folder is not empty, and there is no `force`; or as `run_spectrum`.
    """
    from surgery.experiment.spectrum import run_spectrum

    with added_files(request.out, COMMAND, force=request.force) as folder:
        names = [NUMBERS, ARRAYS, *(_file_name(kind, theme, file_format) for kind in KINDS for theme in themes)]
        refuse_in_the_way(request.out, names, COMMAND)
        spectra = run_spectrum(request)
        written = write_spectra(spectra, folder, file_format=file_format, themes=themes)
    return spectra, [request.out / name for name in written]


def write_spectra(
    spectra: "Spectra", folder: Path, *, file_format: Format = "png", themes: Sequence[ThemeName] = ("light",)
) -> list[str]:
    """Write numbers, arrays and figures into a folder; the names of the figures."""
    from safetensors.numpy import save_file

    document = spectra_to_json(spectra)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    header = {name: document[name] for name in ("bands", "views", "prompts", "rows", "recipe")}
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays_of(spectra)}
    save_file(arrays, folder / ARRAYS, metadata={KEY: json.dumps(header, ensure_ascii=False)})
    names = []
    for theme in (THEMES[name] for name in themes):
        for kind, figure in draw_spectra(spectra, theme):
            names.append(_file_name(kind, theme.name, file_format))
            (folder / names[-1]).write_bytes(render(figure, file_format))
    return names


def _file_name(kind: str, theme: ThemeName, file_format: Format) -> str:
    return f"{kind}{'' if theme == 'light' else f'_{theme}'}.{file_format}"


def draw_spectra(spectra: "Spectra", theme: Theme) -> Iterator[tuple[str, Figure]]:
    """All figures, by kind."""
    found, name = spectra.trajectories, spectra.class_name
    yield "bands", draw_bands(found, name, theme)
    yield "spectra", draw_rings(found, name, theme)
    yield "settled", draw_settled(settling_times(found), found, name, theme)
    if spectra.damages:
        yield "damage", draw_band_damage(spectra.damages, found.bands.names, name, theme)


def arrays_of(spectra: "Spectra") -> Iterator[tuple[str, Array]]:
    """Every array that was measured, by its name in the file."""
    yield "shares", spectra.trajectories.shares
    for view in spectra.trajectories.views:
        for name in ("power", "null", "rings", "null_rings"):
            yield f"{view.name}/{name}", getattr(view, name)
    for row, by_view in spectra.damages.items():
        for view_name, damage in by_view.items():
            yield f"damage/{row}/{view_name}/difference", damage.difference
            yield f"damage/{row}/{view_name}/change", damage.change


def spectra_to_json(spectra: "Spectra") -> dict[str, Any]:
    """Plain data: everything that is reported, with its intervals."""
    found = spectra.trajectories
    return {
        "model": spectra.class_name,
        "bands": {"names": found.bands.names, "edges": list(found.bands.edges), "unit": "cycles per picture"},
        "num_prompts": found.num_prompts,
        "shares": found.shares.tolist(),
        "views": {view.name: _view_to_json(view, found) for view in found.views},
        "settled": [
            {"view": one.view, "band": one.band}
            | {name: getattr(one, name).to_json() for name in ("model", "null", "difference")}
            for one in settling_times(found)
        ],
        "rows": [
            {"name": name, "kind": spectra.kinds[name]}
            | {view: _damage_to_json(damage, found.bands.names) for view, damage in by_view.items()}
            for name, by_view in spectra.damages.items()
        ],
        "prompts": list(spectra.prompts),
        "recipe": dict(spectra.recipe),
    }


def _view_to_json(view: ViewCurves, found: Trajectories) -> dict[str, Any]:
    mean, low, high = intervals_of(view.differences())
    return {
        "title": VIEWS[view.name],
        "nyquist": view.side / 2,
        "bands": found.bands.names[: view.num_bands],
        "beyond_nyquist": found.bands.names[view.num_bands :],
        "power": view.power[:, :, 1:-1].mean(axis=0).tolist(),
        "null": view.null[:, :, 1:-1].mean(axis=0).tolist(),
        "log2_model_over_null": {"mean": mean.tolist(), "low": _plain(low), "high": _plain(high)},
    }


def _damage_to_json(damage: BandDamage, names: Sequence[str]) -> dict[str, Any]:
    leaning = lean(damage)
    document: dict[str, Any] = {
        name: {"mean": mean.tolist(), "low": _plain(low), "high": _plain(high)}
        for name, (mean, low, high) in (
            ("difference", intervals_of(damage.difference)),
            ("log2_change_of_power", intervals_of(damage.change)),
        )
    }
    document["bands"] = list(names[: damage.difference.shape[1]])
    return document | {"detail_minus_layout": None if leaning is None else leaning.to_json()}


def _plain(values: Array) -> Any:
    """Nested lists, None for what is no number."""
    return np.where(np.isnan(values), None, values).tolist()  # type: ignore[call-overload]


def spectrum_text(spectra: "Spectra") -> str:
    """What people are told: when bands settle, the model beside the null, and what each row does to bands."""
    found = spectra.trajectories
    rows = [["", "cycles", "the model", "the null", "model - null"]]
    seen = ""
    for one in settling_times(found):
        name, seen = ("" if one.view == seen else VIEWS[one.view]), one.view
        rows.append([name, one.band, *map(interval_text, (one.model, one.null, one.difference))])
    lines = [
        "When each band has settled within 5% of its end (timestep: 1 noise, 0 clean):",
        table(rows, wrap={0}),
        "the null: the model's own last latents noised forward, seen through a linear filter that knows their mean "
        "spectrum alone",
        _departure_text(found),
        *_notes(found),
    ]
    if spectra.damages:
        lines += ["", *_damage_lines(spectra)]
    return "\n".join(lines)


def _departure_text(found: Trajectories) -> str:
    """Where the power of the noisy latents is furthest from that of the null, in each band."""
    view = found.views[0]
    mean, low, high = intervals_of(view.differences())
    parts = []
    for number, name in enumerate(found.bands.names[: view.num_bands]):
        time = int(np.abs(mean[:, number]).argmax())
        cell = _cell(*(ends[time, number] for ends in (mean, low, high)))
        parts.append(f"{cell} at {found.shares[time]:.2f} in {name}")
    return f"{VIEWS[view.name]}, log2 of the model's power over the null's where furthest: {'; '.join(parts)}"


def _damage_lines(spectra: "Spectra") -> Iterator[str]:
    """A table of the last view, the pictures where there are some."""
    view = list(next(iter(spectra.damages.values())))[-1]
    names = spectra.trajectories.bands.names
    num = next(iter(spectra.damages.values()))[view].difference.shape[1]
    rows = [["", *names[:num], "detail - layout"]]
    for name, by_view in spectra.damages.items():
        mean, low, high = intervals_of(by_view[view].difference)
        leaning = lean(by_view[view])
        cells = [_cell(*cell, digits=3) for cell in zip(mean, low, high, strict=True)]
        rows.append([name, *cells, "" if leaning is None else interval_text(leaning)])
    yield f"What surgery does to each band of the {view} (0: as the baseline, 1: unrelated to it):"
    yield table(rows, wrap={0})
    yield "no-op: nothing is changed; reseeded: the baseline from other noise, which says what is chance"


def _notes(found: Trajectories) -> Iterator[str]:
    num = found.num_prompts
    yield f"N = {num}, +- is half of the 95% interval" if num > 1 else "N = 1: give two prompts or more for intervals"
    for view in found.views[:1]:
        beyond = found.bands.names[view.num_bands :]
        if beyond:
            yield (
                f"latents of side {view.side} have {view.side / 2:g} cycles at most: {', '.join(beyond)} are of "
                "decoded pictures alone"
            )


def interval_text(found: Interval) -> str:
    """`0.62+-0.04`."""
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return _cell(found.value, found.low, found.high)


def _cell(value: float, low: float, high: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isnan(low) else f"{value:.{digits}f}+-{(high - low) / 2:.{digits}f}"
