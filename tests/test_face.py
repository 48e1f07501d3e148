"""The face of the package: what `surgery.X` is, is said in one place, found by type checkers, and told of in words."""

import ast
import importlib
from pathlib import Path

import pytest

import surgery

TREE = ast.parse(Path(surgery.__file__).read_text())
PUBLIC = [name for name in surgery.__all__ if name != "__version__"]


def homes_for_type_checkers(tree: ast.Module) -> dict[str, str]:
    """The names that are imported under TYPE_CHECKING as themselves, and from where."""
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname: node.module for node in imports for alias in node.names if alias.asname == alias.name}


def test_all_three_lists_of_public_names_agree():
    assert homes_for_type_checkers(TREE) == surgery._HOMES
    assert sorted(surgery.__all__) == sorted([*surgery._HOMES, "__version__"])
    assert len(set(surgery.__all__)) == len(surgery.__all__)


def test_dir_lists_all_public_names():
    assert set(surgery.__all__) <= set(dir(surgery))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_what_its_home_defines_and_is_documented(name):
    value = getattr(surgery, name)
    assert value.__module__ == surgery._HOMES[name]
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")  # which a dataclass writes for itself


def test_a_function_says_what_it_raises():
    for name in PUBLIC:
        value = getattr(surgery, name)
        if not isinstance(value, type):
            assert "\n    Raises:\n" in value.__doc__, name


def test_every_error_of_the_package_is_public():
    errors = importlib.import_module("surgery.errors")
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert kinds <= set(surgery.__all__)


def test_type_checkers_may_read_the_package():
    assert Path(surgery.__file__).with_name("py.typed").is_file()


def test_another_name_is_not_there():
    with pytest.raises(AttributeError, match="module 'surgery' has no attribute 'aply'"):
        surgery.aply  # noqa: B018
