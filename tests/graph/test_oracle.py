"""Variants against the edit by hand: to the bit, but for means, where the order of summation may differ."""

import functools
import itertools
import random

import pytest
import torch
from random_specs import GRAPH_ONLY, MOVES, random_plan
from tiny import REFERENCE, STACKS, tiny_anatomy, tiny_model

from surgery.graph.traces import Traces
from surgery.graph.variant import build_variant
from surgery.plan.replacements import MeanValues
from surgery.testing import run_by_hand, tiny_call

MEAN_TOLERANCE = 2e-6  # a few float32 roundings of the mean of up to four outputs, carried through at most five blocks

CASES = [(name, stack) for name, stacks in {**STACKS, **REFERENCE}.items() for stack in stacks]
ONE_STREAM_OR_TWO = ("pixart", "sd3")
ONE_STREAM_AND_TWO = [  # every operation on these: the rewriting knows streams, not classes
    pytest.param(*case, marks=[pytest.mark.slow] * (case[0] not in ONE_STREAM_OR_TWO)) for case in CASES
]

SCHEDULE_OPERATIONS = {
    "skip": 'skip: "{s}[1]"',
    "skip-first": 'skip: "{s}[0]"',
    "skip-two": 'skip: "{s}[1, -1]"',
    "skip-all": 'skip: "{s}[:]"',
    "repeat-times": 'repeat: {{layers: "{s}[0:2]", times: 3}}',
    "repeat-using": 'repeat: {{layers: "{s}[0:3]", using: center}}',
    "reverse": 'reverse: "{s}[0:3]"',
    "shuffle": 'shuffle: {{layers: "{s}[0:3]", seed: 3}}',
    "order": 'order: {{stack: "{s}", as: [1, 0, 0, 2]}}',
    "parallel": 'parallel: {{layers: "{s}[0:2]"}}',
    "parallel-sum": 'parallel: {{layers: "{s}[1:3]", combine: sum}}',
    "parallel-loops": 'parallel: {{layers: "{s}[0:3]", loops: 3}}',
    "scale": 'scale: {{layers: "{s}[0:2]", by: 0.3}}',
}
NEEDS_TOLERANCE = {"parallel", "parallel-sum", "parallel-loops"}
TOGETHER = {  # on all stacks of a class at once; each layer has an edit of its own, so that none hides another
    "moved": ['skip: "{s}[0]"', 'reverse: "{s}[1:3]"', 'repeat: {{layers: "{s}[1]", times: 2}}'],
    "grouped": ['scale: {{layers: "{s}[0]", by: 0.3}}', 'parallel: {{layers: "{s}[1:3]", loops: 2, combine: sum}}'],
    "order-and-mean": ['order: {{stack: "{s}", as: [1, 0, 2, 2]}}', 'parallel: {{layers: "{s}[1, 0]"}}'],
}
KINDS = ["zero", "input", "channel_mean", "mean"]
QUICK_REFERENCE = [("freq_gate", "mean"), ("cross_attention", "mean")]  # the others have no component beside theirs
OF_THE_FORWARD = ("input", "mean")  # they hang on what a class's forward gives a component, and which streams come back
REPLACEMENTS = [
    pytest.param(
        *(*case, kind),
        marks=[pytest.mark.slow]
        * (case[0] not in ONE_STREAM_OR_TWO and (case[0], kind) not in QUICK_REFERENCE)
        * (kind not in OF_THE_FORWARD or case[0] in REFERENCE),
    )
    for case in CASES
    for kind in KINDS
]


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@functools.cache
def traces_of(name):
    """What all variants of a model share; those of random specs are traced by themselves."""
    return Traces()


def compare(name, plan, *, exact, means=None, traces=None):
    model, call = tiny_model(name), tiny_call(tiny_model(name))
    with torch.no_grad():
        actual = build_variant(model, plan, tiny_anatomy(name), means, traces)(**call).sample
    expected = run_by_hand(model, plan, call, means)
    assert torch.equal(actual, expected) if exact else relative_error(actual, expected) < MEAN_TOLERANCE, plan.text
    return actual


def is_edited(name, output):
    with torch.no_grad():
        return relative_error(output, tiny_model(name)(**tiny_call(tiny_model(name))).sample) > 1e-4


@pytest.mark.parametrize("operation", SCHEDULE_OPERATIONS)
@pytest.mark.parametrize(("name", "stack"), ONE_STREAM_AND_TWO)
def test_schedules_are_what_the_edit_by_hand_gives(plan_of, name, stack, operation):
    plan = plan_of([SCHEDULE_OPERATIONS[operation].format(s=stack)], tiny_anatomy(name))
    assert is_edited(name, compare(name, plan, exact=operation not in NEEDS_TOLERANCE, traces=traces_of(name)))


