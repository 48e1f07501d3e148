"""The map of damage: every variant lands in the cell of the layer that its plan edits, whatever it is called."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from evaluations_made import CLASS, STACK, document_of, plan_of, row_of, rows_of, write_evaluation

from surgery.errors import InputError
from surgery.experiment import damage_map
from surgery.experiment.damage_map import NO_LAYER, NO_NUMBER, NO_OTHER, read_damage
from surgery.experiment.evaluation import EvaluatedRow, Evaluation
from surgery.experiment.layer_edit import LayerEdit, find_layer_edit
from surgery.metrics.intervals import mean_interval
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan
from surgery.plan.schedule import Schedule
from surgery.spec.load import read_spec

LENGTHS = {STACK: 6, "single_blocks": 4}
RNG = np.random.default_rng(0)
KNOWN = {
    (STACK, "skip"): RNG.random((3, 6)),
    (STACK, "attn1 = zero"): RNG.random((3, 6)),
    ("single_blocks", "attn = channel_mean"): RNG.random((3, 4)),
}
KNOWN[STACK, "attn1 = zero"][:, 2] = np.nan  # no variant edits it


def plans(anatomies, *operations, model="pixart"):
    """The plan of a spec with these operations."""
    written = "".join(f"\n  - {operation}" for operation in operations) or " []"
    return lower_spec(read_spec(f"surgery: v1\noperations:{written}\n"), anatomies[model])


@pytest.mark.parametrize(
    ("operations", "what"),
    [
        (["skip: transformer_blocks[2]"], "skip"),
        (["scale: {layers: 'transformer_blocks[2]', by: 0.1}"], "scale 0.1"),
        (["repeat: {layers: 'transformer_blocks[2]', times: 3}"], "repeat 3"),
        (
            ["repeat: {layers: 'transformer_blocks[2]', times: 3}", "scale: {layers: 'transformer_blocks[2]', by: 2}"],
            "repeat 3, scale 2.0",
        ),
        (["replace: {component: 'transformer_blocks[2].ff', with: input}"], "ff = input"),
        (
            [
                "replace: {component: ['transformer_blocks[2].attn1', 'transformer_blocks[2].ff'], with: zero}",
                "scale: {layers: 'transformer_blocks[2]', by: -1}",
            ],
            "scale -1.0, attn1 = zero, ff = zero",
        ),
    ],
)
def test_the_edit_of_one_layer_is_known_by_its_plan(anatomies, operations, what):
    assert find_layer_edit(plans(anatomies, *operations)) == LayerEdit(STACK, 2, what)


@pytest.mark.parametrize(
    "operations",
    [
        [],
        ["skip: transformer_blocks[2:4]"],
        ["scale: {layers: 'transformer_blocks[2:4]', by: 2}"],
        ["order: {stack: transformer_blocks, as: [0, 1, 3, 3, '4:28']}"],
        ["skip: transformer_blocks[2]", "scale: {layers: 'transformer_blocks[3]', by: 2}"],
        ["skip: transformer_blocks[2]", "reverse: transformer_blocks[3:5]"],
        ["skip: transformer_blocks[2]", "repeat: {layers: 'transformer_blocks[3]', times: 2}"],
        ["reverse: transformer_blocks[2:4]"],
        ["repeat: {layers: 'transformer_blocks[2:4]', times: 2}"],
        ["repeat: {layers: 'transformer_blocks[2:5]', using: 3}"],
        ["parallel: transformer_blocks[2:4]"],
        ["replace: {component: 'transformer_blocks[2:4].ff', with: zero}"],
        [
            "scale: {layers: 'transformer_blocks[2]', by: 2}",
            "replace: {component: 'transformer_blocks[3].ff', with: zero}",
        ],
    ],
)
def test_no_other_plan_is_taken_for_the_edit_of_one_layer(anatomies, operations):
    assert find_layer_edit(plans(anatomies, *operations)) is None


def test_edits_in_two_stacks_are_no_edit_of_one_layer(anatomies):
    skips = ["skip: transformer_blocks[1]", "skip: single_transformer_blocks[1]"]
    assert find_layer_edit(plans(anatomies, *skips, model="flux")) is None
    alone = find_layer_edit(plans(anatomies, skips[1], model="flux"))
    assert alone == LayerEdit("single_transformer_blocks", 1, "skip")


def test_known_damage_gives_the_known_maps_in_whatever_order(tmp_path):
    """What was not measured is no number, and no row of another kind is taken for a variant."""
    rows = rows_of(KNOWN, LENGTHS)
    assert len(rows) == 6 + 5 + 4
    path = tmp_path / "evaluation.json"
    for order in (rows, [rows[number] for number in np.random.default_rng(1).permutation(len(rows))]):
        path.write_text(json.dumps(document_of(order, num_prompts=7)))
        damage = read_damage(path)
        found = {(one.stack, one.what): one for one in damage.maps}
        assert found.keys() == KNOWN.keys() and (damage.num_bins, damage.num_prompts) == (3, 7)
        for key, cells in KNOWN.items():
            assert np.array_equal(found[key].errors, cells, equal_nan=True)
            assert np.allclose(found[key].high, cells + 0.01, equal_nan=True)
            assert np.allclose(found[key].low, cells - 0.01, equal_nan=True)
        assert found[STACK, "attn1 = zero"].layers == [0, 1, 3, 4, 5]
        assert damage.stacks == list(dict.fromkeys(one.stack for one in damage.maps))
        assert damage.lengths == LENGTHS and not damage.left_out


def test_a_layer_that_is_taken_for_its_neighbour_is_seen(tmp_path, monkeypatch):
    """The saboteur of the test above."""
    find = find_layer_edit
    monkeypatch.setattr(
        damage_map, "find_layer_edit", lambda plan: LayerEdit(STACK, (find(plan).layer + 1) % 6, find(plan).what)
    )
    skips = {(STACK, "skip"): KNOWN[STACK, "skip"]}
    damage = read_damage(write_evaluation(tmp_path, skips, LENGTHS))
    assert not np.array_equal(damage.maps[0].errors, KNOWN[STACK, "skip"])


def test_an_evaluation_has_what_a_map_needs(anatomies, tmp_path):
    """Errors by prompt and bin -> the document -> the map: means and Student's intervals of the prompts."""
    errors = RNG.random((2, 5, 3))
    rows = [
        EvaluatedRow(
            f"layer {layer}", "variant", None, (), None, plans(anatomies, f"skip: transformer_blocks[{layer}]"), own
        )
        for layer, own in enumerate(errors)
    ]
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(Evaluation(tuple(rows), {"prompts": ["a"] * 5}, ()).to_json()))
    found = read_damage(path).maps[0]
    for layer, time_bin in np.ndindex(2, 3):
        expected = mean_interval(errors[layer, :, time_bin])
        cell = [cells[time_bin, layer] for cells in (found.errors, found.low, found.high)]
        assert cell == pytest.approx([expected.value, expected.low, expected.high])


