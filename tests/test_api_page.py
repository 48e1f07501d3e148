"""docs/api.md is what the docstrings say today, and holds every public name; nothing is imported for it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def render_api() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_api", ROOT / "docs" / "render_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCES = {
    "__init__": '_HOMES = {"Box": "surgery.things", "BoxError": "surgery.things", "open_box": "surgery.things"}',
    "things": '''
class BoxError(Exception):
    """A box is shut."""
class Box:
    """A box."""
    width: int
    lid: str = field(default="flat")
    def _hidden(self): ...
    @property
    def area(self) -> int:
        """In square metres."""
    def fill(self, what: str, *, times: int = 1) -> None:
        """Put it in."""
def open_box(box: Box, *tools: str, force: bool = False, **rest: int) -> list[str]:
    """What is in it.

    Raises:
        BoxError, OSError: it is shut,
            or not there.
        ValueError: it is a: b.
    """
''',
    "dit/__init__": '''
"""For crates."""
from torch import Tensor as Tensor
from surgery.dit.crates import CRATES as CRATES
from surgery.dit.crates import nail as nail
''',
    "dit/crates": 'CRATES = 3\ndef nail(crate: str) -> None:\n    """Shut it."""\n',
    "testing": '"""For tests."""\nBOXES: list[int] = []\n_HIDDEN: int = 0\nlater = 1\n',
}
SHOWN = """
## Functions

### `surgery.open_box`

```text
open_box(box: Box, *tools: str, force: bool = False, **rest: int) -> list[str]
```

What is in it.

**Raises**

- `BoxError`, `OSError`: it is shut, or not there.
- `ValueError`: it is a: b.

## Data

### `surgery.Box`

```text
class Box(width: int, lid: str = 'flat')
```

A box.

#### `Box.area`

```text
area: int
```

In square metres.

#### `Box.fill`

```text
fill(what: str, *, times: int = 1) -> None
```

Put it in.

## What they hold

## Errors

### `surgery.BoxError`

```text
class BoxError
```

A box is shut.

## Profiles, and loops of your own

## surgery.dit

For crates.

### `surgery.dit.nail`

```text
nail(crate: str) -> None
```

Shut it.

## surgery.testing

For tests.

### `surgery.testing.BOXES`

```text
BOXES: list[int]
```
"""


@pytest.fixture
def tree(tmp_path, monkeypatch, render_api) -> Path:
    """A small package, none of whose names are listed by hand."""
    (tmp_path / "surgery" / "dit").mkdir(parents=True)
    for name, text in SOURCES.items():
        (tmp_path / "surgery" / f"{name}.py").write_text(text)
    for listed in ("HELD", "FURTHER"):
        monkeypatch.setattr(render_api, listed, ())
    return tmp_path


def test_the_page_is_what_the_docstrings_say(render_api):
    assert render_api.render() == PAGE, "the docstrings have changed: run make docs"


def test_signatures_sections_and_members_are_shown_and_what_is_hidden_is_not(render_api, tree):
    assert render_api.render(tree).removeprefix(render_api.HEAD).strip() == SHOWN.strip()


def test_a_long_signature_has_a_line_for_each_parameter(render_api):
    parameters = [f"parameter_{number}: int" for number in range(6)]
    assert render_api.signature("long", parameters).splitlines() == [
        "long(",
        *(f"    {one}," for one in parameters),
        ")",
    ]


def test_a_name_that_nobody_defines_is_refused(render_api, tree):
    (tree / "surgery" / "__init__.py").write_text('_HOMES = {"Lid": "surgery.things"}')
    with pytest.raises(LookupError, match=r"surgery\.things defines no Lid"):
        render_api.render(tree)


def test_every_section_but_those_of_types_says_something():
    entries = PAGE.split("\n### ")[1:]
    assert len(entries) > 40
    silent = [entry.splitlines()[0] for entry in entries if not entry.split("```\n")[1].strip()]
    assert silent == ["`surgery.testing.TINY_MODELS`", "`surgery.testing.RETURNED_STREAMS`"]
