"""The comparison of conditionings: what ships loads, and the page says what the data say."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from surgery.dit import ClassDiTPipeline

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks" / "conditionings"
MODULES = ("answer", "cut", "digit_judge", "models", "page", "shipped", "tables")
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def parts():
    """The modules of the script by their names, which nothing else finds."""
    sys.path.insert(0, str(HERE))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(HERE))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def found():
    """The figures of the page."""
    return json.loads((ROOT / "benchmarks" / "data" / "conditionings.json").read_text())


def test_the_tables_of_the_page_are_those_of_the_data(parts, found):
    text = parts["page"].PAGE.read_text(encoding="utf-8")
    assert parts["page"].filled(text, parts["tables"].all_tables(found)) == text
    assert text.count("<!-- end -->") == len(parts["tables"].all_tables(found))


@pytest.mark.parametrize("config", ["in_context", "cross_attention", "adaln_zero", "freq_gate"])
def test_what_ships_is_the_first_seed_in_half_precision_and_draws(parts, found, config):
    folder = parts["shipped"].SHIPPED / config
    pipe = ClassDiTPipeline.from_pretrained(folder)
    model = next(one for one in found["models"] if (one["config"], one["seed"]) == (config, 0))
    assert pipe.transformer.config.conditioning == config
    assert pipe.transformer.num_parameters() == model["parameters"]
    assert json.loads((folder / "training.json").read_text())["validation"]["loss"] == model["loss"]
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 2.1 * model["parameters"] < 2.5 * MEGABYTE
    (picture,) = pipe([3], generator=torch.Generator().manual_seed(0), num_inference_steps=2).images
    assert picture.size == (8, 8) and len(picture.convert("L").getcolors()) > 3


def test_the_judge_that_ships_tells_digits_apart(parts):
    from sklearn.datasets import load_digits

    digits = load_digits()
    judge = parts["digit_judge"].load_classifier(parts["shipped"].SHIPPED / parts["shipped"].WEIGHTS)
    features = judge(torch.from_numpy(digits.images).float()[:, None] / 16)
    right = (judge.logits(features).argmax(1) == torch.from_numpy(digits.target)).float().mean()
    assert features.shape == (1797, 32) and right > 0.97


def model_of(config, seed, losses):
    """A model that loses so much, as errors, by its skips."""
    baseline = {"kind": "baseline", "name": "baseline", "error": {"value": 0.0}}
    rows = [{"kind": "variant", "cut": "skips", "error": {"value": value}} for value in losses]
    return {"config": config, "seed": seed, "rows": [baseline, *rows]}


def test_the_verdict_is_over_seeds_in_pairs(parts):
    """b loses 0.1 more than a in every seed, which pairs see in spite of seeds that differ by more; c is all over."""
    models = [
        model_of(config, seed, [seed + more[seed], seed + more[seed]])
        for config, more in (("b", (0.1, 0.101, 0.1)), ("a", (0, 0, 0)), ("c", (0.9, -0.5, 0.1)))
        for seed in (2, 0, 1)
    ]
    verdict = parts["answer"].judge_cut(models, ("c", "b", "a"), "skips", "error")
    assert list(verdict.losses) == ["a", "b", "c"] and verdict.tied == ("c",)
    assert verdict.losses["a"].value == pytest.approx(1) and verdict.behind["b"].value == pytest.approx(
        0.1003, abs=1e-4
    )
