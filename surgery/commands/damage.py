"""`surgery plot EVALUATION --out DIR`: the map of damage, and with `--beside` whether angular distance predicts it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from surgery.commands.output import print_json, say
from surgery.commands.profile_options import read_profile_part
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.experiment.damage_agreement import Agreement, AngleMap
    from surgery.experiment.damage_map import Array, Damage

OF_PROFILES = {"groups", "similarity", "embedding", "by_time"}
OF_BESIDE = {"stream", "part"}


@dataclass(frozen=True)
class Beside:
    """The profile that is drawn beside the damage, or its stream and part that are asked for."""

    profile: Path
    stream: str | None
    part: str | None


def is_evaluation(path: Path) -> bool:
    """Whether a path is the folder of an evaluation, or its numbers, and not a profile."""
    return path.is_dir() or path.suffix == ".json"


def plot_evaluation(
    path: Path,
    beside: Beside | None,
    out: Path,
    *,
    file_format: Literal["png", "svg"],
    themes: Sequence[Literal["light", "dark"]],
    force: bool,
    json: bool,
) -> None:
    """Draw the maps of an evaluation and say what they show; raises InputError where it has none."""
    from surgery.experiment.damage_agreement import compare_maps
    from surgery.experiment.damage_map import read_damage
    from surgery.report.plot_damage import agreement_text, damage_text, plot_damage

    damage = read_damage(find_numbers(path))
    angles = [] if beside is None else read_angles(damage, beside)
    agreements = compare_maps(damage, angles)
    written = plot_damage(
        damage, out, angles=angles, agreements=agreements, file_format=file_format, themes=themes, force=force
    )
    if json:
        print_json({"files": [str(file) for file in written], **damage_to_json(damage, agreements)})
        return
    lines = [damage_text(damage), *([agreement_text(agreements, damage.num_bins)] if agreements else [])]
    say("\n".join([*lines, *map(str, written)]))


def find_numbers(path: Path) -> Path:
    """The `evaluation.json` of a folder, or the file itself; raises InputError where a folder has none."""
    from surgery.report.evaluation_folder import NUMBERS

    if not path.is_dir():
        return path
    if not (path / NUMBERS).is_file():
        raise InputError(f"{path} has no {NUMBERS}; give a profile, or the folder of a finished `surgery evaluate`")
    return path / NUMBERS


def read_angles(damage: "Damage", beside: Beside) -> "list[AngleMap]":
    """The heat maps of the profile; raises InputError where it does not fit the evaluation."""
    from surgery.experiment.damage_agreement import angle_maps

    return angle_maps(damage, read_profile_part(beside.profile, beside.part), beside.stream)


def damage_to_json(damage: "Damage", agreements: "Sequence[Agreement]") -> dict[str, Any]:
    """Plain data: maps by timestep bin and layer, null for layers that were not measured, and the agreements."""
    maps = [
        {
            **{"stack": found.stack, "edit": found.what, "layers": found.layers},
            **{"denoising_error": _cells(found.errors), "low": _cells(found.low), "high": _cells(found.high)},
        }
        for found in damage.maps
    ]
    return {
        **{"maps": maps, "bins": damage.num_bins, "prompts": damage.num_prompts, "left_out": dict(damage.left_out)},
        "agreement": [one.to_json() for one in agreements],
    }


def _cells(cells: "Array") -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in cells.tolist()]  # noqa: PLR0124  (NaN)
