"""`surgery demo`: the specs of the demo, drawn from the bundled pipeline."""

import json

import pytest
from PIL import Image

import surgery.commands.demo
import surgery.experiment.gallery
from surgery.demo.location import DEMO_CALL, demo_specs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two steps, two prompts, two specs: what the command does does not hang on their number."""
    monkeypatch.setattr(surgery.experiment.gallery, "DEMO_CALL", {**DEMO_CALL, "num_inference_steps": 2})
    monkeypatch.setattr(surgery.commands.demo, "DEMO_PROMPTS", ("red apple", "rocket"))
    monkeypatch.setattr(surgery.commands.demo, "demo_specs", lambda: demo_specs()[:2])


def test_text_tells_each_row_and_where_to_look(tmp_path, surgery_command):
    result = surgery_command("demo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["baseline", *(path.stem for path in demo_specs()[:2])]
    assert lines[-1].endswith(str(tmp_path / "out" / "contact_sheet.png"))
    with Image.open(tmp_path / "out" / "baseline" / "0001.png") as picture:
        assert picture.size == (64, 64)


def test_json_is_one_document_and_a_second_run_writes_over_the_first(tmp_path, surgery_command):
    documents = [json.loads(surgery_command("demo", "--out", tmp_path, "--json").stdout) for _ in range(2)]
    assert documents[0] == documents[1]
    assert documents[0]["model"] == "demo"
    assert documents[0]["prompts"] == ["red apple", "rocket"]


def test_wrong_usage_exits_with_two(surgery_command):
    assert surgery_command("demo", "--seed", "-1").exit_code == 2
    assert surgery_command("demo", "somewhere").exit_code == 2
