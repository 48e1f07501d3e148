"""`surgery.check`: one plan, however the spec and the model are given; all plans of a sweep; all faults at once."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_anatomy, tiny_model

import surgery
from surgery.anatomy.known import recall_demo
from surgery.plan.planned import plan_spec_file
from surgery.profiles.means import write_means

SKIP = "surgery: v1\noperations:\n  - skip: transformer_blocks[2]\n"
SWEEP = "surgery: v1\nmodel: demo\nvary:\n  n: [2, 3]\noperations:\n  - skip: 'transformer_blocks[{n}]'\n"
MEAN = "transformer_blocks.1.ff"
WITH_MEAN = "surgery: v1\noperations:\n  - replace: {component: 'transformer_blocks[1].ff', with: mean}\n"


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "spec.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_plan_is_one_however_spec_and_model_are_given(write):
    path = write(SKIP)
    plans = [
        surgery.check(spec, model)
        for spec in (path, str(path), surgery.load_spec(path))
        for model in (tiny_model("pixart"), tiny_anatomy("pixart"))
    ]
    assert set(plans) == {plans[0]}
    assert plans[0].schedules[0].removed == (2,)


def test_the_model_that_is_named_counts_unless_another_is_given(write):
    path = write(SKIP.replace("v1\n", "v1\nmodel: demo\n"))
    assert surgery.check(path) == surgery.check(path, "demo") == plan_spec_file(path).plan
    assert surgery.check(path, tiny_anatomy("pixart")).schedules[0].num_blocks == 5
    with pytest.raises(surgery.InputError, match="names no model"):
        surgery.check(write(SKIP))


def test_the_faults_of_language_and_model_come_together(write):
    path = write(f"{SKIP.replace('[2]', '[70]')}  - skp: x\n")
    with pytest.raises(surgery.SpecError, match="there is no layer 70") as caught:
        surgery.check(path, recall_demo())
    places = [fault.removeprefix(f"{path}:").partition(":")[0] for fault in caught.value.faults]
    assert sorted(set(places)) == ["3", "4"] and places == sorted(places)


def test_a_sweep_has_a_plan_for_each_variant_and_check_says_where_they_are(write):
    path = write(SWEEP)
    plans = surgery.check_sweep(path)
    assert {name: plan.schedules[0].removed for name, plan in plans.items()} == {"spec n=2": (2,), "spec n=3": (3,)}
    with pytest.raises(surgery.InputError, match=r"spec.yaml is a sweep .*; use surgery.check_sweep"):
        surgery.check(path)
    single = write(SKIP, "one.yaml")
    assert surgery.check_sweep(single, "demo") == {"one": surgery.check(single, "demo")}


def test_means_are_those_of_the_spec_or_those_given(write, tmp_path):
    path, own = write(WITH_MEAN), write(WITH_MEAN.replace("v1\n", "v1\nprofile: a.safetensors\n"), "own.yaml")
    for name, value in (("a", 1.0), ("b", 2.0)):
        write_means({MEAN: {"hidden_states": np.full(160, value)}}, tmp_path / f"{name}.safetensors")
    first, second = (surgery.check(path, "demo", profile=tmp_path / f"{name}.safetensors") for name in "ab")
    assert surgery.check(own, "demo") == first != second
    assert surgery.check(own, "demo", profile=str(tmp_path / "b.safetensors")) == second
    with pytest.raises(surgery.SpecError, match="mean"):
        surgery.check(path, "demo")
