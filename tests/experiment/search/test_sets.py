"""Edits, units and budgets: what a set of edits is as a spec, what it leaves, and what can't be."""

import itertools
import re
from dataclasses import replace
from random import Random

import pytest

from surgery.anatomy.known import recall_demo
from surgery.errors import InputError
from surgery.experiment.search.budget import Gauge, read_budget
from surgery.experiment.search.edits import Edit, edits_text, with_edit
from surgery.experiment.search.halves import split_prompts
from surgery.experiment.search.latency import Latency
from surgery.experiment.search.objective import HandedIn, read_weights
from surgery.experiment.search.problem import Sets
from surgery.experiment.search.store import Store
from surgery.experiment.search.units import edits_of
from surgery.plan.cost import course_of, plan_cost
from surgery.plan.planned import plan_spec
from surgery.plan.windowed import WindowedPlan
from surgery.spec.load import read_spec

STACK = "transformer_blocks"
COURSE = course_of([1.0, 0.9, 0.75, 0.6, 0.3])


def sets_of(budget, *, units="blocks", forbid=(), windows=1, anatomy=None, timed=None):
    anatomy = anatomy or recall_demo()
    budget = read_budget(budget)
    gauge = Gauge(budget.kind, anatomy, COURSE, timed)
    edits = edits_of(anatomy, units, forbid, windows)
    return Sets("demo", anatomy, edits, windows, budget, gauge, lambda planned: None)


def random_set(sets, random, most=6):
    found = frozenset()
    for edit in random.sample(list(sets.edits), min(most, len(sets.edits))):
        found = with_edit(found, edit) or found
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_set_does_what_its_edits_say(seed, anatomies):
    """The plan leaves out, in the middle of each window, just the blocks and components of its edits."""
    random = Random(seed)
    anatomy = anatomies[random.choice(["pixart", "flux", "sd3"])]
    windows = random.choice([1, 1, 2, 3])
    sets = sets_of(
        "parameters=50%", units=random.choice(["blocks", "components", "both"]), windows=windows, anatomy=anatomy
    )
    candidate = random_set(sets, random)
    plan = sets.planned(candidate).plan
    for window in range(windows):
        within = plan.plan_at((window + 0.5) / windows, 0, "conditional") if isinstance(plan, WindowedPlan) else plan
        gone = {(each.stack, index, "") for each in within.schedules for index in each.removed}
        gone |= {(each.stack, each.index, each.component) for each in within.replacements}
        own = {edit for edit in candidate if edit.window in (-1, window)}
        assert gone == {(edit.stack, edit.index, edit.component) for edit in own}
    assert "when" not in sets.text(candidate) or windows > 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["blocks", "parameters", "flops", "executions", "latency"])
def test_what_a_set_leaves_is_the_full_amount_less_what_each_edit_saves(kind, seed):
    """An exhaustive search rests on it; and it is what `check` says of the plan."""
    random = Random(seed)
    demo = recall_demo()
    timed = Latency(0, {(STACK, 0, ""): 5e6, (STACK, 0, "ff"): 1e6, (STACK, 0, "attn1"): 2e6}).timed(demo)
    by_time = kind in ("flops", "executions", "latency")
    sets = sets_of(
        f"{kind}=50%",
        units="both",
        windows=random.choice([1, 5]) if by_time else 1,
        timed=timed if kind == "latency" else None,
    )
    candidate = random_set(sets, random)
    alone = sum(sets.saved(frozenset({edit})) for edit in candidate)
    assert sets.saved(candidate) == pytest.approx(alone, abs=1e-6 * sets.full)
    cost = plan_cost(sets.planned(candidate).plan, demo, COURSE)
    expected = {"parameters": cost.parameters_after, "flops": cost.flops_after, "executions": cost.executions_after}
    assert sets.amount(candidate) == pytest.approx(expected.get(kind, sets.amount(candidate)))


def test_a_block_that_goes_takes_its_components_with_it():
    block, part, other = Edit(STACK, 1), Edit(STACK, 1, "ff"), Edit(STACK, 2, "ff")
    assert with_edit(frozenset({part, other}), block) == {block, other}
    assert with_edit(frozenset({block}), part) is None and with_edit(frozenset({block}), block) is None
    assert with_edit(frozenset({replace(block, window=0)}), replace(part, window=1)) is not None


