"""`surgery generate`: the same noise for every row, recipes in every picture, nothing written where it would hurt."""

import json

import numpy as np
import pytest
from PIL import Image

from surgery.written import MARKER

SKIP = 'skip: "transformer_blocks[1]"'
REVERSE = 'reverse: "transformer_blocks[1:4]"'
PROMPTS = ("-p", "red apple", "-p", "blue heart")
SMALL = ("--steps", "2", "--guidance-scale", "2", "--height", "16", "--width", "16")
BINNING = ("--call", "use_resolution_binning=false", "--call", "clean_caption=false")


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def recipe_in(path):
    with Image.open(path) as picture:
        return json.loads(picture.text["surgery"])


def pictures(folder):
    """The bytes of all pictures of rows, by their paths in the folder."""
    return {str(path.relative_to(folder)): pixels(path).tobytes() for path in sorted(folder.glob("*/*.png"))}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, pipeline, draw):
    """A drawn gallery: baseline, a no-op, a variant; two prompts. The folder and the JSON document."""
    folder = tmp_path_factory.mktemp("gallery")
    specs = []
    for name, operations in (("noop", "[]"), ("skip", f"[{{{SKIP}}}]")):
        specs.append(folder / f"{name}.yaml")
        specs[-1].write_text(f"surgery: v1\nmodel: {pipeline}\noperations: {operations}\n")
    return folder / "out", draw(*specs, "--out", folder / "out", *PROMPTS, "--seed", "3")


def test_the_folder_holds_rows_sheet_and_recipe_and_nothing_else(gallery):
    out, document = gallery
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    rows = [f"{row}/{number:04d}.png" for row in ("baseline", "noop", "skip") for number in range(2)]
    assert found == sorted([*rows, "contact_sheet.png", "recipe.json", MARKER])
    assert document["contact_sheet"] == str(out / "contact_sheet.png")
    assert all(pixels(out / row).shape == (16, 16, 3) for row in rows)


def test_a_variant_without_operations_is_bit_identical_to_the_baseline(gallery):
    drawn = pictures(gallery[0])
    assert all(drawn[f"noop/{n:04d}.png"] == drawn[f"baseline/{n:04d}.png"] for n in range(2))


def test_surgery_changes_pictures(gallery):
    drawn = pictures(gallery[0])
    assert all(drawn[f"skip/{n:04d}.png"] != drawn[f"baseline/{n:04d}.png"] for n in range(2))


def test_the_json_document_is_the_recipe_and_its_place(gallery):
    out, document = gallery
    recipe = json.loads((out / "recipe.json").read_text())
    assert document == {"out": str(out), "contact_sheet": str(out / "contact_sheet.png"), **recipe}
    assert recipe["prompts"] == ["red apple", "blue heart"]
    assert recipe["seed"] == 3
    assert recipe["call"]["num_inference_steps"] == 2
    assert [variant["name"] for variant in recipe["variants"]] == ["baseline", "noop", "skip"]
    assert SKIP in recipe["variants"][2]["spec"]
    assert recipe["variants"][2]["plan"]["class"] == "PixArtTransformer2DModel"


def test_every_picture_carries_its_recipe(gallery):
    out, _ = gallery
    recipe = json.loads((out / "recipe.json").read_text())
    for variant in recipe["variants"]:
        for number, prompt in enumerate(recipe["prompts"]):
            own = recipe_in(out / variant["name"] / f"{number:04d}.png")
            assert (own.pop("variant"), own.pop("prompt"), own.pop("seed")) == (variant, prompt, 3 + number)
            assert own == {key: recipe[key] for key in own}
            assert {"model", "identity", "call", "dtype", "device", "batch_size", "versions"} == own.keys()
    assert recipe_in(out / "contact_sheet.png") == recipe


