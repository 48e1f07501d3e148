"""Many plans in one walk: each gives what its variant gives alone, to the bit, and what they share runs once."""

import random

import pytest
import torch
from built_once import building_once
from random_specs import GRAPH_ONLY, MOVES, REPLACED, random_plan
from tiny import STACKS, tiny_anatomy, tiny_model
from tiny_transformers import build_transformer, transformer_call
from torch import nn

from surgery.errors import TraceError
from surgery.graph import shared_forward
from surgery.graph.apply import apply
from surgery.graph.shared_forward import SharedForward
from surgery.graph.shared_graph import SharedGraph
from surgery.graph.transformer_variants import TransformerVariants
from surgery.graph.variant import build_variant
from surgery.plan.prefix_tree import prefix_tree
from surgery.plan.replacements import MeanValues
from surgery.testing import tiny_call


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_and_traced_once():
    """How a forward is traced is seen in test_variant.py and test_oracle.py."""
    with building_once():
        yield


KINDS = [*MOVES, *GRAPH_ONLY, *REPLACED]


def outputs_of(shared, call):
    found = {}

    def keep(number, output):
        assert number not in found
        found[number] = output[0].clone()

    with torch.no_grad():
        shared.run_all((), call, keep)
    assert sorted(found) == list(range(len(shared.plans)))
    return [found[number] for number in sorted(found)]


def alone(model, plans, *calls):
    """What each plan's variant returns, for one call after the other."""
    variants = [apply(model, plan) for plan in plans]
    with torch.no_grad():
        return [variant(**call)[0] for call in calls for variant in variants]


def assert_same(actual, expected):
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


def random_plans(name, plan_of, num, seed):
    rng = random.Random(seed)
    plans = [random_plan(rng, tiny_anatomy(name), plan_of, KINDS, tries=3)[0] for _ in range(num)]
    return [plan_of([], tiny_anatomy(name)), *plans]


@pytest.mark.parametrize(
    "name",
    [name if name in ("pixart", "sd3", "flux") else pytest.param(name, marks=pytest.mark.slow) for name in STACKS],
)
def test_random_plans_give_what_their_variants_give_alone(plan_of, name):
    model, call = tiny_model(name), tiny_call(tiny_model(name))
    plans = random_plans(name, plan_of, 12, seed=hash(name) % 97)
    actual = outputs_of(SharedForward(TransformerVariants(model), plans, {}), call)
    assert_same(actual, alone(model, plans, call))
    assert len({output.sum().item() for output in actual}) > 5


def counting_blocks(shared):
    runs = []
    for stack, _ in shared_stacks(shared.model):
        for block in shared.model.get_submodule(stack):
            block.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


def shared_stacks(model):
    return [(name, len(module)) for name, module in model.named_children() if isinstance(module, nn.ModuleList)]


@pytest.mark.parametrize("name", ["pixart", "flux"])
def test_blocks_run_as_often_as_the_tree_says(plan_of, name):
    """Pairs of skips, in both stacks of a model with two: also what variants share with one another runs once."""
    stack = STACKS[name][-1]
    plans = [plan_of([f'skip: "{stack}[{i}, {j}]"'], tiny_anatomy(name)) for i in range(4) for j in range(i + 1, 4)]
    shared = SharedForward(TransformerVariants(tiny_model(name)), plans, {})
    runs = counting_blocks(shared)
    outputs_of(shared, tiny_call(tiny_model(name)))
    assert len(runs) == prefix_tree(plans).num_runs


@pytest.mark.parametrize("memory", [0, 1 << 40])
def test_a_bound_on_memory_runs_beginnings_again_and_changes_nothing(plan_of, memory):
    model, call = tiny_model("sd3"), tiny_call(tiny_model("sd3"))
    plans = random_plans("sd3", plan_of, 8, seed=5)
    shared = SharedForward(TransformerVariants(model), plans, {}, memory=memory)
    assert_same(outputs_of(shared, call), alone(model, plans, call))
    (walks,) = shared.walks.values()
    assert len(walks) == (len(set(plans)) if memory == 0 else 1)


def test_values_are_let_go_when_their_last_reader_has_run(plan_of):
    """While skips of single blocks are walked, one state waits at a branch, beside the one that flows."""
    plans = [plan_of([f'skip: "transformer_blocks[{index}]"'], tiny_anatomy("pixart")) for index in range(4)]
    shared = SharedForward(TransformerVariants(tiny_model("pixart")), plans, {})
    outputs_of(shared, tiny_call(tiny_model("pixart")))
    ((walk,),) = shared.walks.values()
    live, states, most = set(walk.inputs), set(), 0
    for operation in walk.operations:
        live.add(operation.node)
        if operation.node.op == "call_module" and str(operation.node.target).startswith("transformer_blocks."):
            states.add(operation.node)
        most = max(most, len(live & states))
        live -= set(operation.last_read)
    assert not live
    assert most == 3  # what enters a block, what leaves it, and what waits


