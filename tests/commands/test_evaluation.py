"""`surgery evaluate`: the table, its controls, what a second run finds again, and what is refused."""

import base64
import copy
import json
import re
import shlex
import socket
from pathlib import Path

import pytest
from PIL import Image

from surgery.experiment import rows
from surgery.experiment.picture_store import PictureStore
from surgery.finite import from_finite
from surgery.outputs import own_folder
from surgery.written import MARKER

ROOT = Path(__file__).parents[2]
SKIP = ROOT / "specs" / "demo" / "skip.yaml"
SWEEP = ROOT / "specs" / "demo-sweeps" / "skip_sweep_each.yaml"
PROMPTS = ["red apple", "hamburger", "dog face", "rocket"]
QUICK = ("--steps", "2", "--bins", "2", "--batch-size", "2")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


@pytest.fixture(scope="module")
def measured(surgery_command, tmp_path_factory):
    """One run with all pictures kept, and no network: its folder and its document."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))

    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        result = surgery_command(
            "evaluate",
            SKIP,
            "--prompts",
            folder / "prompts.txt",
            "--out",
            folder / "out",
            *QUICK,
            "--json",
            "--keep-images",
            "all",
        )
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads(result.stdout)


def scores_of(document, name):
    row = next(row for row in document["rows"] if row["name"] == name)
    return {metric.partition(" (")[0]: score for metric, score in row["scores"].items()}


def test_rows_and_controls_are_there(measured):
    folder, document = measured
    kinds = {row["name"]: row["kind"] for row in document["rows"]}
    assert kinds == {
        "baseline": "baseline",
        "skip": "variant",
        "no-op": "control",
        "reseeded": "control",
        "noise": "control",
    }
    assert {path.name for path in folder.iterdir()} == {
        "evaluation.json",
        "rows.csv",
        "prompts.csv",
        "evaluation.png",
        "contact_sheet.png",
        "pictures",
        "store",
        MARKER,
    }
    kept = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert kept["rows"] == document["rows"] and set(kept["not_finite"].values()) == {"Infinity"}  # PSNR of no change
    assert {path.name for path in (folder / "pictures").iterdir()} == set(kinds)
    for name in kinds:
        files = sorted((folder / "pictures" / name).iterdir())
        assert [file.name for file in files] == [f"{number:05d}.png" for number in range(4)]
        assert files[0].read_bytes().startswith(b"\x89PNG")
        assert all(file.stat().st_nlink == 2 for file in files)  # the other name is in the store


def test_what_was_measured_makes_a_page_with_the_spec_and_what_it_costs(measured, surgery_command, tmp_path):
    folder, document = measured
    (row,) = (row for row in document["rows"] if row["kind"] == "variant")
    assert "skip: transformer_blocks" in row["spec_text"]
    assert 0 < row["cost"]["parameters_after"] < row["cost"]["parameters_before"]
    result = surgery_command("report", folder, "--out", tmp_path / "page.html")
    assert (result.exit_code, result.stderr) == (0, ""), "nothing is missing"
    page = (tmp_path / "page.html").read_text()
    assert base64.b64encode(row["spec_text"].encode()).decode() in page
    assert page.count("data:image/webp") == 3 * 4, "four prompts"


def test_compiling_alone_changes_nothing(measured):
    """The unchanged graph is at zero wherever it is paired with the baseline."""
    document = from_finite(copy.deepcopy(measured[1]))
    unchanged, skipped = scores_of(document, "no-op"), scores_of(document, "skip")
    for metric, exact in (("SSIM", 1.0), ("denoising error", 0.0), ("feature cosine", 1.0)):
        assert unchanged[metric]["value"] == exact
        assert skipped[metric]["value"] != exact
    assert unchanged["PSNR"]["value"] == float("inf")
    difference = unchanged["text score x 100"]["difference_to_baseline"]
    assert (difference["value"], difference["low"], difference["high"]) == (0.0, 0.0, 0.0)
    baseline = scores_of(document, "baseline")
    for metric in ("KID x 1000", "precision", "recall", "text score x 100"):
        assert unchanged[metric]["value"] == baseline[metric]["value"]


def test_the_variant_lies_between_the_controls(measured):
    _, document = measured
    rows = {name: scores_of(document, name) for name in ("reseeded", "skip", "noise")}
    for metric in ("SSIM", "PSNR", "feature cosine", "text score x 100"):
        assert rows["noise"][metric]["value"] < rows["skip"][metric]["value"] < rows["reseeded"][metric]["value"]


def test_every_number_says_what_it_was_made_of(measured):
    _, document = measured
    for row in document["rows"]:
        for score in row["scores"].values():
            assert score["num"] == len(PROMPTS) and score["method"] and score["made_with"]
    recipe = document["recipe"]
    assert recipe["prompts"] == PROMPTS and recipe["versions"] and recipe["model"]["weights"]
    assert any(name.startswith("vae/") for name in recipe["components"])
    judge = recipe["judges"]["pictures"][0]
    assert judge["extractor"] == "emoji-features-v1" and judge["reference"]["num"] > 1000
    assert len(judge["digest"]) == len(judge["reference"]["sha256"]) == 64 and recipe["judges"]["text"]
    assert all(len(row.get("denoising_error_by_bin", (0, 0))) == 2 for row in document["rows"])


def test_the_baseline_is_that_of_generate(measured, surgery_command, here):
    """No edit leaks into it: the stock pipeline draws the same pictures alone."""
    folder, _ = measured
    drawn = surgery_command(
        "generate", "demo", "--prompts", "prompts.txt", "--steps", "2", "--batch-size", "2", "--out", "plain"
    )
    assert drawn.exit_code == 0, drawn.output
    for number in range(4):
        with (
            Image.open(here / "plain" / "baseline" / f"{number:04d}.png") as plain,
            Image.open(folder / "pictures" / "baseline" / f"{number:05d}.png") as own,
        ):
            assert plain.convert("RGB").tobytes() == own.convert("RGB").tobytes()


def test_an_interrupted_run_goes_on(here, surgery_command, monkeypatch):
    arguments = (
        "evaluate",
        SKIP,
        "--prompts",
        "prompts.txt",
        "--out",
        "out",
        *QUICK,
        "--bins",
        "1",
        "--extractor",
        "none",
    )
    drawn = []
    draw = rows.draw_pictures

    def counted(pipe, prompts, **options):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(prompts)
        return draw(pipe, prompts, **options)

    monkeypatch.setattr(rows, "draw_pictures", counted)
    stopped = surgery_command(*arguments, "--clip", "none")
    assert stopped.exit_code == 130
    assert "interrupted: the pictures that were drawn are kept in out; the same command goes on" in stopped.stderr
    assert len(list((here / "out" / "store" / "pictures").rglob("*.png"))) == 6
    again = []
    monkeypatch.setattr(rows, "draw_pictures", lambda *a, **k: again.append(a) or draw(*a, **k))
    result = surgery_command(*arguments, "--clip", "none")
    assert result.exit_code == 0, result.output
    assert len(again) == 2 * 4 - 3  # four rows that a model draws, two batches each, three of them were there
    assert "denoise down" in result.stdout and "controls" in result.stdout
    assert not (here / "out" / "store" / "pictures").exists()


@pytest.mark.slow
def test_a_sweep_is_measured_on_captions_with_their_pictures(here, surgery_command):
    """As the study of PixArt: the captions' pictures are the reference, and noised they are the truth."""
    (here / "pictures").mkdir()
    for number in range(4):
        Image.new("RGB", (80 + 8 * number, 70), (50 * number, 90, 200)).save(here / "pictures" / f"{number}.jpg")
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)]
    captions = [{"image_id": number, "caption": text} for number, text in enumerate(PROMPTS)]
    (here / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    operation = '{replace: {component: "transformer_blocks[{layer}].ff", with: channel_mean}}'
    (here / "each.yaml").write_text(
        f"surgery: v1\nmodel: demo\nvary: {{layer: [3, 7]}}\ncumulative: layer\noperations: [{operation}]\n"
    )
    told = ("--prompts", "captions.json", "--pictures", "pictures", "--crop", "64", "--keep-images", "all")
    result = surgery_command("evaluate", "each.yaml", *told, "--out", "out", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["name"] for row in document["rows"]][:3] == ["baseline", "each layer=3", "each layer=7"]
    assert any("JPEG" in note for note in document["notes"])
    one, both = (scores_of(document, f"each layer={layer}") for layer in (3, 7))
    assert 0 < one["denoising error"]["value"] < both["denoising error"]["value"]
    truth = {row["name"]: row["scores"].get("denoising error to the truth") for row in document["rows"]}
    assert truth["reseeded"] is truth["noise"] is None
    assert truth["no-op"]["difference_to_baseline"]["value"] == 0 != one["denoising error to the truth"]["value"]
    assert len(list((here / "out" / "pictures" / "each layer=3").iterdir())) == 4


def test_the_command_of_the_study_is_one_that_evaluate_takes(surgery_command):
    text = (ROOT / "specs" / "README.md").read_text()
    command = re.search(r"^surgery (evaluate specs/pixart-alpha/.*)$", text, re.MULTILINE)
    arguments = shlex.split(command[1])
    assert (ROOT / arguments[1]).is_file()
    known = surgery_command("evaluate", "--help").stdout
    assert [word for word in arguments if word.startswith("--") and f" {word} " not in known] == []


def test_a_changed_picture_of_the_store_is_no_jpeg_and_of_one_size(tmp_path):
    """What is in the store is read as it is: files that do not belong there are found out."""
    from surgery.errors import InputError

    place = PictureStore(tmp_path).open({"a": 1})
    place.keep((0, 1), [Image.new("RGB", (8 + 8 * number, 8)) for number in range(2)])

    with pytest.raises(
        InputError, match=r"2 sizes are mixed: 8 x 8 px \(.*00000\.png\), 16 x 8 px \(.*00001\.png\); pictures of one"
    ):
        place.read(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml", "--prompts", "prompts.txt"], "absent.yaml"),
        ([SKIP, "--prompts", "absent.txt"], "the prompts absent.txt can't be read"),
        ([SKIP, "--prompts", "empty.txt"], "empty.txt holds no prompt"),
        ([SKIP, "--prompts", "prompts.txt", "--pictures", "."], "--pictures goes with captions in COCO's format"),
        ([SKIP, "--prompts", "prompts.txt", "--reference", "absent"], "absent"),
        ([SKIP, "--prompts", "prompts.txt", "--extractor", "inception"], "weights-inception-2015-12-05-6726825d.pth"),
        ([SKIP, "--prompts", "prompts.txt", "--clip", "ViT-B-32-quickgelu"], "ViT-B-32-quickgelu"),
        ([SWEEP, "--prompts", "prompts.txt", "--max-variants", "11"], "stand for 12 variants, over 11; write smaller"),
        ([f"{SWEEP}#layer=12", "--prompts", "prompts.txt"], 'the variable layer has no value "12"; there are 0, 1, 2'),
        ([SKIP, "--prompts", "prompts.txt", "--call", "nosuch=1"], "takes no argument nosuch"),
    ],
)
def test_bad_input_is_said(here, surgery_command, arguments, message):
    (here / "empty.txt").write_text("\n")
    result = surgery_command("evaluate", *arguments, "--out", "out", *QUICK)
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert "Traceback" not in result.output


