"""What all tests share. Modules beside are loaded by path: another installed package claims the name `tests`."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

from surgery.anatomy.parts import Anatomy

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """No test reads what another run has kept, or leaves anything in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SURGERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def load_beside(file: str) -> ModuleType:
    """A module of this folder."""
    location = importlib.util.spec_from_file_location(f"beside_tests_{Path(file).stem}", Path(__file__).parent / file)
    assert location is not None and location.loader is not None
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def anatomies() -> dict[str, Anatomy]:
    """The samples of tests/anatomies.py: pixart, sd3, flux."""
    return load_beside("anatomies.py").by_name()


@pytest.fixture(scope="session")
def fuzz() -> ModuleType:
    """tests/fuzz.py."""
    return load_beside("fuzz.py")


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """tests/profiles_made.py."""
    return load_beside("profiles_made.py")


@pytest.fixture
def own_module(monkeypatch) -> ModuleType:
    """Extractors of torch-fidelity's kind, in a module named `own_extractors`."""
    module = load_beside("own_extractors.py")
    module.__name__ = "own_extractors"
    monkeypatch.setitem(sys.modules, "own_extractors", module)
    return module
