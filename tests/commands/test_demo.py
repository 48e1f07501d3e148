"""`surgery demo`: the specs of the demo, drawn from the bundled pipeline."""

import json
import subprocess
import sys

import pytest
from PIL import Image

import surgery.commands.demo
import surgery.publish.known_arguments
from surgery.anatomy.sources import build_on_meta, find_source
from surgery.bundled import DEMO_CALL, demo_specs
from surgery.demo import stock_draw
from surgery.export.check_config import judge_config, read_config

SPECS = [path for path in demo_specs() if path.stem == "skip"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two steps, two prompts, one spec: what the command does does not hang on their number."""
    monkeypatch.setattr(surgery.publish.known_arguments, "DEMO_CALL", {**DEMO_CALL, "num_inference_steps": 2})
    monkeypatch.setattr(surgery.commands.demo, "DEMO_PROMPTS", ("red apple", "rocket"))
    monkeypatch.setattr(surgery.commands.demo, "demo_specs", lambda: SPECS)
    monkeypatch.setattr(surgery.commands.demo, "NUM_MEASURED", 2)
    monkeypatch.setattr(surgery.commands.demo, "BINS", 1)
    monkeypatch.setattr(surgery.commands.demo, "PROFILED_STEPS", 2)


def test_text_tells_each_row_and_where_to_look(tmp_path, surgery_command):
    result = surgery_command("demo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    drawn, _, measured = result.stdout.partition("\n\n")
    lines = drawn.splitlines()
    assert [line.split()[0] for line in lines[:-6]] == ["baseline", *(path.stem for path in SPECS)]
    assert lines[-6].endswith(str(tmp_path / "out" / "contact_sheet.png"))
    assert lines[-5] == (
        f"{tmp_path / 'out' / 'pruned'}: the same model pruned, 4.00 M of 5.24 M parameters; diffusers loads it "
        "without this package"
    )
    assert lines[-3].startswith(f"{tmp_path / 'out' / 'measured'}: the variants measured on 2 prompts")
    assert lines[-4].endswith("skip-by-diffusers: drawn so; 2 of 2 pictures are those of the variant")
    assert lines[-2].startswith(f"{tmp_path / 'out' / 'page.html'}: ")
    assert "data:image/webp" in (tmp_path / "out" / "page.html").read_text()
    assert lines[-1].startswith(f"{tmp_path / 'out' / 'lycoris_config.json'}: LoKr factors by layer")
    assert lines[-1].endswith("in 120 modules, built by LyCORIS and compared")
    config = read_config(tmp_path / "out" / "lycoris_config.json")
    assert judge_config(config, build_on_meta(find_source("demo"))).as_asked
    with Image.open(tmp_path / "out" / "baseline" / "0001.png") as picture:
        assert picture.size == (64, 64)
    rows = [line.split()[0] for line in measured.partition("\n\n")[0].splitlines()[1:]]
    assert rows == ["baseline", *(path.stem for path in SPECS), "controls", "no-op", "reseeded", "noise"]
    assert {path.name for path in (tmp_path / "out" / "measured").iterdir()} >= {"evaluation.json", "evaluation.png"}


@pytest.mark.slow
def test_json_is_one_document_and_a_second_run_writes_over_the_first(tmp_path, surgery_command):
    documents = [json.loads(surgery_command("demo", "--out", tmp_path, "--json").stdout) for _ in range(2)]
    assert documents[0] == documents[1]
    assert documents[0]["pruned"]["weights"]["parameters"] == [5240544, 4002624]
    assert documents[0]["pruned"]["num_same"] == documents[0]["pruned"]["num_pictures"] == 2
    assert documents[0]["page"] == str(tmp_path / "page.html")
    assert documents[0]["lokr"]["profile"] == str(tmp_path / "profile.safetensors")
    assert documents[0]["lokr"]["modules"] == 120 and documents[0]["lokr"]["verified"]
    assert documents[0]["model"] == "demo"
    assert documents[0]["prompts"] == ["red apple", "rocket"]


def test_a_folder_that_is_not_the_demos_is_left_as_it_is(tmp_path, surgery_command):
    (tmp_path / "notes.txt").write_text("mine")
    result = surgery_command("demo", "--out", tmp_path)
    assert result.exit_code == 1 and "is not empty; give another folder, or --force to write into it" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["page.html", "lycoris_config.json", "profile.safetensors"])
def test_a_file_of_others_by_the_name_of_one_of_the_demos_is_left_with_force_too(name, tmp_path, surgery_command):
    (tmp_path / name).write_text("mine")
    result = surgery_command("demo", "--out", tmp_path, "--force")
    assert result.exit_code == 1 and f"{tmp_path / name} is not what `surgery demo` wrote there" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_wrong_usage_exits_with_two(surgery_command):
    assert surgery_command("demo", "--seed", "-1").exit_code == 2
    assert surgery_command("demo", "somewhere").exit_code == 2


def test_the_process_that_draws_with_diffusers_can_not_import_this_package(tmp_path):
    """The saboteur: a folder that needed this package would not be drawn."""
    code = (
        "import importlib.util, sys\n"
        f"location = importlib.util.spec_from_file_location('stock_draw', {stock_draw.__file__!r})\n"
        "module = importlib.util.module_from_spec(location); location.loader.exec_module(module)\n"
        "sys.meta_path.insert(0, module.Forbidden())\n"
        "import surgery"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "No module named 'surgery'" in done.stderr
