"""The SD3.5 study as a profile, and models of the real size without memory."""

import functools
from pathlib import Path

import pytest
from built_once import building_once

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module", autouse=True)
def _models_on_meta_are_built_once():
    with building_once():
        yield


@pytest.fixture(scope="session")
def meta_model():
    """Builds the transformer of a folder of tests/configs on the meta device, once."""
    from surgery.anatomy.sources import build_on_meta, find_source

    @functools.cache
    def build(name):
        return build_on_meta(find_source(str(CONFIGS / name / "transformer")))

    return build
