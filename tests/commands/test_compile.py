"""`surgery compile`: a folder that is whole or not there, and says how it is loaded."""

import json

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from PIL import Image

import surgery
from surgery.testing import tiny_call

SKIP = 'skip: "transformer_blocks[1]"'


def test_a_spec_becomes_a_folder_that_loads(write_spec, surgery_command, pipeline, tmp_path):
    out = tmp_path / "variant"
    result = surgery_command("compile", write_spec("spec.yaml", SKIP), "--to", "graph", "--out", out)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{out}: forward.py, plan.json, spec.yaml, surgery.json; ")
    assert lines[1].startswith(
        f"base model {pipeline}: PixArtTransformer2DModel, hashes of diffusion_pytorch_model.safe"
    )
    assert lines[2] == f'load it with surgery.load_variant("{out}")'
    loaded = surgery.load_variant(out)
    assert [name for name, _ in loaded.transformer.transformer_blocks.named_children()] == ["0", "2", "3", "4"]


def test_json_is_the_manifest(write_spec, surgery_command, tmp_path):
    arguments = ["compile", write_spec("spec.yaml", SKIP), "--to", "graph", "--out", tmp_path / "variant", "--json"]
    manifest = json.loads(surgery_command(*arguments).stdout)
    assert manifest == json.loads((tmp_path / "variant" / "surgery.json").read_text())
    assert manifest["kind"] == "graph" and set(manifest["files"]) == {"spec.yaml", "plan.json", "forward.py"}


@pytest.mark.slow
def test_a_pt2_lies_beside_and_runs_with_torch_alone(write_spec, surgery_command, pipeline, tmp_path):
    out = tmp_path / "variant"
    spec = write_spec("spec.yaml", SKIP)
    arguments = ["compile", spec, "--to", "graph", "--out", out, "--format", "pt2", "--dtype", "float32"]
    result = surgery_command(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "  hidden_states: float32 (batch, 4, 8, 8)" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == f'load it with torch.export.load("{out / "variant.pt2"}").module()'
    manifest = json.loads((out / "surgery.json").read_text())
    assert manifest["program"]["dynamic"] == ["batch", "text"] and "variant.pt2" in manifest["files"]
    model = PixArtTransformer2DModel.from_pretrained(pipeline / "transformer", dtype=torch.float32)
    variant = surgery.apply(model, spec)
    inputs = {k: v for k, v in tiny_call(variant, batch=4).items() if isinstance(v, torch.Tensor)}
    files = {"spec.yaml": ""}
    program = torch.export.load(out / "variant.pt2", extra_files=files).module()
    with torch.no_grad():
        torch.testing.assert_close(program(**inputs)[0], variant(**tiny_call(variant, batch=4)).sample)
    assert files["spec.yaml"] == spec.read_text()


def test_a_target_that_is_not_empty_is_refused_before_any_work(write_spec, surgery_command, tmp_path):
    spec, out = write_spec("spec.yaml", SKIP), tmp_path / "variant"
    out.mkdir()
    (out / "mine").write_text("mine")
    result = surgery_command("compile", spec, "--to", "graph", "--out", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{out} is not empty; give another folder, or --force to replace it\n"
    forced = surgery_command("compile", spec, "--to", "graph", "--out", out, "--force")
    assert forced.exit_code == 1 and "is not what `surgery compile` wrote there; move it away" in forced.stderr
    assert (out / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        ('skip: "transformer_blocks[9]"', [], "there is no layer 9"),
        (SKIP, ["--model", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (SKIP, ["--profile", "/nowhere.safetensors"], "the profile /nowhere.safetensors can't be read"),
        (SKIP, ["--format", "pt2", "--dtype", "int3"], "there is no dtype int3; write float32"),
    ],
)
def test_what_can_not_be_compiled_leaves_nothing_behind(
    write_spec, surgery_command, tmp_path, operation, options, message
):
    spec = write_spec("spec.yaml", operation)
    before = set(tmp_path.iterdir())
    target = [] if "--to" in options else ["--to", "graph"]
    result = surgery_command("compile", spec, "--out", tmp_path / "out" / "variant", *target, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert [path for path in set(tmp_path.iterdir()) - before if path.name != "out"] == []
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_wrong_usage_exits_with_two(surgery_command):
    assert surgery_command("compile", "spec.yaml", "--to", "paper", "--out", "x").exit_code == 2
    assert surgery_command("compile", "spec.yaml").exit_code == 2


def test_a_compiled_folder_is_drawn_like_its_spec(write_spec, surgery_command, draw, tmp_path):
    spec, out = write_spec("spec.yaml", SKIP), tmp_path / "variant"
    assert surgery_command("compile", spec, "--to", "graph", "--out", out).exit_code == 0
    documents = [
        draw(target, "--prompt", "red apple", "--out", tmp_path / f"pictures-{number}", "--no-baseline")
        for number, target in enumerate((spec, out))
    ]
    assert [document["variants"][0]["name"] for document in documents] == ["spec", "variant"]
    assert documents[0]["variants"][0]["plan"] == documents[1]["variants"][0]["plan"]
    pictures = [
        (tmp_path / f"pictures-{number}" / name / "0000.png") for number, name in enumerate(("spec", "variant"))
    ]
    assert Image.open(pictures[0]).tobytes() == Image.open(pictures[1]).tobytes()
    (out / "plan.json").write_text("{}")
    result = surgery_command("generate", out, "--prompt", "red apple", "--out", tmp_path / "no")
    assert result.exit_code == 1 and "was changed after it was compiled" in result.stderr
