"""Folders of pictures with captions, in the forms that people have them."""

import json

import pytest
from PIL import Image

from surgery.errors import InputError
from surgery.experiment.captions import read_captions


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def pairs(folder):
    return [(pair.file.name, pair.caption) for pair in read_captions(folder)]


def test_a_table_of_objects_may_give_several_captions(folder):
    rows = [{"file_name": "b.png", "text": ["one", "two "]}, {"file_name": "a.png", "caption": "three"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs(folder) == [("b.png", "one"), ("b.png", "two"), ("a.png", "three")]


def test_a_csv_table(folder):
    (folder / "metadata.csv").write_text('file_name,text\na.png,"red, and green"\nb.png,blue\n')
    assert pairs(folder) == [("a.png", "red, and green"), ("b.png", "blue")]


def test_texts_beside_the_pictures(folder):
    (folder / "a.txt").write_text("one\n\ntwo\n")
    (folder / "b.txt").write_text("\ufeffthree")
    assert pairs(folder) == [("a.png", "one"), ("a.png", "two"), ("b.png", "three")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"a.png has no caption: .*a.txt can't be read"),
        ({"a.txt": " \n", "b.txt": "x"}, r"a.png has no caption: .*a.txt is empty"),
        ({"metadata.jsonl": '{"file_name": "a.png", "text": [null]}'}, "entry 1 needs file_name and text"),
        ({"metadata.jsonl": "{"}, "metadata.jsonl can't be read"),
        ({"metadata.jsonl": "[1]"}, "must hold one object a line"),
        ({"metadata.jsonl": '{"file_name": "a.png"}'}, "entry 1 needs file_name and text"),
        ({"metadata.jsonl": '{"file_name": "a.png", "text": ["x", ""]}'}, "entry 1 needs file_name and text"),
        ({"metadata.jsonl": '{"file_name": "../x.png", "text": "x"}'}, r"names ../x.png, which is not in its folder"),
        ({"metadata.csv": "file_name,text\nc.png,x\n"}, "metadata.csv names c.png, which is not there"),
        ({"metadata.csv": "file_name,text\n"}, "holds no pictures with captions"),
    ],
)
def test_what_is_wrong_is_said(folder, files, message):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_captions(folder)


def test_no_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="is no folder; give one of pictures with captions"):
        read_captions(tmp_path / "absent")
