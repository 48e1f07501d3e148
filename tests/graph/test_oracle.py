"""Variants against the edit by hand: to the bit, but for means, where the order of summation may differ."""

import itertools
import random

import pytest
import torch

from surgery.errors import SpecError
from surgery.graph.variant import build_variant
from surgery.plan.lower import MeanValues
from surgery.testing import run_by_hand, tiny_call

MEAN_TOLERANCE = 2e-6  # a few float32 roundings of the mean of up to four outputs, carried through at most five blocks

STACKS = {
    "pixart": ["transformer_blocks"],
    "sd3": ["transformer_blocks"],
    "sd3-dual": ["transformer_blocks"],
    "flux": ["transformer_blocks", "single_transformer_blocks"],
    "auraflow": ["joint_transformer_blocks", "single_transformer_blocks"],
    "dit": ["transformer_blocks"],
    "chroma": ["transformer_blocks", "single_transformer_blocks"],
}
CASES = [(name, stack) for name, stacks in STACKS.items() for stack in stacks]
WITHOUT_TWINS = [  # sd3-dual is much like sd3, and chroma like flux
    pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in ("sd3-dual", "chroma"))) for case in CASES
]
MANY_COMPONENTS = [("flux", "transformer_blocks"), *((name, stack) for name, stack in CASES if name == "chroma")]
FEWER_CASES = [
    pytest.param(*case, marks=[pytest.mark.slow] * (case[0] == "sd3-dual" or case in MANY_COMPONENTS)) for case in CASES
]

SCHEDULE_OPERATIONS = {
    "skip": 'skip: "{s}[1]"',
    "skip-first": 'skip: "{s}[0]"',
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


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def compare(model, plan, anatomy, *, exact, means=None):
    call = tiny_call(model)
    with torch.no_grad():
        actual = build_variant(model, plan, anatomy, means)(**call).sample
    expected = run_by_hand(model, plan, call, means)
    assert torch.equal(actual, expected) if exact else relative_error(actual, expected) < MEAN_TOLERANCE
    return actual


@pytest.mark.parametrize("operation", SCHEDULE_OPERATIONS)
@pytest.mark.parametrize(("name", "stack"), WITHOUT_TWINS)
def test_schedules_are_what_the_edit_by_hand_gives(models, anatomies, plan_of, name, stack, operation):
    plan = plan_of([SCHEDULE_OPERATIONS[operation].format(s=stack)], anatomies[name])
    edited = compare(models[name], plan, anatomies[name], exact=operation not in NEEDS_TOLERANCE)
    with torch.no_grad():
        assert relative_error(edited, models[name](**tiny_call(models[name])).sample) > 1e-4


@pytest.mark.parametrize("kind", ["zero", pytest.param("input", marks=pytest.mark.slow), "channel_mean", "mean"])
@pytest.mark.parametrize(("name", "stack"), FEWER_CASES)
def test_replacements_are_what_the_edit_by_hand_gives(models, anatomies, plan_of, name, stack, kind):
    anatomy = anatomies[name]
    every = [
        component
        for component in anatomy.find_stack(stack).kind(1).components
        if component.outputs and (kind != "input" or all(o.in_channels == o.out_channels for o in component.outputs))
    ]
    nested = [component for component in every if "." in component.name]
    components = [component for component in every if component not in nested] + nested[-1:]
    generator = torch.Generator().manual_seed(5)
    for component in components:
        path = f"{stack}.1.{component.name}"
        means = {path: {o.stream: torch.randn(o.out_channels, generator=generator) for o in component.outputs}}
        widths = {f"{path}/{stream}": len(vector) for stream, vector in means[path].items()}
        plan = plan_of(
            [f'replace: {{component: "{stack}[1].{component.name}", with: {kind}}}'],
            anatomy,
            MeanValues("0" * 64, widths),
        )
        compare(models[name], plan, anatomy, exact=True, means=means)


def test_every_stream_of_a_joint_attention_gets_a_mean_of_its_own(models, anatomies, plan_of):
    model, anatomy = models["sd3"], anatomies["sd3"]
    path = "transformer_blocks.1.attn"
    streams = ("hidden_states", "encoder_hidden_states")
    plain = {path: {stream: torch.zeros(16) for stream in streams}}
    widths = {f"{path}/{stream}": 16 for stream in streams}
    plan = plan_of(
        ['replace: {component: "transformer_blocks[1].attn", with: mean}'], anatomy, MeanValues("0" * 64, widths)
    )
    outputs = [compare(model, plan, anatomy, exact=True, means=plain)]
    for stream in streams:
        shifted = {path: {**plain[path], stream: torch.ones(16)}}
        outputs.append(compare(model, plan, anatomy, exact=True, means=shifted))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))


def random_operation(rng, stack, num_blocks):
    first = rng.randrange(num_blocks - 1)
    last = rng.randrange(first + 1, num_blocks)
    layers = f'"{stack}[{first}:{last}]"'
    return rng.choice(
        [
            f"skip: {layers}",
            f"repeat: {{layers: {layers}, times: 2}}",
            f"repeat: {{layers: {layers}, using: center}}",
            f"reverse: {layers}",
            f"shuffle: {{layers: {layers}, seed: {rng.randrange(100)}}}",
            f"parallel: {{layers: {layers}, loops: {rng.randrange(1, 4)}, combine: {rng.choice(['mean', 'sum'])}}}",
            f"scale: {{layers: {layers}, by: {rng.choice([0.5, -1, 2])}}}",
            f'replace: {{component: "{stack}[{first}:{last}].*", with: zero}}',
        ]
    )


@pytest.mark.parametrize("seed", [n if n < 8 else pytest.param(n, marks=pytest.mark.slow) for n in range(24)])
def test_random_specs_on_random_classes_are_what_the_edit_by_hand_gives(models, anatomies, plan_of, seed):
    rng = random.Random(seed)
    name, _ = rng.choice(CASES)
    anatomy = anatomies[name]
    kept, plan = [], plan_of([], anatomy)
    for _ in range(6):
        stack = rng.choice(anatomy.stacks)
        kept.append(random_operation(rng, stack.name, stack.num_blocks))
        try:
            plan = plan_of(kept, anatomy)
        except SpecError:
            kept.pop()
    assert kept
    uses_means = any("parallel" in operation for operation in kept)
    compare(models[name], plan, anatomy, exact=not uses_means)


@pytest.mark.parametrize("layers", [[0], [1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("name", ["sd3", "sd3-dual"])
def test_skips_of_sd3_are_its_own_skip_layers(models, anatomies, plan_of, name, layers):
    model, call = models[name], tiny_call(models[name])
    plan = plan_of([f'skip: "transformer_blocks{layers}"'], anatomies[name])
    with torch.no_grad():
        expected = model(**call, skip_layers=layers).sample
        assert torch.equal(build_variant(model, plan, anatomies[name])(**call).sample, expected)


def test_the_oracle_sees_a_wrong_schedule(models, anatomies, plan_of):
    """The saboteur: a plan that runs other layers than the variant must not pass."""
    model, anatomy = models["pixart"], anatomies["pixart"]
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
