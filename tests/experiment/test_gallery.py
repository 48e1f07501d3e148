"""What a gallery refuses before a model is loaded, and how it names what it drew."""

import json
from pathlib import Path

import pytest
from PIL import Image

from surgery.errors import InputError
from surgery.experiment.gallery import (
    RECIPE_KEY,
    Gallery,
    GalleryRequest,
    find_targets,
    write_gallery,
)
from surgery.experiment.rows import VariantRow, baseline_row
from surgery.pipelines.draw import Drawing
from surgery.plan.planned import plan_spec
from surgery.spec.load import load_spec, read_spec

SPEC = "surgery: v1\nmodel: demo\noperations:\n  - skip: transformer_blocks[1]\n"


def request(*targets, out=Path("out"), **options):
    return GalleryRequest(targets=tuple(map(str, targets)), prompts=("red apple",), out=out, **options)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "skip.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def rows(spec, anatomies):
    return (baseline_row(None, 7), row_of("skip", load_spec(spec), anatomies["pixart"]))


def row_of(name, spec, anatomy):
    return VariantRow(name, "variant", 7, None, plan_spec(spec, anatomy))


def test_specs_of_one_model_or_one_model_are_targets(spec):
    assert find_targets(request("demo"))[0] == []
    specs, source = find_targets(request(spec, spec))
    assert ([each.file for each in specs], source.name) == ([str(spec)] * 2, "demo")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("demo", "demo"), "demo has no surgery.json, so that the model to compare it with is not known; give --model"),
        (("SPEC", "OTHER"), "the specs name not one model but demo, somewhere/else; give --model"),
    ],
)
def test_other_targets_are_refused(tmp_path, spec, targets, message):
    other = tmp_path / "other.yml"
    other.write_text(SPEC.replace("model: demo", "model: somewhere/else"))
    named = {"SPEC": spec, "OTHER": other}
    with pytest.raises(InputError, match=message):
        find_targets(request(*(named.get(target, target) for target in targets)))


def test_the_model_of_the_request_comes_first(tmp_path):
    path = tmp_path / "elsewhere.yml"
    path.write_text(SPEC.replace("model: demo", "model: somewhere/else"))
    assert find_targets(request(path, model="demo"))[1].name == "demo"


def test_everything_written_carries_its_recipe(tmp_path, rows):
    recipe = {"model": "demo", "prompts": ["red apple"], "seed": 7, "variants": [{"name": row.name} for row in rows]}
    pictures = [[Drawing(Image.new("RGB", (4, 4), colour), "red apple", 7)] for colour in ("red", "blue")]
    out = tmp_path
    write_gallery(rows, pictures, recipe, out, {"baseline": "baseline", "skip": "skip"})
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.suffix != ".yaml")
    assert found == ["baseline/0000.png", "contact_sheet.png", "recipe.json", "skip/0000.png"]
    assert json.loads((out / "recipe.json").read_text()) == recipe
    with Image.open(out / "skip" / "0000.png") as picture:
        assert picture.getpixel((0, 0)) == (0, 0, 255)
        own = json.loads(picture.text[RECIPE_KEY])
    assert own == {"model": "demo", "variant": {"name": "skip"}, "prompt": "red apple", "seed": 7}


def test_a_gallery_tells_what_each_row_is(tmp_path, rows, anatomies):
    unchanged = read_spec("surgery: v1\noperations: []")
    rows = (*rows, row_of("noop", unchanged, anatomies["pixart"]))
    gallery = Gallery("demo", tmp_path, tmp_path / "contact_sheet.png", rows, {"seed": 3})
    assert gallery.describe().splitlines() == [
        "baseline  the model as it is",
        "skip      transformer_blocks[28]: 0 2:28",
        "noop      unchanged",
        f"pictures in {tmp_path}/; look at {tmp_path / 'contact_sheet.png'}",
    ]
    assert gallery.to_json() == {"out": str(tmp_path), "contact_sheet": str(gallery.sheet), "seed": 3}
