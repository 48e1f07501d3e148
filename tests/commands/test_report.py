"""`surgery report`: a page from a folder; what is no finished evaluation is told, and nothing is overwritten."""

import json
from pathlib import Path

import pytest
from swept_evaluations import ERROR, SSIM, document_of, variant, write_swept

from surgery.files import hash_file
from surgery.written import Written, write_written

WROTE = "the command that wrote it writes it again"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a small evaluation, as `surgery evaluate` leaves it."""
    monkeypatch.chdir(tmp_path)
    numbers = {SSIM: (0.9, 0.1), ERROR: (0.2, 0.1)}
    rows = [variant(name, name, {}, numbers, share=1.0) for name in ("skip", "reverse")]
    write_swept(Path("out"), document_of(rows), pictures=2)
    mark()
    return tmp_path


def mark(*, is_whole=True):
    """Note all files of the folder as what `evaluate` has written."""
    files = {
        path.relative_to("out").as_posix(): (hash_file(path),) for path in Path("out").rglob("*.*") if path.is_file()
    }
    write_written(Path("out"), "evaluate", Written("key", files, is_whole))


def told(surgery_command, *arguments):
    result = surgery_command("report", *arguments)
    assert result.exit_code == 1 and "Traceback" not in result.stderr, result.output
    return result.stderr.rstrip()


def test_a_page_and_figures_are_written_and_replaced_by_force_alone(here, surgery_command):
    arguments = ("report", "out", "--out", "page.html", "--figures", "figures", "--json")
    result = surgery_command(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["variants"] == 2 and document["files"][0] == "page.html"
    assert {Path(name).suffix for name in document["files"]} == {".html", ".png", ".svg", ".pdf"}
    assert all(Path(name).stat().st_size > 500 for name in document["files"])
    assert document["missing"] == [
        "pictures/baseline holds 2 of the first 12 pictures".replace("pictures", "out/pictures", 1)
    ]
    page = Path("page.html").read_text()
    Path("page.html").write_text("mine")
    assert told(surgery_command, "out", "--out", "page.html") == (
        "page.html is there already; give another file, or --force to replace it"
    )
    assert Path("page.html").read_text() == "mine"
    again = surgery_command("report", "out", "--out", "page.html", "--rank-by", "SSIM", "--force")
    assert again.exit_code == 0 and "missing: out/pictures/baseline holds 2" in again.stderr
    assert Path("page.html").read_text() != page and "ranked by <b>SSIM</b>" in Path("page.html").read_text()


def without(*keys):
    """The evaluation without what lies under these keys."""
    path = Path("out/evaluation.json")
    document = json.loads(path.read_text())
    within = document
    for key in keys[:-1]:
        within = within[key]
    del within[keys[-1]]
    path.write_text(json.dumps(document))


def unfinished():
    """What a run that was stopped while it drew has left."""
    Path("out/evaluation.json").unlink()
    write_written(Path("out"), "evaluate", Written())
    for number in range(2):
        place = Path(f"out/store/pictures/{number}/00000.png")
        place.parent.mkdir(parents=True)
        place.touch()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda: Path("out").rename("away"), "out is not there; give the folder that `surgery evaluate"),
        (lambda: (Path("out").rename("a"), Path("out").touch()), "out is a file; give the folder that"),
        (lambda: Path("out/evaluation.json").unlink(), f"out has lost its evaluation.json; {WROTE}"),
        (
            lambda: Path("out/evaluation.json").write_text('{"rows": [{"na'),
            "the evaluation out/evaluation.json can't be read",
        ),
        (
            lambda: Path("out/evaluation.json").write_text("{}"),
            "out/evaluation.json is no evaluation: `surgery evaluate",
        ),
        (lambda: without("rows", 0, "kind"), "the evaluation out/evaluation.json is damaged: KeyError: 'kind'"),
        (
            lambda: without("rows", 1, "scores", SSIM, "low"),
            "the evaluation out/evaluation.json is damaged: KeyError: 'low'",
        ),
        (lambda: without("recipe", "prompts"), "the evaluation out/evaluation.json is damaged: KeyError: 'prompts'"),
        (lambda: without("notes"), "the evaluation out/evaluation.json is damaged: KeyError: 'notes'"),
        (
            unfinished,
            "out has no evaluation.json yet: 2 pictures are drawn, nothing is scored; the same `surgery evaluate`",
        ),
        (
            lambda: (Path("out/evaluation.json").unlink(), Path("out/.surgery.json").unlink()),
            "out has no evaluation.json; give",
        ),
    ],
    ids=lambda value: None if callable(value) else value[:28],
)
def test_what_is_no_finished_evaluation_is_told(here, surgery_command, break_it, said):
    break_it()
    assert told(surgery_command, "out", "--out", "page.html").startswith(said)
    assert not Path("page.html").exists()


def test_what_was_changed_or_is_gone_is_on_the_page(here, surgery_command):
    Path("out/pictures/skip/00001.png").unlink()
    path = Path("out/evaluation.json")
    path.write_text(path.read_text() + "\n")
    result = surgery_command("report", "out", "--out", "page.html")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:2] == [
        "missing: evaluation.json was changed after it was written",
        "missing: 1 of 12 kept pictures, pictures/skip/00001.png first",
    ]
    assert "evaluation.json was changed after it was written" in Path("page.html").read_text()


def test_a_metric_or_a_name_that_will_not_do_is_told_with_what_would(here, surgery_command):
    assert told(surgery_command, "out", "--out", "page.html", "--rank-by", "FID") == (
        "nothing is called FID in the evaluation; it has text score x 100, SSIM, denoising error"
    )
    assert told(surgery_command, "out", "--out", "page.pdf") == "page.pdf must be named .html"
    assert told(surgery_command, "out", "--out", "page.html", "--figures", "out").startswith("out is not empty")
