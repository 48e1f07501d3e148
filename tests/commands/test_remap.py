"""`surgery remap`: a file that is whole or not there, what fell away, and what is no adapter of the model."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from surgery.checkpoint import write
from surgery.outputs import unfinished_runs

OPERATION = 'skip: "transformer_blocks[1, 3]"'


def adapter_tensors(prefix="transformer.", layers=5):
    return {
        f"{prefix}transformer_blocks.{layer}.attn1.to_q.lora_{side}.weight": torch.full(shape, float(layer))
        for layer in range(layers)
        for side, shape in (("A", (2, 16)), ("B", (16, 2)))
    } | {"text_encoder.encoder.block.0.q.lora_A.weight": torch.ones(2, 12)}


@pytest.fixture
def lora(tmp_path):
    file = tmp_path / "lora.safetensors"
    save_file(adapter_tensors(), file, metadata={"format": "pt", "mine": "mine"})
    return file


@pytest.fixture
def remap(surgery_command, write_spec, tmp_path, lora):
    """Runs the command on a file with a spec of one operation; the result, and the file that it wrote or did not."""

    def run(*options, file=lora, operation=OPERATION, out=tmp_path / "out.safetensors", model=None):
        spec = write_spec("spec.yaml", operation, **({} if model is None else {"model": model}))
        return surgery_command("remap", file, "--spec", spec, "--out", out, *options), out

    return run


def test_what_fell_away_is_listed(remap, lora):
    result, out = remap()
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{out}: 7 tensors, 864 bytes, from 11 of {lora}",
        "  1 of no module of the transformer are kept as they are: text_encoder.encoder.block.0.q.lora_A.weight",
        "4 tensors fell away:",
        "  transformer_blocks[1, 3]  4 tensors  the layer does not run",
    ]
    after = load_file(out)
    assert [float(after[f"transformer.transformer_blocks.{n}.attn1.to_q.lora_A.weight"][0, 0]) for n in range(3)] == [
        0,
        2,
        4,
    ]


def test_what_is_shared_names_no_folder_of_this_machine(remap, pipeline):
    """As of a pruned model: the recipe in the file has the last part of every path."""
    _, out = remap(model=pipeline)
    with safe_open(out, "np") as file:
        recipe = file.metadata()["surgery"]
    assert f"model: {Path(pipeline).name}" in json.loads(recipe)["spec"]
    assert str(Path(pipeline).parent) not in recipe


def test_json_names_every_module_and_tensor(remap, lora):
    result, out = remap("--json")
    document = json.loads(result.stdout)
    assert document["out"] == str(out) and document["adapter"] == lora.name
    assert document["tensors"] == {"before": 11, "after": 7, "fallen": 4, "not_of_the_model": 1}
    assert document["modules"]["transformer_blocks.2.attn1.to_q"] == ["transformer_blocks.1.attn1.to_q"]
    assert document["modules"]["transformer_blocks.1.attn1.to_q"] == []
    first = document["fallen"][0]
    assert (first["module"], first["position"]) == ("transformer_blocks[1].attn1.to_q", None)
    assert first["reason"] == "the layer does not run" and len(first["tensors"]) == 2
    assert document["not_of_the_model"] == ["text_encoder.encoder.block.0.q.lora_A.weight"]


def test_nothing_falls_away_where_all_layers_run(remap, lora):
    result, out = remap(operation=None)
    assert result.stdout.splitlines()[-1] == "nothing fell away"
    before, after = load_file(lora), load_file(out)
    assert set(before) == set(after) and all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_folded_is_named(remap):
    operation = 'replace: {component: "transformer_blocks[0:2].attn1", with: zero}'
    parts = {"lora_A.weight": torch.ones(2, 16), "lora_B.weight": torch.ones(16, 2)}
    folded = {
        f"transformer_blocks.{n}.attn1.to_out.0.{part}": value.clone()
        for n in range(3)
        for part, value in parts.items()
    }
    file = remap()[1].with_name("folded.safetensors")
    save_file(folded, file)
    result, _ = remap("--force", file=file, operation=operation)
    assert result.stdout.splitlines()[-1] == (
        "  transformer_blocks[0:2].attn1.to_out.0  4 tensors  its output is constant now"
    )


def test_an_existing_file_is_replaced_by_force_alone(remap, lora):
    _, out = remap()
    first = out.read_bytes()
    result, _ = remap(operation='skip: "transformer_blocks[0]"')
    assert (result.exit_code, result.stderr) == (
        1,
        f"{out} is there already; give another file, or --force to replace it\n",
    )
    assert out.read_bytes() == first
    assert remap("--force", operation='skip: "transformer_blocks[0]"')[0].exit_code == 0
    assert out.read_bytes() != first


def pickled(path):
    path.write_bytes(pickle.dumps({"transformer_blocks.0.attn1.to_q.lora_A.weight": [1.0] * 9}))
    return path


def zipped(path):
    torch.save(adapter_tensors(), path)
    return path


def empty(path):
    path.write_bytes(b"")
    return path


def without_tensors(path):
    save_file({}, path)
    return path


def of_flux(path):
    names = ["single_transformer_blocks.0.proj_out", "transformer_blocks.0.attn.add_q_proj"]
    save_file({f"transformer.{name}.lora_A.weight": torch.ones(2, 16) for name in names}, path)
    return path


def of_a_unet(path):
    save_file({"lora_unet_down_blocks_0_attentions_0_proj_in.alpha": torch.ones(())}, path)
    return path


def of_a_larger_model(path):
    save_file(adapter_tensors(layers=28), path)
    return path


def of_a_text_encoder(path):
    save_file({"lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(())}, path)
    return path


def whole_weights(path):
    save_file({"transformer_blocks.0.attn1.to_q.weight": torch.ones(16, 16)}, path)
    return path


def of_layers_that_are_gone(path):
    save_file({n: t for n, t in adapter_tensors().items() if "blocks.1." in n}, path)
    return path


def cut_off(path):
    save_file(adapter_tensors(), path)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def with_broken_metadata(path):
    save_file(adapter_tensors(), path, metadata={"lora_adapter_metadata": "{"})
    return path


HOSTILE = {
    pickled: "is no sound safetensors file: it is a pickle, which is never loaded",
    zipped: "is no sound safetensors file: it is a PyTorch pickle (zip), which is never loaded",
    empty: "is no sound safetensors file: it has 0 bytes",
    without_tensors: "it names no module of a PixArtTransformer2DModel: it has no tensor at all; expected are names "
    "like transformer.transformer_blocks.0.attn1.to_q.lora_A.weight, lora_transformer_transformer_blocks_0",
    of_flux: "transformer.single_transformer_blocks.0.proj_out.lora_A.weight is of a layer that a PixArtTransf",
    of_a_unet: "lora_unet_down_blocks_0_attentions_0_proj_in.alpha is of a layer that a PixArtTransf",
    of_a_larger_model: "attn1.to_q.lora_A.weight is of layer 10, and the transformer_blocks of this PixArt",
    of_a_text_encoder: "it names no module of a PixArtTransformer2DModel: it has lora_te1_text_model_encoder",
    whole_weights: "it holds 1 tensors of a PixArtTransformer2DModel as they are, and no adapter; a model is pruned by",
    of_layers_that_are_gone: "nothing would be left of it: transformer_blocks[1].attn1.to_q: the layer does not run",
    cut_off: "is the file cut off?",
    with_broken_metadata: "its lora_adapter_metadata is no JSON",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_is_no_adapter_of_the_model_is_refused_and_leaves_nothing(remap, tmp_path, make):
    file = make(tmp_path / "given.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    result, _ = remap(file=file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert HOSTILE[make] in result.stderr and str(file) in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "spec.yaml"])


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("lora.bin", "out.safetensors", "is a pickle, which is never loaded here; save the adapter as safetensors"),
        ("", "out.safetensors", "is a folder; name one of its files: lora.safetensors"),
        ("gone.safetensors", "out.safetensors", "can't be read: No such file or directory"),
        ("lora.safetensors", "out.bin", "must be named .safetensors"),
        ("lora.safetensors", "lora.safetensors", "is the adapter itself; give another file"),
        ("lora.safetensors", "spec.yaml/out.safetensors", "spec.yaml is no folder that can be written to"),
        ("lora.safetensors", "folder.safetensors", "is a folder; give a file"),
    ],
)
def test_files_that_can_not_be_read_or_written_are_refused(remap, tmp_path, lora, name, out, message):
    zipped(tmp_path / "lora.bin")
    (tmp_path / "spec.yaml").touch()
    (tmp_path / "folder.safetensors").mkdir()
    content = lora.read_bytes()
    result, _ = remap("--force", file=tmp_path / name, out=tmp_path / out)
    assert (result.exit_code, result.stdout) == (1, "") and message in result.stderr
    assert lora.read_bytes() == content


def test_a_full_disk_leaves_the_old_file_and_nothing_else(remap, tmp_path, monkeypatch):
    _, out = remap()
    before = out.read_bytes(), sorted(path.name for path in tmp_path.iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write, "copy_range", full)
    result, _ = remap("--force")
    assert (result.exit_code, result.stderr) == (
        1,
        f"the disk of {out} is full; nothing was left there: make room, or write to another disk\n",
    )
    assert (out.read_bytes(), sorted(path.name for path in tmp_path.iterdir())) == before


def test_a_plan_that_no_checkpoint_can_express_is_refused(remap):
    result, out = remap(operation='parallel: "transformer_blocks[1:3]"')
    assert result.exit_code == 1 and not out.exists()
    assert result.stderr.startswith("no stock checkpoint can express this plan:\n")


@pytest.mark.slow
def test_a_process_of_its_own_keeps_torch_out(write_spec, lora, tmp_path, pipeline):
    spec, out = write_spec("spec.yaml", OPERATION), tmp_path / "out.safetensors"
    code = (
        f"import sys; sys.argv = ['surgery', 'remap', {str(lora)!r}, '--spec', {str(spec)!r}, '--out', {str(out)!r}]\n"
        "from surgery.commands.main import main\n"
        "try:\n    main()\nexcept SystemExit as error:\n    assert not error.code, error.code\n"
        "assert 'torch' not in sys.modules"
    )
    PixArtTransformer2DModel.from_pretrained(pipeline / "transformer")  # the model is sound
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(load_file(out)) == 7


def test_of_two_runs_into_one_file_one_is_refused(remap, tmp_path):
    second = tmp_path / "second.safetensors"
    with unfinished_runs(second):
        result, out = remap(out=second)
    assert (result.exit_code, out.exists()) == (1, False)
    assert result.stderr == f"another run is writing {out}; wait for it, or give another folder\n"


def test_modules_that_the_class_lacks_are_refused(remap, tmp_path):
    """As of a LoRA for image-to-video on the text-to-video model, in diffusers' names."""
    file = tmp_path / "other.safetensors"
    names = [f"transformer.transformer_blocks.{n}.attn1.add_{kind}_proj" for n in range(2) for kind in "kv"]
    lacking = {f"{name}.lora_A.weight": torch.ones(2, 16) for name in names}
    save_file(adapter_tensors() | lacking, file)
    result, out = remap(file=file)
    assert result.exit_code == 1 and not out.exists()
    assert " ".join(result.stderr.split()) == (
        f"{file}: this PixArtTransformer2DModel has 5 of its modules, and not {', '.join(names[:3])} and 1 more; was "
        "it made for another model? Give that one's spec and --model"
    )


def test_modules_of_unknown_names_alone_are_listed(remap, tmp_path):
    """They may be the authors' names of modules that the model has."""
    file = tmp_path / "authors.safetensors"
    save_file({f"blocks.{n}.cross_attn.k_img.lora_A.weight": torch.ones(2, 16) for n in range(5)}, file)
    result, out = remap("--json", file=file)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["unknown_modules"] == sorted(load_file(file))
    assert sorted(load_file(out)) == [f"blocks.{n}.cross_attn.k_img.lora_A.weight" for n in range(3)]
    result, _ = remap("--force", file=file)
    assert "5 go by their layers alone: the class has no modules of these names" in result.stdout
