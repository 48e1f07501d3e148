"""What a sweep costs, alone and in one walk: counted in runs and FLOPs of blocks."""

import pytest

from surgery.anatomy.sources import inspect
from surgery.plan.cost import plan_cost
from surgery.plan.planned import plan_points
from surgery.plan.walk_cost import walk_cost
from surgery.spec.load import read_spec

SWEEPS = {
    "components": 'vary: {k: "transformer_blocks[:]", c: [attn1, attn2, ff]}\n'
    'operations: [{replace: {component: "transformer_blocks[{k}].{c}", with: zero}}]',
    "loops": 'vary: {n: [1, 2, 3]}\noperations: [{parallel: {layers: "transformer_blocks[2:5]", loops: "{n}"}}]',
    "one": 'vary: {k: [4]}\noperations: [{skip: "transformer_blocks[{k}]"}]',
}


def plans_of_sweep(name):
    anatomy = inspect("demo")
    return [point.plan for point in plan_points(read_spec(f"surgery: v1\n{SWEEPS[name]}\n"), anatomy)], anatomy


@pytest.mark.parametrize("name", SWEEPS)
def test_alone_the_variants_cost_what_each_costs_by_itself(name):
    plans, anatomy = plans_of_sweep(name)
    walk, costs = walk_cost(plans, anatomy), [plan_cost(plan, anatomy) for plan in plans]
    assert walk.runs == sum(cost.executions_after for cost in costs)
    assert walk.flops == sum(cost.flops_after for cost in costs) > 0


def test_a_walk_runs_the_whole_beginning_once_and_each_variant_from_its_first_difference():
    """By hand: 3 endings from each of 12 blocks, 3 x (12 + ... + 1), and the 11 unedited blocks before the last."""
    plans, anatomy = plans_of_sweep("components")
    walk = walk_cost(plans, anatomy)
    assert (walk.forwards, walk.runs, walk.walk_runs) == (36, 432, 3 * 78 + 11)
    kind = anatomy.stack("transformer_blocks").kind(0)
    silenced = 12 * sum(kind.find_component(name).flops for name in ("attn1", "attn2", "ff"))
    assert walk.walk_flops == walk.walk_runs * kind.flops - silenced


def test_one_variant_costs_the_same_in_a_walk_and_equal_ones_cost_one():
    plans, anatomy = plans_of_sweep("one")
    one, three = walk_cost(plans, anatomy), walk_cost(plans * 3, anatomy)
    assert one.runs == one.walk_runs == 11 and (one.runs_share, one.flops_share) == (1, 1)
    assert (three.runs, three.walk_runs, three.walk_flops) == (33, 11, one.flops)
