"""Denoising errors are measured once: a later run, a stage with fewer rows and a longer sweep find them again."""

import json

import numpy as np
import pytest
import torch

from surgery.experiment.denoising_error import DenoisingErrors, ErrorUnit
from surgery.experiment.error_store import ErrorStore

CONDITIONAL = ("conditional",)
ROWS = {name: {"row": name} for name in ("baseline", "skip", "repeat")}


def units_of(rows, *, bins=2, seed=0, has_truth=False, branches=CONDITIONAL):
    clean = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    every = dict.fromkeys(rows, branches)
    return [ErrorUnit(n, n / bins, 0, 0, clean, [0, 1], ["a", "b"], every, has_truth) for n in range(bins)]


class Counting:
    """An engine that makes errors up, each time others, and notes which rows it was asked for."""

    def __init__(self):
        self.asked, self.generator = [], np.random.default_rng(0)

    def run(self, bench, units, tell):
        for number, unit in reversed(list(enumerate(units))):
            self.asked += [(unit.number, name) for name in unit.branches]
            made = {name: self.generator.random((2, 1)) / 3 for name in unit.branches}
            yield (
                number,
                {name: DenoisingErrors(value, value + 1 if unit.has_truth else None) for name, value in made.items()},
            )


def measure(folder, rows, *, recipe=None, **options):
    """The errors by bin and row, and what was measured for it."""
    engine = Counting()
    engine.generator = np.random.default_rng(len(list(folder.glob("*"))) if folder.is_dir() else 99)
    told = []
    store = ErrorStore(folder, recipe or {"model": "m"}, ROWS)
    units = units_of(rows, **options)
    found = dict(store.run(None, units, engine, lambda number, text: told.append(number)))
    assert sorted(found) == [0, 1] and all(set(found[n]) == set(rows) for n in found)
    return {(n, name): errors for n in found for name, errors in found[n].items()}, engine.asked, sum(told)


def same(one, other):
    return all(
        np.array_equal(one[key].to_baseline, other[key].to_baseline)
        and (one[key].to_truth is None) == (other[key].to_truth is None)
        and (one[key].to_truth is None or np.array_equal(one[key].to_truth, other[key].to_truth))
        for key in one
    )


@pytest.mark.parametrize("has_truth", [False, True])
def test_what_was_measured_is_found_again_to_the_bit_and_the_rest_is_measured(tmp_path, has_truth):
    first, asked, told = measure(tmp_path / "errors", ["baseline", "skip"], has_truth=has_truth)
    assert len(asked) == 4 and told == 0
    again, asked, told = measure(tmp_path / "errors", ["baseline", "skip"], has_truth=has_truth)
    assert same(first, again) and asked == [] and told == 2 * 2 * 2, "a resumed run is told how far it is"
    fewer, asked, _ = measure(tmp_path / "errors", ["skip"], has_truth=has_truth)
    assert same(fewer, first) and asked == []
    longer, asked, _ = measure(tmp_path / "errors", ["baseline", "skip", "repeat"], has_truth=has_truth)
    assert same(first, longer) and sorted(asked) == [(0, "repeat"), (1, "repeat")]
    _, asked, _ = measure(tmp_path / "errors", ["baseline", "skip", "repeat"], has_truth=has_truth)
    assert asked == []


@pytest.mark.parametrize(
    "other",
    [{"recipe": {"model": "another"}}, {"seed": 1}, {"has_truth": True}, {"branches": ("unconditional",)}],
    ids=["model", "latents", "truth", "branches"],
)
def test_the_errors_of_another_recipe_are_not_taken(tmp_path, other):
    measure(tmp_path, ["skip"])
    assert len(measure(tmp_path, ["skip"], **other)[1]) == 2
    assert measure(tmp_path, ["skip"])[1] == []


@pytest.mark.parametrize("damage", ["cut", "a digit", "nonsense", "shape"])
def test_a_damaged_file_is_measured_again(tmp_path, damage):
    measure(tmp_path, ["skip"])
    (path, *_) = sorted(tmp_path.glob("*.json"))
    text = path.read_text()
    document = json.loads(text)
    (key,) = document["rows"]
    if damage == "shape":
        from surgery.files import key_of_recipe

        document["rows"][key][0] = [0.5]
        text = json.dumps({"rows": document["rows"], "sha256": key_of_recipe(document["rows"])})
    number = str(document["rows"][key][0][0])
    path.write_text(
        {"cut": text[:20], "a digit": text.replace(number, "0.1234", 1), "nonsense": "[1]", "shape": text}[damage]
    )
    _, asked, _ = measure(tmp_path, ["skip"])
    assert len(asked) == 1
    assert measure(tmp_path, ["skip"])[1] == []
