"""`surgery heal`: from a compiled checkpoint to a healed one, by its base; and what it refuses."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import surgery
from surgery.files import hash_file
from surgery.publish.artefact import read_compiled
from surgery.training import healing

PROMPTS = ["red apple", "blue heart", "red heart", "blue apple", "apple", "heart"]
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SMALL = ("--steps", 4, "--batch-size", 4, "--bins", 2, "--validate-every", 2, "--device", "cpu")
CALL = ("--height", 16, "--width", 16, "--call", "use_resolution_binning=false", "--call", "clean_caption=false")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    return file


@pytest.fixture(scope="module")
def pruned(pipeline, surgery_command, tmp_path_factory):
    """The tiny pipeline without block 2 of 5; nobody changes it."""
    folder = tmp_path_factory.mktemp("pruned")
    spec = folder / "spec.yaml"
    spec.write_text(f"surgery: v1\nmodel: {pipeline}\noperations:\n  - skip: transformer_blocks[2]\n")
    done = surgery_command("compile", spec, "--to", "checkpoint", "--out", folder / "pruned", "--verify", "structure")
    assert done.exit_code == 0, done.stderr
    return folder / "pruned"


@pytest.fixture
def heal(surgery_command, pipeline, pruned, prompts, tmp_path):
    """Runs the command; the result, and the folder that it wrote or did not."""

    def run(*options, checkpoint=pruned, data=("--prompts", prompts), out=tmp_path / "healed", model=pipeline):
        drawn = ("--trajectory-steps", 2) if "--prompts" in data else ()
        base = () if model is None else ("--model", model)
        return surgery_command("heal", checkpoint, *data, "--out", out, *base, *SMALL, *CALL, *drawn, *options), out

    return run


def weights_of(folder):
    return load_file(folder / WEIGHTS)


def changed(one, other):
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def test_a_healed_folder_loads_in_stock_diffusers_and_says_what_healed_it(heal, pruned, pipeline, prompts):
    before = {path: hash_file(path) for path in sorted([*pipeline.rglob("*.*"), *pruned.rglob("*.*")])}
    result, out = heal("--learning-rate", "1e-3", "--json", "--features", "0.1", "--samples", 2)
    assert result.exit_code == 0, result.stderr
    assert before == {path: hash_file(path) for path in before}, "the teacher and the checkpoint are as they were"
    healed = json.loads((out / "surgery.json").read_text())["healed"]
    assert healed == json.loads(result.stdout)["healed"]
    assert healed["weights"] == {"diffusion_pytorch_model.safetensors": hash_file(out / WEIGHTS)}
    assert healed["validation"]["after"] < healed["validation"]["before"]
    assert [step for step, _ in healed["validation"]["history"]] == [0, 2, 4]
    assert healed["losses"] == {"output": 1.0, "features": 0.1} and healed["data"]["prompts"] == 4
    assert weights_of(out).keys() == weights_of(pruned).keys() and changed(weights_of(out), weights_of(pruned))
    assert {value.dtype for value in weights_of(out).values()} == {torch.float16}, "as they were"
    for name in ("spec.yaml", "plan.json", "model_index.json", "transformer/config.json"):
        assert (out / name).read_bytes() == (pruned / name).read_bytes()
    card = (out / "README.md").read_text()
    assert "## How it was healed" in card and "Nothing was trained" not in card and "not trained again" not in card
    assert f"{healed['validation']['after']:.3f} after" in card and str(pruned.parent) not in card
    assert 'from_pretrained("healed"' in card
    assert len(list((out.parent / "healed.healing" / "samples").iterdir())) == 3
    pipe = DiffusionPipeline.from_pretrained(out)
    assert len(pipe.transformer.transformer_blocks) == 4
    assert (read_compiled(pruned).state(), read_compiled(out).state()) == ("as compiled", "healed")


def test_a_lora_of_the_base_is_remapped_for_a_healed_folder_as_for_the_pruned_one(
    heal, pruned, pipeline, surgery_command, tmp_path
):
    _, out = heal("--steps", 1)
    names = [f"transformer.transformer_blocks.{block}.attn1.to_q.lora_" for block in range(5)]
    own = load_file(pipeline / WEIGHTS)["transformer_blocks.0.attn1.to_q.weight"]
    halves = {"A": torch.ones(2, own.shape[1]), "B": torch.ones(len(own), 2)}
    save_file(
        {f"{name}{half}.weight": halves[half].clone() for name in names for half in halves},
        tmp_path / "lora.safetensors",
    )
    found = []
    for folder in (pruned, out):
        target = tmp_path / f"for_{folder.name}.safetensors"
        done = surgery_command(
            "remap", tmp_path / "lora.safetensors", "--spec", folder, "--model", pipeline, "--out", target
        )
        assert done.exit_code == 0, done.stderr
        found.append(load_file(target))
    assert found[0].keys() == found[1].keys() and len(found[1]) == 2 * 4


def test_the_files_that_are_listed_are_there_and_others_are_not_replaced(heal, surgery_command):
    _, out = heal()
    manifest = json.loads((out / "surgery.json").read_text())
    assert manifest["files"] == {name: (out / name).stat().st_size for name in manifest["files"]}
    again, _ = heal()
    assert "is not empty; give another folder, or --force to replace it" in again.stderr
    forced, _ = heal("--force")
    assert forced.exit_code == 0, forced.stderr


def test_what_is_not_trained_stays_equal_to_the_bit(heal, pruned):
    result, out = heal("--train", "neighbours", "--learning-rate", "1e-2", "--weight-decay", "0.1")
    assert result.exit_code == 0, result.stderr
    found = changed(weights_of(out), weights_of(pruned))
    assert found and all(name.startswith(("transformer_blocks.1.", "transformer_blocks.2.")) for name in found)


def test_a_lora_is_merged_into_layers_of_blocks_alone(heal, pruned):
    result, out = heal("--train", "lora", "--rank", 2, "--learning-rate", "1e-2")
    assert result.exit_code == 0, result.stderr
    found = changed(weights_of(out), weights_of(pruned))
    assert found and all(name.endswith(".weight") and name.startswith("transformer_blocks.") for name in found)
    refused, _ = heal("--train", "lora", "--lora-apart", out=out.with_name("apart"))
    assert "PixArtAlphaPipeline loads no LoRA" in refused.stderr


def test_python_heals_as_the_command_does(heal, pruned, pipeline, tmp_path):
    options = ("--batch-size", 4, "--bins", 2, "--trajectory-steps", 2, "--schedule", "constant_with_warmup")
    result, out = heal(*options, "--steps", 2)
    settings = surgery.TrainingSettings(steps=2, validate_every=2)
    call = {"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False}
    healed = surgery.heal(
        pruned,
        tmp_path / "called",
        settings,
        prompts=PROMPTS,
        model=str(pipeline),
        trajectory_steps=2,
        batch_size=4,
        bins=2,
        device="cpu",
        call=call,
    )
    assert result.exit_code == 0 and not changed(weights_of(healed.folder), weights_of(out))
    assert healed.facts["losses"] == {"output": 1.0}


def test_a_healed_folder_can_be_healed_again_and_remembers(heal):
    _, out = heal()
    again, second = heal(checkpoint=out, out=out.with_name("again"))
    assert again.exit_code == 0, again.stderr
    healed = json.loads((second / "surgery.json").read_text())["healed"]
    assert healed["before"] == json.loads((out / "surgery.json").read_text())["healed"]
    assert (second / "README.md").read_text().count("## How it was healed") == 1


def test_pictures_teach_what_a_model_is_trained_to_predict(heal, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(PROMPTS[number])
    options = ("--denoising", "0.5", "--output", "0")
    data = ("--pictures", folder)
    refused, _ = heal("--latents-per-prompt", 2, *options, data=data)
    assert refused.exit_code == 2 and "nothing is drawn" in refused.stderr
    result, out = heal(*options, data=data)
    assert result.exit_code == 0, result.stderr
    healed = json.loads((out / "surgery.json").read_text())["healed"]
    assert healed["losses"] == {"denoising": 0.5} and healed["data"]["pictures"] == 4


def test_a_run_goes_on_where_it_was_and_another_is_not_mixed_up_with_it(heal, pruned, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(healing, "write_healed", full)
        stopped, out = heal()
        assert stopped.exit_code == 1 and not out.exists()
    other, _ = heal("--learning-rate", "1e-2")
    assert "holds the results of another request; give another folder, or --force to replace them" in other.stderr
    resumed, _ = heal()
    assert resumed.exit_code == 0, resumed.stderr
    whole, second = heal(out=out.with_name("whole"))
    assert whole.exit_code == 0
    assert not changed(weights_of(out), weights_of(second))


@pytest.fixture
def copy(pruned, tmp_path):
    return shutil.copytree(pruned, tmp_path / "copy")


def test_a_graph_is_refused_with_what_to_compile(heal, surgery_command, pruned, tmp_path):
    graph = tmp_path / "graph"
    surgery_command("compile", pruned.parent / "spec.yaml", "--to", "graph", "--out", graph)
    result, out = heal(checkpoint=graph)
    assert result.exit_code == 1 and not out.exists()
    assert f"is a compiled graph, whose weights are those of its base; compile a checkpoint, and heal that: surgery " \
        f"compile {graph}/spec.yaml --to checkpoint --out DIR" in result.stderr  # fmt: skip


def test_another_base_is_refused(heal, pipeline, tmp_path):
    other = shutil.copytree(pipeline, tmp_path / "other")
    tensors = load_file(other / WEIGHTS)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1
    save_file(tensors, other / WEIGHTS)
    result, _ = heal(model=other)
    assert "is not the model that" in result.stderr and "its weights are others" in result.stderr
    missing, _ = heal(model=None)
    assert "was compiled from tiny, which is not found here" in missing.stderr and "--model" in missing.stderr


def test_a_quantised_base_is_refused(heal, copy):
    config = json.loads((copy / "transformer/config.json").read_text())
    (copy / "transformer/config.json").write_text(json.dumps({**config, "quantization_config": {"load_in_4bit": True}}))
    result, _ = heal(checkpoint=copy)
    assert result.exit_code == 1 and "is quantised, and no gradient flows through its transformer" in result.stderr


def test_a_folder_without_a_recipe_or_with_another_plan_is_refused(heal, copy, pipeline):
    result, _ = heal(checkpoint=pipeline)
    assert "has no surgery.json, which says from what it was compiled" in result.stderr
    manifest = json.loads((copy / "surgery.json").read_text())
    for entry in ("base", "files", "plan"):
        short = {name: value for name, value in manifest.items() if name != entry}
        (copy / "surgery.json").write_text(json.dumps(short))
        result, _ = heal(checkpoint=copy)
        assert f"{copy} is no whole checkpoint; compile it again: KeyError: '{entry}'" in result.stderr
    (copy / "surgery.json").write_text(json.dumps({**manifest, "plan": "0" * 64}))
    result, _ = heal(checkpoint=copy)
    assert "plan.json is not the plan that surgery.json names; compile" in result.stderr


def test_prompts_too_few_to_split_are_told(heal, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("red apple\nblue heart\nheart")
    result, _ = heal(data=("--prompts", few))
    assert "there are too few prompts: 3 to learn from and 0 to measure by" in result.stderr
    result, _ = heal(data=("--prompts", few, "--held-out", few))
    assert "there are too few prompts: 0 to learn from and 3 to measure by" in result.stderr


@pytest.mark.parametrize(
    ("options", "data", "said"),
    [
        ((), (), "give either --prompts FILE or --pictures DIR"),
        (("--denoising", 1), None, "the denoising loss is of real pictures; give --pictures DIR"),
        (("--output", 0), None, "every loss has the weight 0"),
        (("--rank", 4), None, "they are of --train lora"),
        (("--ema", 2), None, "the ema is 2.0; write a number between 0 and 1"),
    ],
    ids=["no data", "denoising of prompts", "no loss", "rank of no lora", "ema"],
)
def test_options_that_do_not_go_together_are_told(heal, prompts, options, data, said):
    result, out = heal(*options, data=("--prompts", prompts) if data is None else data)
    assert result.exit_code in (1, 2) and said in result.stderr.replace("\n", " ") and not out.exists()


def test_the_target_may_not_be_the_checkpoint_nor_hold_the_run(heal, copy, tmp_path):
    result, _ = heal("--work", tmp_path / "healed" / "work")
    assert "the work folder and" in result.stderr and "lie within each other" in result.stderr
    result, _ = heal("--force", checkpoint=copy, out=copy)
    assert "lie within each other; give a folder elsewhere" in result.stderr
