"""The README and the pages of docs/ run: commands give the text that is shown, specs are valid, Python works, what is
named exists."""

import contextlib
import io
import itertools
import re
import shlex
import shutil
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from built_once import building_once
from draft_figures import drawing_drafts
from typer.testing import CliRunner

import surgery.bundled
import surgery.publish.known_arguments
from surgery.anatomy.sources import inspect
from surgery.bundled import DEMO_CALL
from surgery.commands.main import app
from surgery.plan.lower import lower_spec
from surgery.plan.sweep import expand_sweep
from surgery.spec.load import load_spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"yaml": 8, "bash": 26, "python": 8}  # blocks of all pages, by language
FAULT = re.compile(r"^\S+\.yaml:\d+:\d+: ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block: its language, text and place, and the text block that follows it at once, if any."""

    language: str
    text: str
    place: str
    shown: str | None = None


def blocks_of(text: str, page: str = "README.md") -> list[Block]:
    """All code blocks in order; a `text` block is what the `bash` or `python` block right before it prints."""
    matches = list(BLOCK.finditer(text))
    blocks = []
    for match, after in itertools.zip_longest(matches, matches[1:]):
        follows = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        shown = after[2] if follows and after is not None else None
        place = f"{page}:{text.count(chr(10), 0, match.start()) + 1}"
        blocks.append(Block(match[1], match[2], place, shown))
    return blocks


def run_blocks(blocks: list[Block]) -> None:
    """Write the specs, run the commands and the Python, in order, in the present folder; compare what they print."""
    namespace: dict[str, Any] = {}
    for block in blocks:
        match block.language:
            case "yaml":
                write_spec(block)
            case "bash":
                printed = "".join(run_command(line, shown=block.shown) for line in block.text.splitlines())
                compare(block, printed)
            case "python":
                output = io.StringIO()
                with contextlib.redirect_stdout(output):
                    exec(compile(block.text, block.place, "exec"), namespace)
                compare(block, output.getvalue())
            case language:
                assert language == "text", f"{block.place}: {language or 'no language'} is not run"


def write_spec(block: Block) -> None:
    """A YAML block begins with a comment that names its file, so that lines in messages are those of the block."""
    name = re.match(r"# (\w+\.yaml)\n", block.text)
    assert name is not None, f"{block.place}: the block names no file"
    Path(name[1]).write_text(block.text)
    load_spec(name[1])


def run_command(line: str, *, shown: str | None) -> str:
    """What one `surgery` command prints, with standard error where faults are shown; other programs are not run."""
    program, *arguments = shlex.split(line)
    if program == "make":
        assert set(arguments) <= make_targets(), line
        return ""
    if program == "pip":
        assert arguments == ["install", "-e", "."] and (ROOT / "pyproject.toml").exists(), line
        return ""
    assert program == "surgery", f"{line}: this test can't run {program}"
    result = CliRunner().invoke(app, arguments)
    has_faults = shown is not None and FAULT.search(shown) is not None
    assert result.exit_code == int(has_faults), f"{line}: exit status {result.exit_code}\n{result.output}"
    return result.stdout + (result.stderr if has_faults else "")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def compare(block: Block, printed: str) -> None:
    if block.shown is not None:
        assert printed.rstrip() == block.shown.rstrip(), f"{block.place} prints something else"


def tree_of(readme: str) -> list[str]:
    """The paths of the tree, two spaces a level, each followed by what it is for."""
    tree = next(block.text for block in blocks_of(readme) if "\nsurgery/\n" in block.text)
    folders: list[str] = []
    paths = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [line.split()[0]]
        paths.append("".join(folders))
    return paths


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with copies of the specs and the exports."""
    import diffusers  # noqa: F401  (its logger keeps the standard error it is born with; CliRunner's are closed)

    for name in ("specs", "exports"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Two steps a picture, models traced once, figures in draft: what is printed does not hang on that."""
    call = {**DEMO_CALL, "num_inference_steps": 2}
    for module in (surgery.bundled, surgery.publish.known_arguments):
        monkeypatch.setattr(module, "DEMO_CALL", call)
    with building_once(), drawing_drafts():
        yield


@pytest.mark.usefixtures("quick")
def test_every_block_runs_and_prints_what_is_shown(folder):
    pages = [blocks_of(text, page) for page, text in PAGES.items()]
    blocks = list(itertools.chain(*pages))
    assert sum(block.shown is not None for block in blocks) >= 6
    assert Counter(block.language for block in blocks if block.language != "text") == RUN
    for of_page in pages:  # each by itself for who reads it, and all in one folder: nothing is made twice
        run_blocks(of_page)
    assert (folder / "out" / "apple" / "contact_sheet.png").is_file()
    assert (folder / "apple.png").is_file()
    assert (folder / "out" / "plots" / "heatmaps_transformer_blocks.png").is_file()
    assert load_spec(folder / "suggested.yaml").model == "demo"


def test_the_specs_are_plans_but_for_the_one_that_shows_faults(folder):
    pages = ("README.md", "docs/language.md")
    blocks = [block for page in pages for block in blocks_of(PAGES[page], page) if block.language == "yaml"]
    run_blocks(blocks)
    anatomy = inspect("demo")
    valid = [path for path in sorted(folder.glob("*.yaml")) if path.name != "faulty.yaml"]
    assert [path.stem for path in valid] == ["each", "middle", "painters", "selections", "shuffles", "windows"]
    for variant in (variant for path in valid for variant in expand_sweep(load_spec(path), anatomy)):
        assert lower_spec(variant, anatomy).hash


def test_every_path_of_the_tree_exists_and_every_package_is_in_it():
    paths = tree_of(PAGES["docs/tree.md"])
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []
    packages = {f"surgery/{path.parent.name}/" for path in (ROOT / "surgery").glob("*/__init__.py")}
    assert packages == {path for path in paths if path.startswith("surgery/") and path.endswith("/")} - {"surgery/"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page):
    found = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", PAGES[page])
    targets = [((ROOT / page).parent / target if target else ROOT / page, anchor) for target, anchor in found]
    assert [target for target, _ in targets if not target.exists()] == []
    assert [f"{target}{anchor}" for target, anchor in targets if anchor and anchor not in anchors_of(target)] == []


def anchors_of(page: Path) -> set[str]:
    """The places of a page that links lead to: its headings in small letters, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    named = re.findall(r"`((?:surgery|tests|docs|specs|benchmarks)/[\w./-]+)(?:::(\w+))?`", PAGES[page])
    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [f"{path}::{name}" for path, name in named if name and name not in (ROOT / path).read_text()] == []


def test_every_page_is_in_the_index():
    index = PAGES["docs/README.md"]
    assert {f"docs/{target}" for target in re.findall(r"\]\(([\w-]+\.md)\)", index)} == PAGES.keys() - {
        "README.md",
        "docs/README.md",
    }
    assert "](docs/README.md)" in README


def test_the_changelog_knows_the_version():
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "surgery" / "version.py").read_text(), re.MULTILINE)
    assert version is not None
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"] == "README.md"


# Readmes that are wrong on purpose.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\nsurgery check specs/demo/skip.yaml\n```\n\n```text\nall well\n```\n", "prints something else"),
        ("```bash\nsurgery check specs/demo/skp.yaml\n```\n", "exit status 1"),
        ("```bash\nmake coffee\n```\n", "make coffee"),
        ("```bash\ncurl x.org\n```\n", "can't run curl"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "prints something else"),
        ("```yaml\nsurgery: v1\n```\n", "names no file"),
        ("```\nsurgery demo\n```\n", "no language is not run"),
    ],
    ids=["output", "status", "make", "unknown program", "python", "spec without a name", "no language"],
)
@pytest.mark.usefixtures("folder")
def test_a_readme_that_is_wrong_is_noticed(text, message):
    with pytest.raises(AssertionError, match=re.escape(message)):
        run_blocks(blocks_of(text))


def test_the_tree_of_a_readme_is_read_with_its_folders():
    assert tree_of("```text\nMakefile  a\nsurgery/\n  plan/  b\ntests/  c\n```\n") == [
        "Makefile",
        "surgery/",
        "surgery/plan/",
        "tests/",
    ]