def test_an_evaluation_of_an_older_version_has_no_intervals_and_one_prompt_neither(tmp_path):
    rows = rows_of({(STACK, "skip"): KNOWN[STACK, "skip"]}, LENGTHS)
    del rows[0]["denoising_error_by_bin_interval"]
    rows[1]["denoising_error_by_bin_interval"] |= {"low": [None] * 3, "high": [None] * 3}
    (tmp_path / "evaluation.json").write_text(json.dumps(document_of(rows)))
    found = read_damage(tmp_path / "evaluation.json").maps[0]
    assert np.array_equal(found.errors, KNOWN[STACK, "skip"])
    assert np.isnan(found.low).all(0).tolist() == np.isnan(found.high).all(0).tolist() == [True, True] + [False] * 4


def test_rows_that_belong_to_no_map_are_named_with_the_reason(anatomies, tmp_path):
    many = row_of("many", plans(anatomies, "skip: transformer_blocks[2:4]"), [1, 1, 1])
    lengths = {STACK: many["plan"]["schedules"][0]["num_blocks"]}
    alone = row_of("alone", plan_of(lengths, STACK, 1, "ff = zero"), [1, 1, 1])
    broken = row_of("broken", plan_of(lengths, STACK, 2, "skip"), [1, float("inf"), 1])
    known = {(STACK, "skip"): RNG.random((3, lengths[STACK]))}
    known[STACK, "skip"][:, 2] = np.nan
    damage = read_damage(write_evaluation(tmp_path, known, lengths, many, alone, broken))
    assert damage.left_out == {"many": NO_LAYER, "alone": NO_OTHER, "broken": NO_NUMBER}
    assert [one.what for one in damage.maps] == ["skip"] and np.isnan(damage.maps[0].errors[:, 2]).all()


