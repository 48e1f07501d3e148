"""A variant is pickled, and copied, with its plan and its weights: what comes out of it runs the same."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from family_pipelines import draw_family, family_pipeline

import surgery
from surgery.graph.variant import is_variant
from surgery.spec.load import read_spec

ROOT = Path(surgery.__file__).parents[1]
SKIP = '  - {skip: "transformer_blocks[1]"WHEN}\n'
REPLACE = '  - {replace: {component: "transformer_blocks[2].attn1", with: zero}WHEN}\n'
WHEN = ', when: {steps: "0:2", branch: conditional}'


def through_torch(value):
    """Saved by torch and loaded again."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "torch": through_torch, "copy": copy.deepcopy}


@pytest.mark.parametrize("when", ["", WHEN])
@pytest.mark.parametrize("way", WAYS)
def test_a_pipeline_that_is_pickled_or_copied_draws_the_same(way, when):
    pipe, call = family_pipeline("sana")
    text = "surgery: v1\noperations:\n" + (SKIP + REPLACE).replace("WHEN", when)
    variant = surgery.apply(pipe, read_spec(text))
    expected = draw_family(variant, call)
    again = WAYS[way](variant)
    assert is_variant(again.transformer) and type(again.transformer) is type(variant.transformer)
    assert torch.equal(draw_family(again, call), expected)
    with torch.no_grad():
        for value in again.transformer.parameters():
            value.zero_()
    assert torch.equal(draw_family(variant, call), expected), "its weights are its own"


def test_a_pickled_transformer_is_a_variant_in_another_process(tmp_path):
    """Nothing of the process that pickled it is needed: the graphs are traced anew."""
    pipe, _ = family_pipeline("sana")
    variant = surgery.apply(pipe.transformer, read_spec("surgery: v1\noperations:\n" + SKIP.replace("WHEN", "")))
    given = {
        "hidden_states": torch.ones(1, 4, 2, 2),
        "encoder_hidden_states": torch.ones(1, 5, 8),
        "timestep": torch.tensor([500.0]),
    }
    with torch.no_grad():
        expected = variant(**given).sample
    torch.save({"model": variant, "given": given, "expected": expected}, tmp_path / "variant.pt")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch; found = torch.load('variant.pt', weights_only=False)\n"
        "with torch.no_grad(): same = torch.equal(found['model'](**found['given']).sample, found['expected'])\n"
        "print(same, len(found['model'].transformer_blocks))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "3"]