def test_means_of_several_files_stay_apart(plan_of):
    model, call = tiny_model("pixart"), tiny_call(tiny_model("pixart"))
    path = "transformer_blocks.1.ff"
    (output,) = tiny_anatomy("pixart").stacks[0].kind(1).find_component("ff").outputs
    width, stream = output.out_channels, output.stream
    means = {digest: {path: {stream: torch.full((width,), value)}} for digest, value in (("a", 1.0), ("b", 2.0))}
    plans = [
        plan_of(
            ['replace: {component: "transformer_blocks[1].ff", with: mean}'],
            tiny_anatomy("pixart"),
            MeanValues(digest, {f"{path}/{stream}": width}),
        )
        for digest in means
    ]
    actual = outputs_of(SharedForward(TransformerVariants(model), plans, means), call)
    with torch.no_grad():
        expected = [
            build_variant(model, plan, tiny_anatomy("pixart"), found)(**call)[0]
            for plan, found in zip(plans, means.values(), strict=True)
        ]
    assert_same(actual, expected)
    assert not torch.equal(*actual)


@pytest.mark.parametrize("name", ["HunyuanDiT2DModel", "OmniGenTransformer2DModel"])
@pytest.mark.usefixtures("nothing_is_sought")
def test_long_skips_and_forwards_that_read_contents_are_shared_as_well(plan_of, name):
    model, call = build_transformer(name).eval(), transformer_call(name)
    variants = TransformerVariants(model)
    stack = variants.anatomy.stacks[0].name
    plans = [plan_of([f'scale: {{layers: "{stack}[{index}]", by: 0.5}}'], variants.anatomy) for index in (0, 3)]
    shared = SharedForward(variants, plans, {})
    other = {key: value * 2 if key == "hidden_states" else value for key, value in call.items()}
    assert_same([*outputs_of(shared, call), *outputs_of(shared, other)], alone(model, plans, call, other))


def test_a_tree_that_mixes_up_constants_is_caught(plan_of, monkeypatch):
    """The saboteur: a graph that takes two scales for one."""
    from surgery.graph import shared_graph

    honest = shared_graph._key_of
    monkeypatch.setattr(shared_graph, "_key_of", lambda value: 0 if isinstance(value, float) else honest(value))
    model, call = tiny_model("pixart"), tiny_call(tiny_model("pixart"))
    plans = [
        plan_of([f'scale: {{layers: "transformer_blocks[1]", by: {by}}}'], tiny_anatomy("pixart")) for by in (0.5, 2)
    ]
    first, second = outputs_of(SharedForward(TransformerVariants(model), plans, {}), call)
    assert torch.equal(first, second)
    assert not torch.equal(*alone(model, plans, call))


class ChangesInput(nn.Module):
    def forward(self, hidden_states):
        return hidden_states.mul_(2) + 1


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.blocks = nn.ModuleList(ChangesInput() for _ in range(4))

    def forward(self, hidden_states):
        hidden_states = hidden_states * self.scale
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return (hidden_states,)


def test_blocks_that_change_their_inputs_share_nothing(plan_of):
    variants = TransformerVariants(InPlace())
    call = {"hidden_states": torch.ones(2, 3, 4)}
    with torch.no_grad():
        variants.make(plan_of([], variants.anatomy))(**call)
    plans = [plan_of(['skip: "blocks[1]"'], variants.anatomy)]
    with pytest.raises(TraceError, match=r"blocks\.0 changes its inputs in place; nothing before it can be shared"):
        outputs_of(SharedForward(variants, plans, {}), call)


def test_constants_of_different_types_and_signs_are_not_one():
    graph = SharedGraph()
    x = graph.placeholder("x")
    constants = [1, 1.0, True, 0.0, -0.0, None, "1", (1,), [1], slice(1), slice(1.0), torch.float32, torch.float64]
    nodes = [graph.call_function(shared_forward._attribute, (x, constant)) for constant in constants]
    assert len(set(nodes)) == len(constants)
    again = [graph.call_function(shared_forward._attribute, (x, constant)) for constant in constants]
    assert again == nodes
