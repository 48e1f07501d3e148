"""`surgery compile --to checkpoint`: a model that stock diffusers loads, or a message and nothing."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DiffusionPipeline, PixArtTransformer2DModel, SD3Transformer2DModel
from original_layouts import save_original
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import surgery
from surgery.profiles.means import write_means
from surgery.testing import build_tiny_model, tiny_call

SKIP = 'skip: "transformer_blocks[1]"'
OTHER_BACKEND = "the graph backend runs it: surgery compile SPEC --to graph"


@pytest.fixture
def compile_to(surgery_command, tmp_path):
    """Compiles a spec to a checkpoint in a folder of its own; returns the result and the folder.

    Only the structure is verified unless `verify` says more: the rest takes seconds.
    """

    def run(spec, *options, out=tmp_path / "pruned", verify="structure"):
        arguments = ("compile", spec, "--to", "checkpoint", "--out", out, "--verify", verify, *options)
        return surgery_command(*arguments), out

    return run


@pytest.fixture
def original(tmp_path):
    """A tiny SD3 as a single file in its authors' layout, with its config beside it."""
    folder = tmp_path / "original"
    folder.mkdir()
    save_original(build_tiny_model("sd3"), folder / "sd3.safetensors", prefix="model.diffusion_model.")
    return folder / "sd3.safetensors"


def lines_of(result):
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_a_pipeline_becomes_a_pruned_pipeline(write_spec, compile_to, pipeline):
    spec = write_spec("spec.yaml", SKIP)
    result, out = compile_to(spec)
    lines = lines_of(result)
    assert lines[0].startswith(f"{out}: holds a PixArtTransformer2DModel, ")
    assert lines[-1] == f'pipe = DiffusionPipeline.from_pretrained("{out}", dtype=torch.float16)'
    pipe = DiffusionPipeline.from_pretrained(out)
    assert len(pipe.transformer.transformer_blocks) == 4
    variant = surgery.apply(DiffusionPipeline.from_pretrained(pipeline).transformer, spec)
    with torch.no_grad():
        assert torch.equal(pipe.transformer(**tiny_call(pipe.transformer)).sample, variant(**tiny_call(variant)).sample)
    assert sorted(path.name for path in out.parent.iterdir() if path.name.startswith(".")) == []


def test_the_recipe_is_in_the_files_and_beside_them(write_spec, compile_to, pipeline):
    spec = write_spec("spec.yaml", SKIP)
    _, out = compile_to(spec)
    manifest = json.loads((out / "surgery.json").read_text())
    text = spec.read_text().replace(str(pipeline), "tiny")  # no path of this machine is published
    assert (out / "spec.yaml").read_text() == text
    assert json.loads((out / "plan.json").read_text())["hash"] == manifest["plan"]
    with safe_open(out / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["surgery"])
        assert file.metadata()["format"] == "pt"
    assert (recipe["spec"], recipe["plan_hash"]) == (text, manifest["plan"])
    assert recipe["base"] == manifest["base"] and recipe["base"]["weights"].keys() == {
        "diffusion_pytorch_model.safetensors"
    }
    assert set(manifest["versions"]) == {"surgery", "torch", "diffusers"}
    assert all((out / name).stat().st_size == size for name, size in manifest["files"].items())


def test_json_is_one_document(write_spec, compile_to):
    result, out = compile_to(write_spec("spec.yaml", SKIP), "--json", verify="numeric")
    document = json.loads(result.stdout)
    assert document["kind"] == "checkpoint" and document["out"] == str(out)
    assert document["config_changes"] == {"num_layers": 4}
    assert document["checks"]["numeric"]["difference"] == 0.0
    assert set(document["seconds"]) == {"discover", "copy", "verify"}
    assert all(name.startswith("transformer_blocks.1.") for name in document["dropped"])


def test_a_dry_run_says_the_same_and_writes_nothing(write_spec, compile_to):
    spec = write_spec("spec.yaml", 'repeat: {layers: "transformer_blocks[1:3]", times: 2}')
    result, out = compile_to(spec, "--dry-run")
    lines = lines_of(result)
    assert lines[0].startswith(f"{out}: would hold a PixArtTransformer2DModel, ")
    assert [line.split()[0] for line in lines[1:5]] == ["copied", "changed", "dropped", "repeats"]
    assert "  config      num_layers: 7" in lines
    assert not out.exists()
    written, _ = compile_to(spec)
    assert lines_of(written)[1:5] == lines[1:5]


