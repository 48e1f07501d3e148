"""requirements.lock: exact versions and hashes of all that pyproject.toml asks for, on every Python it allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def read_lock():
    """Every requirement of the lock, with the text that follows it: its hashes."""
    parts = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    return [(Requirement(part.split("\\\n")[0].strip()), part) for part in parts if "==" in part]


def locked(python):
    """Name -> version, of one Python on Linux."""
    machine = {"python_full_version": f"{python}.0", "python_version": python, "sys_platform": "linux"}
    return {
        canonicalize_name(requirement.name): next(iter(requirement.specifier)).version
        for requirement, _ in read_lock()
        if requirement.marker is None or requirement.marker.evaluate(machine)
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_a_version_that_fits_for_everything_that_is_asked_for(python):
    asked = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]
    versions = locked(python)
    missing = [
        str(one) for one in asked if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"), True)
    ]
    assert missing == [], "`make lock` writes it anew"


def test_the_lock_names_one_exact_version_with_hashes_and_no_place_to_get_it_from():
    for requirement, text in read_lock():
        assert [item.operator for item in requirement.specifier] == ["=="], requirement
        assert "--hash=sha256:" in text, requirement
    assert not re.search(r"://|--(extra-)?index-url|--find-links", (ROOT / "requirements.lock").read_text())


def test_the_extras_that_tests_and_demo_need_are_part_of_dev():
    """All but Ray: what it does is tested without it, and with it where it is installed."""
    extras = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name != "ray"}
    names = {extra: {Requirement(text).name for text in texts} for extra, texts in extras.items()}
    assert set().union(*(names[extra] for extra in names if extra != "dev")) <= names["dev"]