def test_the_same_seed_draws_the_same_and_another_does_not(tmp_path, gallery, pipeline, draw):
    draw(pipeline, "--out", tmp_path / "same", *PROMPTS, "--seed", "3")
    draw(pipeline, "--out", tmp_path / "other", *PROMPTS, "--seed", "5")
    before, same, other = (pictures(folder) for folder in (gallery[0], tmp_path / "same", tmp_path / "other"))
    assert same.keys() == other.keys() == {"baseline/0000.png", "baseline/0001.png"}
    assert all(same[name] == before[name] for name in same)
    assert all(other[name] != before[name] for name in other)


def test_pictures_do_not_depend_on_the_other_variants_drawn(tmp_path, gallery, write_spec, draw):
    specs = [write_spec("other.yaml", REVERSE), write_spec("skip.yaml", SKIP)]
    draw(*specs, "--no-baseline", "--out", tmp_path / "out", *PROMPTS, "--seed", "3")
    before, now = pictures(gallery[0]), pictures(tmp_path / "out")
    assert {name.split("/")[0] for name in now} == {"other", "skip"}
    assert all(now[name] == before[name] for name in now if name.startswith("skip"))


def test_prompt_k_starts_from_the_noise_of_seed_plus_k(tmp_path, gallery, pipeline, draw):
    draw(pipeline, "--out", tmp_path / "out", "-p", "blue heart", "--seed", "4")
    difference = np.abs(
        pixels(tmp_path / "out/baseline/0000.png").astype(int) - pixels(gallery[0] / "baseline/0001.png").astype(int)
    )
    assert difference.max() <= 1  # the size of a batch may change the order of summation, and so the last bit


def test_text_tells_each_row_and_where_to_look(tmp_path, write_spec, surgery_command):
    spec = write_spec("skip.yaml", SKIP)
    result = surgery_command(
        "generate", spec, "--out", tmp_path / "out", "-p", "red apple", *SMALL, *BINNING, "--quiet"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "baseline  the model as it is",
        "skip      transformer_blocks[5]: 0 2:5",
        f"pictures in {tmp_path / 'out'}/; look at {tmp_path / 'out' / 'contact_sheet.png'}",
    ]


def test_specs_of_one_name_get_rows_of_their_own(tmp_path, write_spec, draw):
    (tmp_path / "a").mkdir()
    specs = [write_spec("skip.yaml", SKIP), write_spec("a/skip.yaml", REVERSE), write_spec("a/baseline.yaml")]
    document = draw(*specs, "--out", tmp_path / "out", "-p", "red apple")
    assert [variant["name"] for variant in document["variants"]] == ["baseline", "skip", "skip-2", "baseline-2"]


def test_prompts_come_from_the_call_then_from_the_file(tmp_path, pipeline, draw):
    file = tmp_path / "prompts.txt"
    file.write_text("\n  blue heart  \n\n\n", encoding="utf-8-sig")
    document = draw(pipeline, "--out", tmp_path / "out", "-p", "red apple", "--prompts", file)
    assert document["prompts"] == ["red apple", "blue heart"]