def test_a_pruned_model_is_pruned_again(write_spec, compile_to, tmp_path):
    _, once = compile_to(write_spec("spec.yaml", SKIP))
    result, twice = compile_to(write_spec("again.yaml", SKIP, model=once), out=tmp_path / "twice")
    assert result.exit_code == 0, result.stderr
    assert len(DiffusionPipeline.from_pretrained(twice).transformer.transformer_blocks) == 3
    with safe_open(twice / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["surgery_of_base"])["plan_hash"]


def test_transformer_only_leaves_the_rest_behind(write_spec, compile_to):
    result, out = compile_to(write_spec("spec.yaml", SKIP), "--transformer-only", "--max-shard-size", "20KB")
    loading = f'transformer = PixArtTransformer2DModel.from_pretrained("{out}", dtype=torch.float16)'
    assert lines_of(result)[-1] == loading
    assert not (out / "vae").exists() and (out / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert len(PixArtTransformer2DModel.from_pretrained(out).transformer_blocks) == 4


def test_shards_are_named_and_listed_as_diffusers_does(write_spec, compile_to, tmp_path):
    _, out = compile_to(write_spec("spec.yaml"), "--transformer-only", "--max-shard-size", "30KB")
    model = PixArtTransformer2DModel.from_pretrained(out, torch_dtype=torch.float16)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="30KB")
    ours, theirs = (
        json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
        for folder in (out, tmp_path / "theirs")
    )
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    assert ours["metadata"] == theirs["metadata"]
    assert {name.rpartition("-of-")[0][:-5] for name in ours["weight_map"].values()} == {"diffusion_pytorch_model-"}
    sizes = [(out / name).stat().st_size for name in set(ours["weight_map"].values())]
    assert abs(len(sizes) - len(set(theirs["weight_map"].values()))) <= 1


def test_verify_full_runs_the_written_files(write_spec, compile_to):
    result, out = compile_to(write_spec("spec.yaml", SKIP), "--json", verify="full")
    checks = json.loads(result.stdout)["checks"]
    assert checks["full"]["difference"] == 0.0 and checks["full"]["model"] == "the whole model in float16"
    assert "numeric" not in checks and "the whole model in float16" in (out / "README.md").read_text()


def test_verify_full_loads_the_files_of_a_variant(write_spec, compile_to, tmp_path):
    """The folder has no other files than those: neither the original nor what was written loads without its name."""
    build_tiny_model("pixart").half().save_pretrained(tmp_path / "model", variant="fp16")
    spec = write_spec("spec.yaml", SKIP, model=tmp_path / "model")
    result, out = compile_to(spec, "--variant", "fp16", "--json", verify="full")
    assert json.loads(result.stdout)["checks"]["full"]["difference"] == 0.0
    assert [path.name for path in out.glob("*.safetensors")] == ["diffusion_pytorch_model.fp16.safetensors"]


def test_scaled_weights_are_told_of(write_spec, compile_to, tmp_path):
    """What diffusers does not read goes along with its block, is counted, and is said to be ignored."""
    folder = tmp_path / "scaled"
    build_tiny_model("pixart").half().save_pretrained(folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    factors = {f"transformer_blocks.{n}.attn1.to_q.scale_weight": torch.ones(1) for n in range(5)}
    save_file({**load_file(file), **factors}, file, metadata={"format": "pt"})
    result, out = compile_to(write_spec("spec.yaml", SKIP, model=folder))
    notes = [line.removeprefix("  note: ") for line in lines_of(result) if line.startswith("  note: ")]
    assert notes[0].startswith("4 tensors that PixArtTransformer2DModel does not have went along with their blocks: ")
    assert notes[1].startswith(
        "the weights are stored scaled (transformer_blocks.0.attn1.to_q.scale_weight): diffusers "
    )
    assert all(note in (out / "README.md").read_text() for note in notes)


def test_an_original_that_gives_no_numbers_is_named(write_spec, surgery_command, tmp_path):
    model = build_tiny_model("pixart").half()
    with torch.no_grad():
        model.transformer_blocks[2].attn1.to_q.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    spec = write_spec("spec.yaml", SKIP, model=tmp_path / "broken")
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "out", "--verify", "full")
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "transformer_blocks.2.attn1.to_q.weight holds NaN or infinity; mend that, or give --verify" in result.stderr


