"""Class-conditional pipelines: prompts are the names or numbers of classes, in every command that draws or measures."""

import json

import numpy as np
import pipelines
import pytest
import torch
from PIL import Image

from surgery.errors import InputError
from surgery.pipelines.conditions import conditions_of, is_class_conditional
from surgery.pipelines.guidance import find_guidance
from surgery.profiles.profile_file import read_profile


@pytest.fixture(scope="module")
def pipe():
    return pipelines.build_pipeline("dit")[0]


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    """As it is published: the names of the classes stand in model_index.json, where diffusers itself does not write."""
    path = tmp_path_factory.mktemp("dit")
    pipe.save_pretrained(path)
    index = path / "model_index.json"
    names = {"0": "tench, Tinca tinca", "1": "goldfish", "2": "shark"}
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": names}))
    return path


def test_classes_are_named_or_numbered(pipe):
    assert is_class_conditional(pipe)
    assert conditions_of(pipe, ["goldfish", " Tinca tinca ", "2", "999"]) == [1, 0, 2, 999]


def test_prompts_stay_prompts():
    other, _ = pipelines.build_pipeline("demo")
    assert not is_class_conditional(other)
    assert conditions_of(other, ("goldfish", "2")) == ["goldfish", "2"]


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("goldfisch", "did you mean goldfish?"),
        ("1000", "write a number from 0 to 999, or a name"),
        ("-1", "write a number"),
        ("9" * 50, "write a number"),
        ("0" * 9 + "5000", "write a number"),
        ("", "write a number"),
    ],
)
def test_what_is_no_class_is_told(pipe, prompt, hint):
    with pytest.raises(InputError, match="is no class of this DiTPipeline; ") as error:
        conditions_of(pipe, [prompt])
    assert hint in str(error.value)


def test_the_branches_of_guidance_are_found(pipe):
    assert find_guidance(pipe, {"guidance_scale": 4.0}).forwards == (("conditional",) * 2 + ("unconditional",) * 2,)
    assert find_guidance(pipe, {"guidance_scale": 1.0}).forwards == (("conditional",) * 2,)


def test_it_is_profiled_from_the_command_line(folder, tmp_path, surgery_command):
    file = tmp_path / "dit.safetensors"
    asked = ("--prompt", "goldfish", "--prompt", "2", "--steps", "3", "--bins", "2")
    result = surgery_command("profile", folder, *asked, "--out", file)
    assert result.exit_code == 0, result.stderr
    profile = read_profile(file)
    assert profile.parts("transformer_blocks", "hidden_states") == ("conditional", "unconditional")
    samples = [
        profile.sums("transformer_blocks", "hidden_states", p).samples.sum() for p in ("conditional", "unconditional")
    ]
    assert samples == [6, 6]
    wrong = surgery_command(
        "profile", folder, "--prompt", "goldfisch", "--steps", "3", "--out", tmp_path / "x.safetensors"
    )
    assert wrong.exit_code == 1
    assert wrong.stderr.endswith('"goldfisch" is no class of this DiTPipeline; did you mean goldfish?\n')
    assert not (tmp_path / "x.safetensors").exists()


def test_it_is_drawn_as_the_pipeline_draws_it(pipe, folder, tmp_path, surgery_command):
    spec = tmp_path / "skip.yaml"
    spec.write_text(f"surgery: v1\nmodel: {json.dumps(str(folder))}\noperations:\n  - skip: transformer_blocks[2]\n")
    result = surgery_command(
        "generate", spec, "--prompt", "goldfish", "--steps", "3", "--seed", "5", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.stderr
    expected = pipe([1], generator=[torch.Generator().manual_seed(5)], num_inference_steps=3).images[0]
    drawn = {path.parent.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*/*.png")}
    assert np.array_equal(drawn["baseline"], np.asarray(expected))
    assert not np.array_equal(drawn["skip"], drawn["baseline"])


def test_it_is_profiled_on_pictures_as_in_training(folder, tmp_path, surgery_command):
    pictures, file = tmp_path / "pictures", tmp_path / "dit.safetensors"
    pictures.mkdir()
    for number, name in enumerate(("goldfish", "shark")):
        Image.new("RGB", (64, 64), (number * 200, 80, 40)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(name)
    result = surgery_command("profile", folder, "--pictures", pictures, "--samples", "3", "--out", file)
    assert result.exit_code == 0, result.stderr
    assert read_profile(file).sums("transformer_blocks", "hidden_states").samples.sum() == 3
    (pictures / "1.txt").write_text("whale")
    wrong = surgery_command("profile", folder, "--pictures", pictures, "--out", tmp_path / "x.safetensors")
    assert wrong.exit_code == 1 and wrong.stderr.endswith(
        '"whale" is no class of this DiTPipeline; write a number from 0 to 999, or a name\n'
    )


def test_it_is_evaluated(folder, tmp_path, surgery_command):
    spec = tmp_path / "skip.yaml"
    spec.write_text(f"surgery: v1\nmodel: {json.dumps(str(folder))}\noperations:\n  - skip: transformer_blocks[2]\n")
    (tmp_path / "classes.txt").write_text("goldfish\nshark\ntench\n7\n")
    asked = ("--prompts", tmp_path / "classes.txt", "--steps", "2", "--out", tmp_path / "out")
    result = surgery_command("evaluate", spec, *asked)
    assert result.exit_code == 0, result.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"]}
    errors = {
        name: next(score for metric, score in rows[name]["scores"].items() if metric.startswith("denoising error"))
        for name in ("skip", "no-op")
    }
    assert errors["no-op"]["value"] == 0 < errors["skip"]["value"]
