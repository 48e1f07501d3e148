"""Reports of a few models."""

import pytest
from built_once import building_once


@pytest.fixture(scope="module", autouse=True)
def _models_are_built_and_traced_once():
    with building_once():
        yield
