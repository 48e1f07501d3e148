"""Sweeps: each point is the spec that one would write by hand."""

import json

import pytest

from surgery.anatomy.sources import inspect
from surgery.errors import InputError, SpecError
from surgery.plan.lower import lower_spec
from surgery.plan.planned import plan_points, plan_spec
from surgery.plan.sweep import expand_sweep
from surgery.profiles.profile_file import write_profile
from surgery.profiles.suggestion import layer_influence
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


ALONG = 'vary: {s: [1, 3, 5], by: [0, 2]}\ncumulative: CUMULATIVE\noperations: [{scale: {layers: "transformer_blocks[{s}]", by: "{by}"}}]\n'  # noqa: E501


def layers_in_order(folder, cumulative, anatomy):
    """The value of s whose operation comes first, second, third, by that of `by`."""
    spec = read_spec(HEAD + ALONG.replace("CUMULATIVE", cumulative), file="sweep.yaml", folder=folder)
    longest = {}
    for point in expand_sweep(spec, anatomy):
        layers = [operation.layers[0].parts[0].value for operation in point.operations]
        assert layers[-1] == dict(point.point)["s"], "a point ends with its own operations"
        longest[dict(point.point)["by"]] = max(longest.get(dict(point.point)["by"], []), layers, key=len)
    return longest


def evaluation_of(errors, **more):
    """Rows of an evaluation: the denoising error by the values of its variables."""
    scores = {
        "SSIM": {"value": 0.5, "key": "ssim", "higher_is_better": True, "paired_with_the_baseline": True},
        "FID": {"value": 0.5, "key": "frechet", "higher_is_better": False, "paired_with_the_baseline": False},
    }
    error = {"key": "denoising error", "higher_is_better": False, "paired_with_the_baseline": True}
    rows = [
        {"name": str(point), "kind": "variant", "point": dict(point), **more}
        | {"scores": {**scores, "denoising error": {**error, "value": value}}}
        for point, value in errors.items()
    ]
    return {"rows": [{"name": "baseline", "kind": "baseline", "scores": {}}, *rows]}


def test_operations_add_up_from_either_end(anatomy, tmp_path):
    """Backward is forward over the values written the other way round."""
    for cumulative in ("s", "{over: s}", "{over: s, order: forward}"):
        assert layers_in_order(tmp_path, cumulative, anatomy) == {0: [1, 3, 5], 2: [1, 3, 5]}
    assert layers_in_order(tmp_path, "{over: s, order: backward}", anatomy) == {0: [5, 3, 1], 2: [5, 3, 1]}


def test_operations_add_up_by_the_damage_of_an_evaluation(anatomy, tmp_path):
    """By the denoising error of single layers, those of the same other variables where it has them."""
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "evaluation.json"
    path.write_text(json.dumps(evaluation_of({(("s", 1),): 0.3, (("s", 3),): 0.1, (("s", 5),): 0.2})))
    assert layers_in_order(tmp_path, "{over: s, order: run}", anatomy) == {0: [3, 5, 1], 2: [3, 5, 1]}
    errors = {(("s", s), ("by", by)): s if by else 9 - s for s in (1, 3, 5) for by in (0, 2)}
    path.write_text(json.dumps(evaluation_of(errors)))
    order = "{over: s, order: run/evaluation.json}"
    assert layers_in_order(tmp_path, order, anatomy) == {0: [5, 3, 1], 2: [1, 3, 5]}
    for row in (rows := json.loads(path.read_text()))["rows"][1:]:
        del row["scores"]["denoising error"]
        row["scores"]["SSIM"]["value"] = row["point"]["s"] / 10
    path.write_text(json.dumps(rows))
    assert layers_in_order(tmp_path, order, anatomy) == {0: [5, 3, 1], 2: [5, 3, 1]}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (evaluation_of({(("s", 1),): 1, (("s", 3),): 2}), "has no variant with s=5; give one with one for each value"),
        (evaluation_of({(("s", s), ("x", x)): 1 for s in (1, 3, 5) for x in (0, 1)}), "has 2 variants with s=1: "),
        (evaluation_of({(("s", s), ("how", h)): 1 for s in (1, 3, 5) for h in "ab"}), "has 2 variants with s=1: "),
        (evaluation_of({(("t", 1),): 1}), "has no variants with a variable s; evaluate a sweep"),
        (evaluation_of({(("s", s),): 1 for s in (1, 3, 5)}, cumulative="s"), "is of a cumulative sweep; give one that"),
        ({"rows": [{"kind": "variant"}]}, "has no variants with a variable s"),
        ([], "is damaged"),
    ],
)
def test_an_evaluation_that_gives_no_order_is_a_fault_where_it_is_named(anatomy, tmp_path, document, told):
    (tmp_path / "evaluation.json").write_text(json.dumps(document))
    with pytest.raises(SpecError, match=rf"^sweep.yaml:3:30: the evaluation .*evaluation.json {told}"):
        layers_in_order(tmp_path, "{over: s, order: evaluation.json}", anatomy)


def test_operations_add_up_by_the_influence_of_a_profile(anatomy, tmp_path, made):
    """Those that turn the stream least first, by the profile's own numbers; of another model it is a fault."""
    profile = made.make_profile(starts=(1,))
    write_profile(profile, tmp_path / "own.safetensors")
    influence = layer_influence(profile, "transformer_blocks", profile.stacks[0].streams)
    wanted = sorted([1, 3, 5], key=lambda layer: influence[layer])
    assert wanted != sorted(wanted)
    assert layers_in_order(tmp_path, "{over: s, order: own.safetensors}", anatomy) == {0: wanted, 2: wanted}
    named = "{over: s, order: own.safetensors#transformer_blocks}"
    assert layers_in_order(tmp_path, named, anatomy) == {0: wanted, 2: wanted}
    with pytest.raises(
        SpecError, match=r"^sweep.yaml:3:30: the profile has no stack blocks; it has transformer_blocks"
    ):
        layers_in_order(tmp_path, "{over: s, order: own.safetensors#blocks}", anatomy)


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
