"""One name everywhere: the operations of the language are the same set wherever they are listed."""

import re
from pathlib import Path
from typing import get_args

import pytest

from surgery.spec.load import load_spec
from surgery.spec.operations import AnyOperation
from surgery.spec.places import Faults
from surgery.spec.read_operations import OperationReader

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))
NAMES = {operation.__name__.lower() for operation in get_args(AnyOperation)}


def operation_of_file(path: Path) -> str:
    """`parallel_looped.yaml` -> `parallel`."""
    return path.stem.split("_")[0]


def operations_of_table(readme: str) -> set[str]:
    """The operations that the rows of the README's language table begin with."""
    return set(re.findall(r"^\| `([a-z]+): ", readme, flags=re.MULTILINE))


def test_there_are_eight_operations():
    assert len(NAMES) == 8


def test_the_reader_reads_the_operations_of_the_union():
    assert set(OperationReader({}, Faults("spec.yaml")).readers) == NAMES


def test_every_operation_has_a_spec_that_shows_it_on_the_bundled_model():
    assert {operation_of_file(path) for path in (ROOT / "specs" / "demo").glob("*.yaml")} == NAMES


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_spec_is_named_after_its_operations(path):
    used = {type(operation).__name__.lower() for operation in load_spec(path).operations}
    assert used == {operation_of_file(path)}


def test_the_readme_explains_every_operation():
    assert operations_of_table((ROOT / "README.md").read_text()) == NAMES


def test_an_operation_that_the_readme_forgets_is_noticed():
    readme = (ROOT / "README.md").read_text()
    shorter = "\n".join(line for line in readme.splitlines() if not line.startswith("| `shuffle: "))
    assert operations_of_table(shorter) == NAMES - {"shuffle"}
