"""A folder with two transformers is inspected, checked, compiled and drawn with both."""

import json

import pytest
import torch
from two_transformers import draw, wan_pipeline

import surgery
from surgery.errors import InputError

SPEC = """surgery: v1
model: {model}
operations:
  - skip: "*/blocks[1]"
  - skip: transformer_2/blocks[0]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a saved pipeline."""
    folder = tmp_path_factory.mktemp("models") / "wan"
    wan_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def spec(tmp_path, model):
    """A spec that edits both."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(model=model))
    return path


def test_both_are_inspected(model, surgery_command):
    assert surgery_command("inspect", model, "--names").stdout.splitlines()[0] == "blocks[0:4]"
    assert "transformer_2/blocks[0:3]" in surgery_command("inspect", model, "--names").stdout.splitlines()
    shown = surgery_command("inspect", model).stdout
    assert "transformer/: WanTransformer3DModel" in shown and "transformer_2/: WanTransformer3DModel" in shown
    document = json.loads(surgery_command("inspect", model, "--json").stdout)
    assert [len(each["stacks"][0]["kind_of"]) for each in (document, document["transformer_2"])] == [4, 3]
    assert surgery.inspect(model, part="transformer_2").stacks[0].num_blocks == 3


def test_both_are_checked_with_what_each_saves(spec, surgery_command):
    shown = surgery_command("check", spec).stdout
    assert "transformer:\n" in shown and "transformer_2:\n" in shown and "both: saves " in shown
    document = json.loads(surgery_command("check", spec, "--json").stdout)
    assert document["plan"]["transformers"]["transformer_2"]["schedules"][0]["removed"] == [0, 1]
    first, second = (document["transformers"][part]["cost"]["block_executions"] for part in document["transformers"])
    verdicts = [each["backends"]["checkpoint"]["answer"] for each in document["transformers"].values()]
    assert verdicts == ["no", "no"], "compile says so, too"
    assert (first, second) == ({"before": 4, "after": 3}, {"before": 3, "after": 1})


def test_a_graph_carries_both(spec, model, tmp_path, surgery_command):
    out = tmp_path / "graph"
    result = surgery_command("compile", spec, "--to", "graph", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in out.iterdir()} >= {"forward.py", "forward_2.py", "plan.json", "surgery.json"}
    loaded = surgery.load_variant(out)
    assert torch.equal(draw(loaded), draw(surgery.apply(wan_pipeline(), spec)))
    weights = model / "transformer_2" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(InputError, match="its transformer_2 is another one: its weights are others"):
            surgery.load_variant(out)
    finally:
        weights.write_bytes(kept)


def test_what_is_of_one_transformer_says_so(spec, tmp_path, surgery_command):
    result = surgery_command("compile", spec, "--to", "graph", "--format", "pt2", "--out", tmp_path / "program")
    assert result.exit_code == 1 and "is of one transformer, and the spec edits two" in result.stderr
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "pruned")
    assert result.exit_code == 1 and "not yet: this is done to one transformer" in result.stderr
    assert not (tmp_path / "pruned").exists()
    result = surgery_command("diff", spec, spec)
    assert result.exit_code == 1 and f"{spec}:5:11: not yet: " in result.stderr
