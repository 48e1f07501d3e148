"""Prompts from text, CSV and COCO's captions; the seed's draw of them."""

import json
import random

import pytest
from PIL import Image

from surgery.errors import InputError
from surgery.experiment.prompts import read_prompt_file


@pytest.fixture
def coco(tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.jpg")
    document = {
        "images": [{"id": 10 + number, "file_name": f"{number}.jpg"} for number in range(4)],
        "annotations": [{"image_id": 10 + number % 4, "caption": f" caption {number} "} for number in range(10)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(document))
    return tmp_path


def test_lines_and_columns(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffred apple\n\n rocket \n")
    assert read_prompt_file(tmp_path / "a.txt").prompts == ("red apple", "rocket")
    (tmp_path / "a.csv").write_text('id,caption\n1,"red, apple"\n2,\n3,rocket\n')
    assert read_prompt_file(tmp_path / "a.csv").prompts == ("red, apple", "rocket")


def test_a_prompt_may_have_several_lines_within_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('prompt\n"red\napple"\na cat\u2028on a mat\n', encoding="utf-8")
    assert read_prompt_file(tmp_path / "a.csv").prompts == ("red\napple", "a cat\u2028on a mat")


def test_captions_come_with_their_pictures(coco):
    found = read_prompt_file(coco / "captions.json", pictures=coco / "val")
    assert found.prompts == tuple(f"caption {number}" for number in range(10))
    assert [path.name for path in found.pictures] == [f"{number % 4}.jpg" for number in range(10)]
    assert read_prompt_file(coco / "captions.json").pictures == ()


def test_pairs_are_drawn_as_the_seed_draws_them(coco):
    found = read_prompt_file(coco / "captions.json", pictures=coco / "val", sample=5, seed=42)
    pairs = [(f"caption {number}", f"{number % 4}.jpg") for number in range(10)]
    random.seed(42)
    assert list(zip(found.prompts, (p.name for p in found.pictures), strict=True)) == random.sample(pairs, 5)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", " \n", "holds no prompt; write one a line"),
        ("a.csv", "x,y\n1,2\n", "has no column prompt, caption or text"),
        ("a.json", "{", "is no captions file in COCO's format"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "of picture 1, which the file"),
        ("a.json", '{"images": [], "annotations": []}', "holds no prompt"),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 1, "caption": null}]}',
            "annotation 1 is null; write a",
        ),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 1, "caption": ["x"]}]}',
            "the caption of annotation 1 is",
        ),
        ("a.json", '{"images": [], "annotations": [{"image_id": [1], "caption": "x"}]}', "is no captions file in COCO"),
        ("a.json", '{"images": [{"id": {}, "file_name": "x"}], "annotations": []}', "is no captions file in COCO"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_prompt_file(tmp_path / name)


def test_bad_pictures_and_counts_are_named(coco, tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        read_prompt_file(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="holds 10 prompts, and 11 are to be drawn"):
        read_prompt_file(coco / "captions.json", sample=11)
    (coco / "val" / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"names the picture 3.jpg, which is not in"):
        read_prompt_file(coco / "captions.json", pictures=coco / "val")
    document = json.loads((coco / "captions.json").read_text())
    document["images"][0]["file_name"] = "../0.jpg"
    (coco / "captions.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"names the picture ../0.jpg, which is not in"):
        read_prompt_file(coco / "captions.json", pictures=coco / "val")
    (coco / "a.txt").write_text("x")
    with pytest.raises(InputError, match="--pictures goes with captions in COCO's format"):
        read_prompt_file(coco / "a.txt", pictures=coco / "val")
