"""What all tests share.

Modules of this folder are imported by their plain names (`pythonpath` in pyproject.toml): another installed package
claims the name `tests`.
"""

import functools
import gc
import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
from anatomies import by_name
from hypothesis import settings
from typer.main import get_command

from surgery.anatomy.anatomy import Anatomy

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")
gc.set_threshold(50_000)  # not 700: tracing makes so many objects that looking for dead ones took a tenth of the time


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """No test reads what another run has kept, or leaves anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SURGERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """A run of the command line in this process does not make the parsers of all commands anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(get_command))
        yield


@pytest.fixture
def nothing_is_sought(monkeypatch) -> None:
    """Example inputs of classes that nothing is known of are not looked for, which takes ten seconds and finds none."""
    monkeypatch.setattr("surgery.calls.example_inputs.find_call", lambda *_: None)


@pytest.fixture(scope="session")
def anatomies() -> dict[str, Anatomy]:
    """The samples of tests/anatomies.py: pixart, sd3, flux."""
    return by_name()


@pytest.fixture(scope="session")
def fuzz() -> ModuleType:
    """tests/fuzz.py."""
    return importlib.import_module("fuzz")


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """tests/profiles_made.py."""
    return importlib.import_module("profiles_made")


@pytest.fixture(scope="session")
def study() -> ModuleType:
    """tests/sd35_large.py."""
    return importlib.import_module("sd35_large")


@pytest.fixture(scope="session")
def run():
    """The output tensor of a model without gradients."""
    import torch

    def call(model, kwargs):
        with torch.no_grad():
            return model(**kwargs).sample

    return call
