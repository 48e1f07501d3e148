"""A folder with two transformers is inspected, checked, compiled and drawn with both."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from two_transformers import draw, wan_pipeline

import surgery
from surgery.errors import InputError
from surgery.plan.paired import model_plan_from_json

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
    assert verdicts == ["yes", "yes"]
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


def unmapped(pipe):
    """The pipeline with weights of its own: where they lie in a file decides which kernel runs, and so the last bit."""
    for model in (pipe.transformer, pipe.transformer_2):
        for value in model.parameters():
            value.data = value.data.clone()
    return pipe


@pytest.fixture(scope="module")
def pruned(model, tmp_path_factory):
    """The folder of the spec's checkpoint."""
    folder = tmp_path_factory.mktemp("pruned")
    (folder / "spec.yaml").write_text(SPEC.format(model=model))
    return surgery.compile_checkpoint(folder / "spec.yaml", folder / "wan-pruned", verify="full")


def test_stock_diffusers_loads_a_checkpoint_of_both_that_draws_as_the_graph_to_the_bit(pruned, model):
    loaded = unmapped(DiffusionPipeline.from_pretrained(pruned))
    assert [len(each.blocks) for each in (loaded.transformer, loaded.transformer_2)] == [3, 1]
    assert loaded.config.boundary_ratio == 0.7
    assert torch.equal(draw(loaded), draw(surgery.apply(wan_pipeline(), pruned.parent / "spec.yaml")))
    index = "model_index.json"
    assert json.loads((pruned / index).read_text()) == json.loads((model / index).read_text())


def test_a_checkpoint_of_both_tells_of_both(pruned):
    manifest = json.loads((pruned / "surgery.json").read_text())
    plan = model_plan_from_json(json.loads((pruned / "plan.json").read_text()))
    assert manifest["plan"] == plan.hash == surgery.check(pruned.parent / "spec.yaml").hash
    second = manifest["transformer_2"]
    assert [each["config_changes"] for each in (manifest, second)] == [{"num_layers": 3}, {"num_layers": 1}]
    assert [each["checks"]["full"]["difference"] < 1e-6 for each in (manifest, second)] == [True, True]
    assert [each["checks"]["structure"]["num_tensors"] for each in (manifest, second)] == [96, 42]
    assert manifest["base_2"]["weights"] != manifest["base"]["weights"]
    for part in ("transformer", "transformer_2"):
        with safe_open(pruned / part / "diffusion_pytorch_model.safetensors", "pt") as file:
            recipe = json.loads(file.metadata()["surgery"])
        assert (recipe["transformer"], recipe["plan_hash"]) == (part, plan.hash)
    card = (pruned / "README.md").read_text()
    assert "a `transformer` with 3 of its 4 layers and a `transformer_2` with 1 of its 3 layers" in card
    assert "`transformer_2`: `blocks` (3 layers): removed layers 0 and 1" in card


def test_a_checkpoint_of_both_is_pruned_again(pruned, tmp_path):
    (tmp_path / "spec.yaml").write_text(f"surgery: v1\nmodel: {pruned}\noperations: [skip: 'transformer/blocks[0]']\n")
    again = surgery.compile_checkpoint(tmp_path / "spec.yaml", tmp_path / "again", verify="structure")
    first, second = (folder / "transformer_2/diffusion_pytorch_model.safetensors" for folder in (pruned, again))
    assert first.read_bytes() == second.read_bytes(), "the other is taken along"
    assert json.loads((again / "transformer/config.json").read_text())["num_layers"] == 2


def test_what_a_checkpoint_of_both_refuses_is_said_of_the_one(model, tmp_path, surgery_command):
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"surgery: v1\nmodel: {model}\noperations: [parallel: 'transformer_2/blocks[0:2]']\n")
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.startswith("transformer_2: no stock checkpoint can express")
    assert not (tmp_path / "out").exists()


def test_what_is_of_one_transformer_says_so(spec, tmp_path, surgery_command):
    result = surgery_command("compile", spec, "--to", "graph", "--format", "pt2", "--out", tmp_path / "program")
    assert result.exit_code == 1 and "is of one transformer, and the spec edits two" in result.stderr
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "one", "--transformer-only")
    assert (
        result.exit_code == 1 and "--transformer-only leaves one transformer, and the spec edits two" in result.stderr
    )
    assert not (tmp_path / "one").exists()
    result = surgery_command("diff", spec, spec)
    assert result.exit_code == 1 and f"{spec}:5:11: not yet: " in result.stderr
