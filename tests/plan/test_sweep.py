"""Sweeps: each point is the spec that one would write by hand."""

import pytest

from surgery.anatomy.sources import inspect
from surgery.errors import InputError, SpecError
from surgery.plan.lower import lower_spec
from surgery.plan.planned import plan_points, plan_spec
from surgery.plan.sweep import expand_sweep
from surgery.spec.load import load_spec, read_spec

HEAD = "surgery: v1\n"


@pytest.fixture(scope="module")
def anatomy():
    return inspect("demo")


def points(text, anatomy):
    """The name and the plan's text of each variant."""
    return {
        spec.point_text: lower_spec(spec, anatomy).text
        for spec in expand_sweep(read_spec(HEAD + text, file="sweep.yaml"), anatomy)
    }


def by_hand(operations, anatomy):
    return lower_spec(read_spec(f"{HEAD}operations: [{operations}]\n"), anatomy).text


def test_a_spec_without_vary_is_its_only_point(anatomy):
    spec = read_spec(HEAD + 'operations: [{skip: "transformer_blocks[3]"}]\n')
    assert expand_sweep(spec, anatomy) == (spec,)
    assert spec.name == "spec"


def test_the_last_variable_runs_fastest(anatomy):
    text = 'vary: {s: [1, 2], by: [0, 2]}\noperations: [{scale: {layers: "transformer_blocks[{s}]", by: "{by}"}}]\n'
    found = points(text, anatomy)
    assert list(found) == ["s=1 by=0", "s=1 by=2", "s=2 by=0", "s=2 by=2"]
    assert found["s=2 by=0"] == by_hand('{scale: {layers: "transformer_blocks[2]", by: 0}}', anatomy)


def test_a_selector_stands_for_its_layers(anatomy):
    found = points('vary: {s: "transformer_blocks[4:7]"}\noperations: [{skip: "transformer_blocks[{s}]"}]\n', anatomy)
    assert list(found) == ["s=4", "s=5", "s=6"]
    assert found["s=5"] == by_hand('{skip: "transformer_blocks[5]"}', anatomy)


def test_cases_are_named(anatomy):
    text = (
        'vary:\n  s: [2]\n  how:\n    skip: [{skip: "transformer_blocks[{s+1}:{9-s}]"}]\n'
        '    turned: [{reverse: "transformer_blocks[{s+1}:{9-s}]"}]\noperations: [how]\n'
    )
    found = points(text, anatomy)
    assert list(found) == ["s=2 how=skip", "s=2 how=turned"]
    assert found["s=2 how=turned"] == by_hand('{reverse: "transformer_blocks[3:7]"}', anatomy)


def test_cumulative_operations_add_up_along_their_variable_alone(anatomy):
    text = (
        "vary: {s: [1, 3, 5], by: [0, 2]}\ncumulative: s\n"
        'operations: [{scale: {layers: "transformer_blocks[{s}]", by: "{by}"}}]\n'
    )
    found = points(text, anatomy)
    scaled = ", ".join(f'{{scale: {{layers: "transformer_blocks[{s}]", by: 2}}}}' for s in (1, 3))
    assert found["s=3 by=2"] == by_hand(scaled, anatomy)
    assert found["s=1 by=0"] == by_hand('{scale: {layers: "transformer_blocks[1]", by: 0}}', anatomy)


SWEEP = """surgery: v1
groups: {middle: "transformer_blocks[4:8]"}
vary:
  s: transformer_blocks[2:4]
  how:
    skip: [{skip: "transformer_blocks[{s}]"}, {scale: {layers: middle, by: 0.5}, when: {steps: "5:8"}}]
    off: [{replace: {component: "transformer_blocks[{s}].attn1", with: zero}}]
cumulative: s
operations: [how]
"""


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def test_a_point_by_its_name_is_that_of_the_whole_sweep(anatomy, sweep_file):
    every = plan_points(load_spec(sweep_file), anatomy)
    assert len(every) == 4
    for point in every:
        named = plan_spec(load_spec(point.spec.address), anatomy)
        assert (named.spec.point, named.plan) == (point.spec.point, point.plan)


def test_the_text_of_a_point_is_a_spec_of_its_own(anatomy, sweep_file):
    """Two roads: a point of the sweep, and the text that is written of it, read as any spec."""
    for point in plan_points(load_spec(sweep_file), anatomy):
        alone = read_spec(point.text)
        assert alone.sweep is None
        assert plan_spec(alone, anatomy).plan == point.plan


def test_a_layer_that_a_selector_does_not_have_is_no_point(anatomy, sweep_file):
    with pytest.raises(InputError, match=r"#s=7,how=off': the variable s has no value \"7\"; there are 2, 3"):
        plan_spec(load_spec(f"{sweep_file}#s=7,how=off"), anatomy)


def test_a_value_that_stands_twice_names_no_point(anatomy, sweep_file):
    sweep_file.write_text(HEAD + 'vary: {s: [1, 1]}\noperations: [{skip: "transformer_blocks[{s}]"}]\n')
    with pytest.raises(InputError, match=r"the variable s has the value 1 2 times; write each value once"):
        plan_spec(load_spec(f"{sweep_file}#s=1"), anatomy)


def test_points_that_do_not_fit_the_model_are_faults(anatomy):
    sweep = read_spec(HEAD + 'vary: {s: "range(10, 14)"}\noperations: [{skip: "transformer_blocks[{s}]"}]\n')
    variants = expand_sweep(sweep, anatomy)
    lower_spec(variants[1], anatomy)
    with pytest.raises(SpecError, match=r"there is no layer 12; transformer_blocks has layers 0 to 11"):
        lower_spec(variants[2], anatomy)


def test_a_selector_that_fits_nothing_is_a_fault(anatomy):
    sweep = read_spec(HEAD + 'vary: {s: "transformer_block[0:3]"}\noperations: [{skip: "transformer_blocks[{s}]"}]\n')
    with pytest.raises(SpecError, match=r"3?:\d+:\d+: .*transformer_block"):
        expand_sweep(sweep, anatomy)


def test_sweeps_that_nobody_means_are_refused(anatomy):
    sweep = read_spec(
        HEAD + 'vary: {a: range(200), b: range(200)}\noperations: [{skip: "transformer_blocks[{a*0+b*0}]"}]\n'
    )
    with pytest.raises(InputError, match="40,000 variants; write a sweep of at most 10,000"):
        expand_sweep(sweep, anatomy)