def test_force_writes_into_a_folder_that_is_not_empty(tmp_path, pipeline, draw, surgery_command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    draw(pipeline, "--out", tmp_path / "out", "-p", "red apple", "--force")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "out" / "baseline" / "0000.png").write_text("mine")
    refused = surgery_command(
        "generate", pipeline, "--out", tmp_path / "out", "-p", "red apple", *SMALL, *BINNING, "--force"
    )
    assert refused.exit_code == 1 and "0000.png is not what `surgery generate` wrote there; move it" in refused.stderr
    assert (tmp_path / "out" / "baseline" / "0000.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--call", "colour=red"], "PixArtAlphaPipeline takes no argument colour; it takes negative_prompt"),
        (["--call", "colour"], '--call takes KEY=VALUE, not "colour"'),
        (["--call", "eta=1e999"], "the argument eta of PixArtAlphaPipeline is inf, and must be finite"),
        (["--call", "=3"], '--call takes KEY=VALUE, not "=3"'),
        (["--dtype", "int3"], "there is no dtype int3; write float32, bfloat16, float16 or auto"),
        (["--device", "toaster"], "can't be loaded on toaster"),
        (["--device", "cuda:77"], "can't be loaded on cuda:77"),
        (["--steps", "1"], "PixArtAlphaPipeline refuses the call: tuple index out of range"),
        (["--call", "num_images_per_prompt=2"], "PixArtAlphaPipeline refuses the call: You have passed a list of"),
        (
            ["--call", "generator=3"],
            "the argument generator of PixArtAlphaPipeline is set for every batch; leave it out",
        ),
        (["--height", "17"], "PixArtAlphaPipeline refuses the call: `height` and `width` have to be divisible by 8"),
    ],
)
def test_options_that_fit_nothing_are_refused_before_anything_is_written(
    tmp_path, pipeline, surgery_command, options, message
):
    out = tmp_path / "out"
    result = surgery_command("generate", pipeline, "--out", out, "-p", "red apple", *SMALL, *BINNING, *options)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        ("", "holds no prompt"),
        ("\n  \n", "holds no prompt"),
        (b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, pipeline, surgery_command, content, message):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = surgery_command("generate", pipeline, "--out", tmp_path / "out", "--prompts", file)
    assert result.exit_code == 1
    assert message in result.stderr and "prompts.txt" in result.stderr


def test_no_prompt_at_all_is_refused(tmp_path, pipeline, surgery_command):
    result = surgery_command("generate", pipeline, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == 'there is no prompt; give --prompt "red apple", or --prompts FILE\n'


def test_folders_that_would_be_hurt_are_refused(tmp_path, pipeline, surgery_command):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    full = surgery_command("generate", pipeline, "--out", tmp_path / "full", "-p", "red apple")
    file = surgery_command("generate", pipeline, "--out", tmp_path / "file", "-p", "red apple", "--force")
    assert (full.exit_code, file.exit_code) == (1, 1)
    assert "full is not empty; give another folder, or --force" in full.stderr
    assert "file is a file; give a folder" in file.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_targets_of_no_one_pipeline_are_refused(tmp_path, pipeline, write_spec, surgery_command):
    spec, other = write_spec("one.yaml"), write_spec("other.yaml", model="somebody/else")
    nameless = write_spec("nameless.yaml", model=None)
    messages = {
        (spec, other): "the specs name not one model but ",
        (nameless,): "nameless.yaml names no model; write model: in the spec, or give --model",
        (pipeline, pipeline): "has no surgery.json, so that the model to compare it with is not known; give --model",
        (pipeline / "transformer",): "is a bare transformer; to draw pictures, give the folder of its pipeline",
        (tmp_path / "absent",): "there is no folder",
    }
    for targets, message in messages.items():
        result = surgery_command("generate", *targets, "--out", tmp_path / "out", "-p", "red apple")
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr
    assert not (tmp_path / "out").exists()


def test_the_model_option_joins_specs_of_different_models(tmp_path, pipeline, write_spec, draw):
    specs = [write_spec("one.yaml", SKIP, model="somebody/else"), write_spec("two.yaml", REVERSE, model=None)]
    document = draw(*specs, "--model", pipeline, "--out", tmp_path / "out", "-p", "red apple")
    assert document["model"] == str(pipeline)
    assert [variant["name"] for variant in document["variants"]] == ["baseline", "one", "two"]


def test_a_fault_in_a_spec_stops_before_anything_is_drawn(tmp_path, write_spec, surgery_command):
    specs = [write_spec("good.yaml", SKIP), write_spec("bad.yaml", 'skip: "transformer_blocks[9]"')]
    result = surgery_command("generate", *specs, "--out", tmp_path / "out", "-p", "red apple", *SMALL, *BINNING)
    assert result.exit_code == 1
    assert "bad.yaml:4:" in result.stderr and "there is no layer 9" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [[], ["--out", "x", "--steps", "0"], ["--out", "x", "--seed", "-1"], ["--whatever"]]
)
def test_wrong_usage_exits_with_two(surgery_command, options):
    assert surgery_command("generate", "demo", *options).exit_code == 2