def test_verify_structure_says_what_was_not_checked(write_spec, compile_to):
    result, _ = compile_to(write_spec("spec.yaml", SKIP))
    assert "  not run: that the forward does not go by the blocks' numbers was not checked" in lines_of(result)


def test_means_become_biases(write_spec, compile_to, pipeline, tmp_path):
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3)).double().numpy()
    write_means({"transformer_blocks.2.attn1": {"hidden_states": vector}}, tmp_path / "means.safetensors")
    spec = write_spec("spec.yaml", 'replace: {component: "transformer_blocks[2].attn1", with: mean}')
    result, out = compile_to(spec, "--profile", tmp_path / "means.safetensors", verify="full")
    assert "changed" in lines_of(result)[2]
    with safe_open(out / "transformer" / "diffusion_pytorch_model.safetensors", "np") as file:
        bias = file.get_tensor("transformer_blocks.2.attn1.to_out.0.bias")
        assert (bias == vector.astype(bias.dtype)).all()
        assert not file.get_tensor("transformer_blocks.2.attn1.to_out.0.weight").any()


def test_a_single_file_stays_one_in_its_layout(write_spec, compile_to, original):
    result, out = compile_to(write_spec("last.yaml", 'skip: "transformer_blocks[4]"', model=original), verify="full")
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "config", "plan.json", "sd3-last.safetensors", "spec.yaml", "surgery.json")
    ]
    with safe_open(out / "sd3-last.safetensors", "pt") as file:
        names = set(file.keys())
    assert "model.diffusion_model.joint_blocks.3.x_block.attn.qkv.weight" in names
    assert not any(".joint_blocks.4." in name or ".joint_blocks.3.context_block.mlp." in name for name in names)
    loaded = SD3Transformer2DModel.from_single_file(str(out / "sd3-last.safetensors"), config=str(out / "config"))
    assert len(loaded.transformer_blocks) == 4
    assert lines_of(result)[-1] == (
        f'transformer = SD3Transformer2DModel.from_single_file("{out}/sd3-last.safetensors", config="{out}/config")'
    )


def test_a_single_file_without_its_config_says_where_to_put_it(write_spec, compile_to, original):
    shutil.rmtree(original.parent / "config")
    result, out = compile_to(write_spec("spec.yaml", SKIP, model=original))
    assert result.exit_code == 1 and not out.exists()
    assert "put the transformer's config.json into a folder named config beside it" in result.stderr


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        (
            'parallel: {layers: "transformer_blocks[1:3]"}',
            [],
            "no stock checkpoint can express this plan:\n  transformer_blocks[1:3] run in parallel, and a stock class "
            f"runs its blocks one after the other\n{OTHER_BACKEND}\n",
        ),
        (
            'scale: {layers: "transformer_blocks[1]", by: 0.5}',
            [],
            "the weights of PixArtTransformer2DModel can't carry this plan:\n  transformer_blocks[1] scaled by 0.5: "
            f"one of its branches feeds another, so no factor on weights scales their sum\n{OTHER_BACKEND}\n",
        ),
        (
            'replace: {component: "transformer_blocks[1].ff", with: channel_mean}',
            [],
            "no stock checkpoint can express this plan:\n  no weights turn ff into the mean of its input over "
            f"channels\n{OTHER_BACKEND}\n",
        ),
        (SKIP, ["--max-shard-size", "huge"], "'huge' is no size of a shard; write one like 10GB, 500MB or 2GiB\n"),
        (SKIP, ["--format", "pt2"], "--format is for --to graph, and this is --to checkpoint; leave it out\n"),
        (SKIP, ["--dtype", "float32"], "--dtype is for --to graph, and this is --to checkpoint; leave it out\n"),
    ],
    ids=["parallel", "scale", "channel-mean", "shard-size", "format", "dtype"],
)
def test_what_can_not_be_written_is_said_and_nothing_is_left(write_spec, compile_to, operation, options, message):
    result, out = compile_to(write_spec("spec.yaml", operation), *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)
    assert not out.exists() and not list(out.parent.glob(".*"))


