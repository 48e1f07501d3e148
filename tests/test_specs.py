"""Every spec that is checked in is planned against the anatomy of its model; nothing is downloaded."""

from pathlib import Path

import pytest

from surgery.anatomy.parts import Anatomy
from surgery.anatomy.sources import inspect
from surgery.demo.location import DEMO_NAME, demo_specs
from surgery.errors import SpecError
from surgery.plan.lower import lower_spec
from surgery.spec.load import load_spec, read_spec

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))


@pytest.fixture(scope="session")
def anatomy_by_model() -> dict[str, Anatomy]:
    """What the models of the specs are made of: the one that comes with the package."""
    return {DEMO_NAME: inspect(DEMO_NAME)}


def test_there_are_specs_and_the_demo_shows_them():
    assert len(SPECS) >= 11
    assert demo_specs() == sorted((ROOT / "specs" / "demo").glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_spec_has_a_title_and_its_plan_changes_its_model(path, anatomy_by_model):
    spec = load_spec(path)
    assert spec.title
    assert spec.model in anatomy_by_model, f"give the tests the anatomy of {spec.model}"
    plan = lower_spec(spec, anatomy_by_model[spec.model])
    assert plan.replacements or not all(schedule.is_identity for schedule in plan.schedules)


def test_no_two_specs_have_the_same_plan(anatomy_by_model):
    specs = [load_spec(path) for path in SPECS]
    assert len({lower_spec(spec, anatomy_by_model[spec.model]).hash for spec in specs}) == len(specs)


def test_a_spec_that_does_not_fit_the_bundled_model_is_refused(anatomy_by_model):
    too_high = (ROOT / "specs" / "demo" / "skip.yaml").read_text().replace("[5:8]", "[12]")
    with pytest.raises(SpecError, match="there is no layer 12; transformer_blocks has layers 0 to 11"):
        lower_spec(read_spec(too_high), anatomy_by_model[DEMO_NAME])