def test_what_is_left_out_in_every_window_is_left_out_always():
    everywhere = frozenset(Edit(STACK, 3, "", window) for window in range(2))
    sets = sets_of("executions=9", windows=2)
    assert sets.text(everywhere).endswith('  - skip: "transformer_blocks[3]"\n    expect: 1\n')
    assert edits_text(everywhere | {Edit(STACK, 5, "", 1)}, 2) == f"{STACK}[3]; 0.5-1: {STACK}[5]"
    assert edits_text(frozenset(), 1) == "nothing"


def test_forbidden_layers_and_components_are_left_alone():
    edits = edits_of(recall_demo(), "both", ["transformer_blocks[0, 11]", "transformer_blocks[3].ff"], 1)
    places = {(edit.index, edit.component) for edit in edits}
    assert not {(0, ""), (0, "ff"), (11, ""), (3, ""), (3, "ff")} & places
    assert {(3, "attn1"), (4, ""), (4, "ff")} <= places
    assert all("." not in edit.component for edit in edits)


@pytest.mark.parametrize(
    ("units", "forbid", "message"),
    [
        ("block", (), 'there is no unit "block"; there are blocks, components, both; did you mean "blocks"'),
        ("blocks", ("transformer_block[0]",), '--forbid transformer_block.0.: .*did you mean "transformer_blocks"'),
        ("blocks", ("transformer_blocks[12]",), "there is no layer 12; .* has layers 0 to 11"),
        ("blocks", ("transformer_blocks[1].atn1",), '"atn1" in .*did you mean "attn1"'),
        ("blocks", ("transformer_blocks",), "has no subscript"),
        ("blocks", ("5",), "--forbid 5: "),
    ],
)
def test_units_and_layers_that_do_not_exist_are_refused(units, forbid, message):
    with pytest.raises(InputError, match=message):
        edits_of(recall_demo(), units, forbid, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9", '"9" is no budget; write one like blocks=9'),
        ("layers=9", 'there is no budget of "layers"; there are blocks'),
        ("blocs=9", 'did you mean "blocks"'),
        ("blocks=-9", "blocks=-9 leaves nothing"),
        ("blocks=0", "blocks=0 leaves nothing"),
        ("blocks=1.2.3", "is no budget"),
        ("parameters=1e999", "leaves nothing"),
        ("parameters=75 percent", "is no budget"),
    ],
)
def test_what_is_no_budget_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_budget(text)


@pytest.mark.parametrize("text", ["blocks=12", "blocks=14", "parameters=100%", "parameters=1G", "executions=200%"])
def test_a_budget_that_leaves_the_model_as_it_is_is_refused(text):
    with pytest.raises(InputError, match=r"leaves the model as it is, which has .*; write a smaller one"):
        _ = sets_of(text).limit


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("blocks=2", {"forbid": ("transformer_blocks[0:3]",)}, r"can't be met: .* 3 are left .*; write blocks=3, or"),
        ("parameters=1%", {}, r"288864 are left \(5.512% of 5.241 M\); write parameters=288864"),
        ("blocks=9", {"units": "components"}, "nothing that may be chosen saves blocks: no whole block"),
        ("parameters=75%", {"windows": 5}, "in some windows only stays there; give a budget of executions"),
        ("blocks=9", {"forbid": ("transformer_blocks[:]",)}, "everything is forbidden"),
    ],
)
def test_a_budget_that_cant_be_met_says_the_nearest(text, options, message):
    with pytest.raises(InputError, match=message):
        sets_of(text, **options).refuse_unmet()


@pytest.mark.parametrize("kind", ["parameters", "flops", "executions"])
def test_the_nearest_budget_that_is_told_can_be_met(kind):
    """Of a model of 12 billion parameters, too: its count is told to the last digit."""
    demo = recall_demo()
    (stack,) = demo.stacks
    kinds = tuple(replace(each, flops=2_345_678_901_237) for each in stack.kinds)
    large = replace(demo, stacks=(replace(stack, kinds=kinds),), num_parameters=12_345_678_960)
    options = {"forbid": (f"{STACK}[3:]",), "anatomy": large}
    with pytest.raises(InputError, match="can't be met") as raised:
        sets_of(f"{kind}=1", **options).refuse_unmet()
    sets_of(re.search(r"write (\S+),", str(raised.value))[1], **options).refuse_unmet()


