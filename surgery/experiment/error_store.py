"""Denoising errors by what they depend on: measured once, kept by a hash of their recipe, found again by a later run.

A file is of one unit of work (a timestep bin and a batch of prompts), and holds the errors of each row under the hash
of the row's recipe: a stage that measures fewer rows, or a sweep that has become longer, measures what is not there.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.denoising_error import DenoisingErrors, ErrorUnit
from surgery.experiment.engines import Engine, Tell
from surgery.files import is_file, key_of_recipe, write_whole
from surgery.finite import from_finite, to_finite

KEY_LENGTH = 32
Found = dict[str, DenoisingErrors]


@dataclass(frozen=True)
class ErrorStore:
    """A folder with a file for each unit. `recipe` is that of the run, `rows` are the recipes of the rows by name."""

    folder: Path
    recipe: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]

    def run(self, bench: Bench, units: Sequence[ErrorUnit], engine: Engine, tell: Tell) -> Iterator[tuple[int, Found]]:
        """The number of each unit and its errors by row, once each: what is kept, and what an engine measures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [self._read(unit) for unit in units]
        missing: dict[int, ErrorUnit] = {}
        for number, (unit, found) in enumerate(zip(units, kept, strict=True)):
            tell(len(found) * len(unit.prompts), "")
            left = {name: branches for name, branches in unit.branches.items() if name not in found}
            if left:
                missing[number] = replace(unit, branches=left)
            else:
                yield number, found
        numbers = list(missing)
        for index, measured in engine.run(bench, list(missing.values()), tell):
            number = numbers[index]
            found = {**kept[number], **measured}
            self._keep(units[number], found)
            yield number, found

    def _read(self, unit: ErrorUnit) -> Found:
        """The errors of its rows that are there; what can't be read is not."""
        with contextlib.suppress(InputError), told_as("it is measured again"):
            rows = _read_rows(self._place(unit))
            known = {name: rows[key] for name in unit.branches if (key := self._key(unit, name)) in rows}
            return {name: _errors_of(data, unit) for name, data in known.items()}
        return {}

    def _keep(self, unit: ErrorUnit, found: Found) -> None:
        """Write the errors of its rows beside those that other rows have there."""
        place, others = self._place(unit), dict[str, Any]()
        with contextlib.suppress(InputError), told_as("it is written anew"):
            others = _read_rows(place)
        rows = {**others, **{self._key(unit, name): _plain(errors) for name, errors in found.items()}}
        document = {"rows": rows, "sha256": key_of_recipe(rows)}
        write_whole(place, json.dumps(to_finite(document), allow_nan=False) + "\n")

    def _place(self, unit: ErrorUnit) -> Path:
        """The file of a unit."""
        clean = hashlib.sha256(unit.clean.detach().cpu().double().numpy().tobytes()).hexdigest()
        own = {
            "bin": unit.number,
            "share": unit.share,
            "step": unit.step,
            "clean": clean,
            "seeds": list(unit.seeds),
            "prompts": list(unit.prompts),
        }
        return self.folder / f"{key_of_recipe({**self.recipe, **own})[:KEY_LENGTH]}.json"

    def _key(self, unit: ErrorUnit, name: str) -> str:
        """That of a row."""
        return key_of_recipe({**self.rows[name], "branches": list(unit.branches[name]), "truth": unit.has_truth})


def _read_rows(path: Path) -> dict[str, Any]:
    """The errors of a file by the keys of rows, none where there is none; ValueError where it is damaged."""
    if not is_file(path):
        return {}
    document = from_finite(json.loads(path.read_text(encoding="utf-8")))
    if document["sha256"] != key_of_recipe(document["rows"]):
        raise ValueError("it is not as it was written")
    return dict(document["rows"])


def _plain(errors: DenoisingErrors) -> list[list[float] | None]:
    return [None if part is None else part[:, 0].tolist() for part in (errors.to_baseline, errors.to_truth)]


def _errors_of(data: Any, unit: ErrorUnit) -> DenoisingErrors:
    """What `_plain` has written; ValueError where it is not that."""
    to_baseline, to_truth = (None if part is None else np.array(part, dtype=np.float64)[:, None] for part in data)
    shapes = [part.shape for part in (to_baseline, to_truth) if part is not None]
    if to_baseline is None or (to_truth is None) == unit.has_truth or set(shapes) != {(len(unit.prompts), 1)}:
        raise ValueError("these are not its errors")
    return DenoisingErrors(to_baseline, to_truth)
