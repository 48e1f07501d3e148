"""What `surgery evaluate` says of pictures that it can't take as a reference: one message, before anything is drawn."""

import json
from pathlib import Path

import pytest
from PIL import Image

SKIP = Path(__file__).parents[2] / "specs" / "demo" / "skip.yaml"


@pytest.fixture
def evaluate(tmp_path, monkeypatch, surgery_command):
    """Runs `surgery evaluate` on the bundled pipeline in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("red apple\nrocket\n")
    return lambda *arguments: surgery_command("evaluate", SKIP, "--out", "out", *arguments)


def save_sizes(folder, *sides):
    folder.mkdir()
    for number, side in enumerate(sides):
        Image.new("RGB", (side, 64)).save(folder / f"{number}.png")


def one_message(result):
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_a_reference_of_mixed_sizes_is_refused_with_the_rule(evaluate, tmp_path):
    save_sizes(tmp_path / "real", 64, 64, 72)
    said = one_message(evaluate("--prompts", "prompts.txt", "--reference", "real"))
    assert "2 sizes are mixed: 64 x 64 px (real/0.png), 72 x 64 px (real/2.png); say to which side" in said


def test_every_picture_of_the_reference_that_cant_be_read_is_named(evaluate, tmp_path):
    save_sizes(tmp_path / "real", 64, 64, 64)
    for name in ("0.png", "2.png"):
        (tmp_path / "real" / name).write_bytes(b"no picture")
    said = one_message(evaluate("--prompts", "prompts.txt", "--reference", "real"))
    assert "real/0.png can't be read" in said and "real/2.png can't be read" in said and "real/1.png" not in said


def test_a_caption_without_its_picture_is_named(evaluate, tmp_path):
    save_sizes(tmp_path / "real", 64)
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(2)]
    captions = [{"image_id": number, "caption": "rocket"} for number in range(2)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    said = one_message(evaluate("--prompts", "captions.json", "--pictures", "real"))
    assert "captions.json names the picture 1.png, which is not in real" in said


@pytest.mark.parametrize("num", [1, 3])
def test_a_reference_smaller_than_its_metrics_allow_is_refused_before_drawing(evaluate, tmp_path, num):
    save_sizes(tmp_path / "real", *[64] * num)
    said = one_message(evaluate("--prompts", "prompts.txt", "--reference", "real"))
    assert f"the reference has {num} pictures; precision and recall need 4 or more" in said
    assert not (tmp_path / "out" / "store" / "pictures").exists()
