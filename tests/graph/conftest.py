"""Plans as they are written."""

import pytest
from built_once import reading_once
from tiny import changed_models

from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec


@pytest.fixture(scope="session", autouse=True)
def _nobody_changes_the_shared_models():
    yield
    assert changed_models() == []


@pytest.fixture(scope="module", autouse=True)
def _anatomies_are_read_once():
    """How they are read is seen in tests/anatomy; the forward of each variant is traced by itself."""
    with reading_once():
        yield


@pytest.fixture(scope="session")
def plan_of():
    """The plan of some operations, written as the items of a spec's list."""

    def plan(operations, anatomy, means=None):
        text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
        return lower_spec(read_spec(text if operations else "surgery: v1\noperations: []"), anatomy, means)

    return plan