def components_by_block(name, stack, kind):
    """The components to replace, at most one in a block, so that none hides what another does; as many plans as needed.

    Nested ones are much alike: the last stands for them.
    """
    described = tiny_anatomy(name).find_stack(stack)
    every = [
        component
        for component in described.kind(1).components
        if component.outputs and (kind != "input" or all(o.in_channels == o.out_channels for o in component.outputs))
    ]
    nested = [component for component in every if "." in component.name]
    left = [component for component in every if component not in nested] + nested[-1:]
    blocks = [index for index, kind_of in enumerate(described.kind_of) if kind_of == described.kind_of[1]]
    parts = [left[start : start + len(blocks)] for start in range(0, len(left), len(blocks))]
    return [list(zip(blocks, part, strict=False)) for part in parts]


@pytest.mark.parametrize(("name", "stack", "kind"), REPLACEMENTS)
def test_replacements_are_what_the_edit_by_hand_gives(plan_of, name, stack, kind):
    generator = torch.Generator().manual_seed(5)
    for chosen in components_by_block(name, stack, kind):
        means = {
            f"{stack}.{index}.{component.name}": {
                output.stream: torch.randn(output.out_channels, generator=generator) for output in component.outputs
            }
            for index, component in chosen
        }
        widths = {f"{path}/{stream}": len(v) for path, streams in means.items() for stream, v in streams.items()}
        plan = plan_of(
            [f'replace: {{component: "{stack}[{i}].{component.name}", with: {kind}}}' for i, component in chosen],
            tiny_anatomy(name),
            MeanValues("0" * 64, widths),
        )
        compare(name, plan, exact=True, means=means, traces=traces_of(name))


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        pytest.param(name, each, marks=[pytest.mark.slow] * (name in ONE_STREAM_OR_TWO and each != "moved"))
        for name in (*STACKS, *REFERENCE)
        for each in TOGETHER
    ],
)
def test_schedules_of_all_stacks_of_every_class_are_what_the_edit_by_hand_gives(plan_of, name, operations):
    written = [
        operation.format(s=stack) for stack in {**STACKS, **REFERENCE}[name] for operation in TOGETHER[operations]
    ]
    plan = plan_of(written, tiny_anatomy(name))
    assert is_edited(name, compare(name, plan, exact=operations == "moved", traces=traces_of(name)))


def test_every_stream_of_a_joint_attention_gets_a_mean_of_its_own(plan_of):
    path = "transformer_blocks.1.attn"
    streams = ("hidden_states", "encoder_hidden_states")
    plain = {path: {stream: torch.zeros(16) for stream in streams}}
    widths = {f"{path}/{stream}": 16 for stream in streams}
    plan = plan_of(
        ['replace: {component: "transformer_blocks[1].attn", with: mean}'],
        tiny_anatomy("sd3"),
        MeanValues("0" * 64, widths),
    )
    outputs = [compare("sd3", plan, exact=True, means=plain, traces=traces_of("sd3"))]
    for stream in streams:
        shifted = {path: {**plain[path], stream: torch.ones(16)}}
        outputs.append(compare("sd3", plan, exact=True, means=shifted, traces=traces_of("sd3")))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))


@pytest.mark.parametrize("seed", [n if n < 8 else pytest.param(n, marks=pytest.mark.slow) for n in range(24)])
def test_random_specs_on_random_classes_are_what_the_edit_by_hand_gives(plan_of, seed):
    rng = random.Random(seed)
    name = rng.choice(list(STACKS))
    plan, kept = random_plan(rng, tiny_anatomy(name), plan_of, [*MOVES, *GRAPH_ONLY, "*"])
    compare(name, plan, exact=not any("parallel" in operation for operation in kept))


@pytest.mark.parametrize("layers", [[0], [1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("name", ["sd3", pytest.param("sd3-dual", marks=pytest.mark.slow)])
def test_skips_of_sd3_are_its_own_skip_layers(plan_of, name, layers):
    model, call = tiny_model(name), tiny_call(tiny_model(name))
    plan = plan_of([f'skip: "transformer_blocks{layers}"'], tiny_anatomy(name))
    with torch.no_grad():
        expected = model(**call, skip_layers=layers).sample
        assert torch.equal(build_variant(model, plan, tiny_anatomy(name))(**call).sample, expected)


def test_the_oracle_sees_a_wrong_schedule(plan_of):
    """The saboteur: a plan that runs other layers than the variant must not pass."""
    model, anatomy = tiny_model("pixart"), tiny_anatomy("pixart")
    call = tiny_call(model)
    with torch.no_grad():
        variant = build_variant(model, plan_of(['skip: "transformer_blocks[1]"'], anatomy), anatomy)
        actual = variant(**call).sample
    for wrong in (
        'skip: "transformer_blocks[2]"',
        'reverse: "transformer_blocks[0:2]"',
        'scale: {layers: "transformer_blocks[1]", by: 0.01}',
    ):
        assert relative_error(actual, run_by_hand(model, plan_of([wrong], anatomy), call)) > 100 * MEAN_TOLERANCE