def test_an_option_of_a_checkpoint_is_refused_for_a_graph(write_spec, surgery_command, tmp_path):
    spec = write_spec("spec.yaml", SKIP)
    result = surgery_command("compile", spec, "--to", "graph", "--out", tmp_path / "out", "--dry-run")
    assert (result.exit_code, result.stderr) == (
        1,
        "--dry-run is for --to checkpoint, and this is --to graph; leave it out\n",
    )


def test_a_variant_is_asked_for_by_name_and_keeps_it(write_spec, compile_to, pipeline, tmp_path):
    folder = tmp_path / "model"
    model = PixArtTransformer2DModel.from_pretrained(pipeline / "transformer")
    model.half().save_pretrained(folder, variant="fp16", max_shard_size="10KB")
    spec = write_spec("spec.yaml", SKIP, model=folder)
    result, out = compile_to(spec)
    assert result.exit_code == 1 and "a variant is asked for by name, as --variant fp16" in result.stderr
    result, out = compile_to(spec, "--variant", "fp16", "--max-shard-size", "10KB")
    assert result.exit_code == 0, result.stderr
    assert (out / "diffusion_pytorch_model.safetensors.index.fp16.json").exists()
    loaded = PixArtTransformer2DModel.from_pretrained(out, variant="fp16", torch_dtype=torch.float16)
    assert len(loaded.transformer_blocks) == 4


@pytest.mark.slow
def test_the_process_that_copies_knows_no_torch(tmp_path):
    """The demo's anatomy is known: torch is loaded by the process that verifies alone."""
    code = (
        "import sys; from surgery.commands.main import main; sys.argv = ['surgery', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit as end: status = end.code\n"
        "heavy = ('torch', 'diffusers', 'numpy', 'safetensors')\n"
        "print(status, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    spec = "specs/demo/skip.yaml"
    command = [sys.executable, "-c", code, "compile", spec, "--to", "checkpoint", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stderr.splitlines()[-1] == "0 []"
    assert len(DiffusionPipeline.from_pretrained(tmp_path / "out").transformer.transformer_blocks) == 9


def test_from_python_it_is_the_same(write_spec, tmp_path):
    folder = surgery.compile_checkpoint(write_spec("spec.yaml", SKIP), tmp_path / "out", verify="structure")
    assert (
        folder == tmp_path / "out"
        and len(DiffusionPipeline.from_pretrained(folder).transformer.transformer_blocks) == 4
    )


def test_a_pruned_pipeline_is_drawn_and_edited_like_any_other(write_spec, compile_to, draw, tmp_path):
    _, out = compile_to(write_spec("spec.yaml", SKIP))
    document = draw(out, "--prompt", "red apple", "--out", tmp_path / "pictures")
    assert document["model"] == str(out)
    from surgery.errors import InputError

    with pytest.raises(InputError, match="is a pruned model of its own; load it with from_pretrained"):
        surgery.load_variant(out)


def test_names_of_layers_in_config_and_header_follow_and_hashes_go(write_spec, compile_to, tmp_path):
    """What a quantiser leaves alone, say; a name that can't follow is refused before anything is written."""
    folder = tmp_path / "model"
    model = build_tiny_model("pixart")
    model.save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    header = {"format": "pt", "modelspec.hash_sha256": "0x12", "scales": '{"transformer_blocks.2.ff": 2.0}'}
    save_file(load_file(weights), weights, metadata=header)
    config = json.loads((folder / "config.json").read_text())
    kept = {"modules_to_not_convert": ["transformer_blocks.1.attn1", "transformer_blocks.2", "proj_out"]}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": kept}))
    result, out = compile_to(write_spec("spec.yaml", SKIP, model=folder))
    assert "note: modelspec.hash_sha256 in the header was of the original's contents" in "\n".join(lines_of(result))
    written = json.loads((out / "config.json").read_text())["quantization_config"]
    assert written == {"modules_to_not_convert": ["transformer_blocks.1", "proj_out"]}
    with safe_open(out / weights.name, "np") as file:
        said = file.metadata()
    assert (said["scales"], "modelspec.hash_sha256" in said) == ('{"transformer_blocks.1.ff": 2.0}', False)
    kept = {"left_out": r"transformer_blocks\.(1|2)\..*"}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": kept}))
    result, other = compile_to(write_spec("spec.yaml", SKIP, model=folder), out=tmp_path / "other")
    assert (result.exit_code, other.exists()) == (1, False)
    assert r"the config is by layer: transformer_blocks\.(1|2) within" in result.stderr