def test_two_runs_into_one_folder_are_refused(here, surgery_command):
    with own_folder(here / "out", "evaluate", "", force=False):
        result = surgery_command("evaluate", SKIP, "--prompts", "prompts.txt", "--out", "out", *QUICK)
    assert result.exit_code == 1 and "another run is writing" in result.stderr


def test_a_folder_of_the_users_is_left_as_it_is(here, surgery_command):
    mine = [here / "out" / name for name in ("store/pictures/mine.png", "evaluation.json", "contact_sheet.png")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for options in ((), ("--force",)):
        result = surgery_command("evaluate", SKIP, "--prompts", "prompts.txt", "--out", "out", *QUICK, *options)
        assert result.exit_code == 1
        assert "out is not empty, and `surgery evaluate` did not make it; give another folder" in result.stderr
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert sorted(path for path in (here / "out").rglob("*") if path.is_file()) == sorted(mine)


@pytest.mark.parametrize("changed", [("--seed", "1"), ("--bins", "3"), ("--extractor", "none")])
def test_results_of_another_request_are_not_replaced(measured, surgery_command, changed):
    folder, document = measured
    prompts = folder.parent / "prompts.txt"
    result = surgery_command("evaluate", SKIP, "--prompts", prompts, "--out", folder, *QUICK, *changed)
    assert result.exit_code == 1 and "holds the results of another request; give another folder" in result.stderr
    assert json.loads((folder / "evaluation.json").read_text())["rows"] == document["rows"]


@pytest.mark.parametrize("keep", ["all", "none"])
def test_rows_that_python_is_given_have_pictures_where_these_are_kept(here, keep):
    import surgery

    asked = {"extractors": ("none",), "clip": "none", "bins": 1, "call": {"num_inference_steps": 2}}
    found = surgery.evaluate(SKIP, PROMPTS[:1], here / "out", **asked, keep_images=keep)
    assert len(found.rows) == 5
    for row in found.rows:
        assert (row.pictures is not None) == (keep == "all")
        assert row.pictures is None or len(row.pictures.all_pixels()) == 1