ADVICE = (
    'write `vary: {layer: range(0, 6)}` and `operations: [{skip: "transformer_blocks[{layer}]"}]`, without `cumulative`'
)


def test_an_evaluation_without_a_sweep_over_single_layers_is_refused_with_what_to_write(tmp_path):
    """The first point of a cumulative sweep edits a single layer, and is no map."""
    rows = [row_of("each layer=0", plan_of(LENGTHS, STACK, 0, "skip"), [1, 1])]
    both = Plan(CLASS, tuple(Schedule(stack, length, ()) for stack, length in LENGTHS.items()))
    rows.append(row_of("each layer=1", both, [1, 1]))
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(document_of(rows)))
    with pytest.raises(InputError) as raised:
        read_damage(path)
    assert str(raised.value) == (
        f"the evaluation {path} has no sweep over single layers: of each layer=1, it edits no single layer alone, "
        f"and 1 other; {ADVICE}"
    )


def test_two_rows_that_edit_a_layer_alike_are_the_same_variant_or_refused(tmp_path):
    skips = rows_of({(STACK, "skip"): KNOWN[STACK, "skip"]}, LENGTHS)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(document_of([*skips, {**skips[0], "name": "again"}])))
    assert np.array_equal(read_damage(path).maps[0].errors, KNOWN[STACK, "skip"])
    plan = plan_of(LENGTHS, STACK, 0, "ff = mean")
    files = [Plan(CLASS, plan.schedules, (replace(plan.replacements[0], values="a" * 63 + end),)) for end in "bc"]
    rows = [row_of(f"means {number}", own, [1, 1]) for number, own in enumerate(files)]
    path.write_text(json.dumps(document_of(rows)))
    with pytest.raises(InputError, match="two rows that edit one layer alike and yet differ: means 0 and means 1"):
        read_damage(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document.pop("rows"),
            "is no evaluation: `surgery evaluate SPEC... --prompts FILE --out DIR` writes one",
        ),
        (lambda document: document["rows"][1]["plan"].pop("hash"), "is damaged: a plan has no hash"),
        (
            lambda document: document["rows"][1]["plan"].update(hash="0"),
            "is damaged: the plan's hash is .* it was changed",
        ),
        (
            lambda document: document["rows"][1].update(denoising_error_by_bin=[1.0]),
            "is damaged: all input arrays must have",
        ),
        (
            lambda document: document["rows"].append(row_of("x", plan_of({STACK: 5}, STACK, 0, "skip"), [1, 1, 1])),
            "or are of different models",
        ),
        (lambda document: document.update(rows=[]), "has no denoising error of a variant$"),
        (
            lambda document: document.update(rows=[], notes=["few", "no denoising error: it encodes no pictures"]),
            "variant; its note: no denoising error: it encodes no pictures",
        ),
    ],
)
def test_a_document_that_holds_no_maps_is_told(tmp_path, change, message):
    path = write_evaluation(tmp_path, KNOWN, LENGTHS)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        read_damage(path)


def test_a_file_that_is_no_json_is_told(tmp_path):
    for content in (b"{", b"[1, 2]", b"\xff"):
        (tmp_path / "e.json").write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(tmp_path / "e.json"))):
            read_damage(tmp_path / "e.json")