def test_flops_that_are_not_known_are_no_budget():
    demo = recall_demo()
    stack = demo.stacks[0]
    unknown = replace(demo, stacks=(replace(stack, kinds=tuple(replace(kind, flops=0) for kind in stack.kinds)),))
    with pytest.raises(InputError, match="the FLOPs of PixArtTransformer2DModel are not known"):
        _ = sets_of("flops=50%", anatomy=unknown).limit


def test_a_spec_of_a_model_with_a_strange_name_names_that_model():
    sets = replace(sets_of("blocks=9"), model='out/my: "model" #2')
    assert read_spec(sets.text(frozenset({Edit(STACK, 1)}))).model == 'out/my: "model" #2'
    assert plan_spec(read_spec(sets.text(frozenset())), sets.anatomy).plan.is_identity


@pytest.mark.parametrize("answer", [1.0, [1.0] * 4, ["x"] * 3, None], ids=str)
def test_a_function_that_gives_no_number_a_prompt_is_refused(answer):
    prompts = ("a", "b", "c")
    odd = HandedIn("odd", lambda spec, prompts: answer, prompts)
    unit = odd.unit({"row": sets_of("blocks=9").planned(frozenset())}, 0, range(3))
    with pytest.raises(InputError, match="the objective odd was given 3 prompts, and did not return as many numbers"):
        unit.run(None, lambda number, text: None)


# Prompts, weights, and what is kept.


def test_no_prompt_is_in_both_halves():
    prompts, choosing, held_out = split_prompts(["a", "b", "a", "c", "d", "b", "e"])
    assert prompts == ("a", "c", "e", "b", "d")
    assert (len(choosing), len(held_out)) == (3, 2)
    assert [list(batch) for half in (choosing, held_out) for batch in half.batches(2)] == [[0, 1], [2], [3, 4]]


@pytest.mark.parametrize("prompts", [[], ["a"], ["a", "b", "c"], ["a", "a", "b", "c", "c"]])
def test_too_few_prompts_to_split_are_refused(prompts):
    with pytest.raises(InputError, match=r"different prompts? (is|are) too few to split; give 4 or more"):
        split_prompts(prompts)


def test_weights_are_shares():
    assert read_weights(None, 4) == (0.25,) * 4
    assert read_weights("1, 0,3", 3) == (0.25, 0, 0.75)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2", "2 weights and 3 bins"),
        ("1,x,2", "not all numbers"),
        ("1,-1,2", "0 or more"),
        ("0,0,0", "0 or more"),
        ("nan,1,1", "0 or more"),
    ],
)
def test_other_weights_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_weights(text, 3)


def test_a_shelf_holds_what_was_put_there_and_nothing_of_a_damaged_file(tmp_path):
    recipe = {"b": 1, "a": [2]}
    shelf = Store(tmp_path).shelf(recipe)
    shelf.add({"one": [0.1, float("inf")]})
    shelf.add({"two": [1 / 3, 0.0]})
    again = Store(tmp_path).shelf({"a": [2], "b": 1})
    assert again.numbers == {"one": [0.1, float("inf")], "two": [1 / 3, 0.0]}
    assert Store(tmp_path).shelf({**recipe, "b": 2}).numbers == {}
    whole = again.path.read_text()
    for damaged in (whole[:-9], whole.replace("0.1", "0.2"), "", "[]", "{}", '{"numbers": 3, "digest": "x"}'):
        again.path.write_text(damaged)
        assert Store(tmp_path).shelf(recipe).numbers == {}


def test_latencies_of_kinds_add_up_to_those_of_a_plan():
    demo = recall_demo()
    timed = Latency(0, {(STACK, 0, ""): 4e6, (STACK, 0, "ff"): 1e6}).timed(demo)
    sets = sets_of("latency=50%", units="both", timed=timed)
    assert sets.full == 48.0
    for pair in itertools.combinations((Edit(STACK, 2), Edit(STACK, 5), Edit(STACK, 7, "ff")), 2):
        assert sets.saved(frozenset(pair)) == sum(1.0 if edit.component else 4.0 for edit in pair)
