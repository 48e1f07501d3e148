"""The guide for writers of specs: its recipes are plans of the bundled model, its faults are those of the program."""

import re
from pathlib import Path

import pytest

from surgery.anatomy.known import recall_demo
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "specs" / "README.md").read_text()
RECIPES = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
FAULTS = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", GUIDE.partition("## Faults")[2], re.MULTILINE)
MESSAGES = "\n".join(path.read_text() for path in (ROOT / "tests" / "messages").glob("*.txt"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda text: text.splitlines()[-1].strip())
def test_a_recipe_is_a_plan_of_the_bundled_model(recipe):
    plan = lower_spec(read_spec(recipe), recall_demo())
    assert plan.is_identity == ("operations: []" in recipe)


@pytest.mark.parametrize("fragment", FAULTS)
def test_a_fault_of_the_table_is_told_in_these_words(fragment):
    assert fragment in MESSAGES


def test_there_are_recipes_for_all_operations_and_many_faults():
    assert len(RECIPES) >= 11 and len(FAULTS) >= 18
    for name in ("skip", "repeat", "reverse", "shuffle", "order", "parallel", "scale", "replace"):
        assert any(f"- {name}:" in recipe for recipe in RECIPES), name


def test_every_folder_of_specs_is_explained_and_every_link_leads_somewhere():
    for folder in (path for path in (ROOT / "specs").iterdir() if path.is_dir()):
        assert f"`{folder.name}/`" in GUIDE
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", GUIDE):
        assert (ROOT / "specs" / target).exists()
