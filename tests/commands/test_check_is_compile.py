"""What `check` says of the checkpoint backend is what `compile --to checkpoint` does, on random specs.

Yes: it is written. No: it is refused. Perhaps: it says in words what that hangs on, and either may follow.
"""

import random

import pytest
from built_once import building_once
from random_specs import GRAPH_ONLY, MOVES, REPLACED, random_operation

from surgery.commands.planned_text import describe
from surgery.errors import RefusedError, SpecError
from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.testing import TINY_MODELS, build_tiny_model

NUM_QUICK, NUM_ALL = 14, 300
UNSAID = {  # what no stock class says, and what hangs on the weights
    "input": lambda rng, layers: (
        f'replace: {{component: "{layers}.ff", with: {rng.choice(["input", "channel_mean"])}}}'
    ),
    "silent": lambda rng, layers: f'scale: {{layers: "{layers}", by: {rng.choice([0, 1])}}}',
}
KINDS = (*MOVES, *MOVES, *GRAPH_ONLY, *REPLACED, *UNSAID, "order")


@pytest.fixture(scope="module", autouse=True)
def _models_on_meta_are_built_once():
    with building_once():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of each tiny model, as diffusers saves it."""
    found = {name: tmp_path_factory.mktemp(name) for name in TINY_MODELS}
    for name, folder in found.items():
        build_tiny_model(name).save_pretrained(folder)
    return found


def random_line(rng, stack, num_blocks):
    kind = rng.choice(KINDS)
    if kind == "order":
        layers = [rng.randrange(num_blocks) for _ in range(rng.randrange(1, num_blocks + 2))]
        return f"order: {{stack: {stack}, as: {layers}}}"
    if kind in UNSAID:
        return UNSAID[kind](rng, f"{stack}[{rng.randrange(num_blocks)}]")
    return random_operation(rng, stack, num_blocks, [kind])


def random_spec(rng, folder, path):
    """A spec of one or two operations that are no fault in the model of a folder, planned."""
    stacks = plan_of(["skip: '*[0]'"], folder, path).anatomy.stacks
    while True:
        lines = []
        for _ in range(rng.randrange(1, 3)):
            stack = rng.choice(stacks)
            lines.append(random_line(rng, stack.name, stack.num_blocks))
        try:
            return lines, plan_of(lines, folder, path)
        except SpecError:
            continue


def plan_of(lines, folder, path):
    path.write_text("".join([f"surgery: v1\nmodel: {folder}\noperations:\n", *(f"  - {line}\n" for line in lines)]))
    return plan_spec_file(path)


def answers(planned, out):
    """What `check` says, and whether `compile` writes it: None, or the reason why not."""
    said = describe(planned, None)[0]["backends"]["checkpoint"]
    try:
        compile_planned(planned, out, CompileOptions())
    except RefusedError as error:
        return said, str(error)
    return said, None


def assert_kept(said, refusal, lines):
    assert (said["answer"] == "yes") == (not said["reasons"])
    assert said["answer"] != "yes" or refusal is None, f"check says yes, and {lines} is refused: {refusal}"
    assert said["answer"] != "no" or refusal is not None, f"check says no, and {lines} is written: {said['reasons']}"


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[pytest.mark.slow] * (n >= NUM_QUICK)) for n in range(NUM_ALL)],
)
def test_what_check_says_is_what_compile_does(folders, tmp_path, number):
    rng = random.Random(number)
    name = list(TINY_MODELS)[number % len(TINY_MODELS)]
    lines, planned = random_spec(rng, folders[name], tmp_path / "spec.yaml")
    assert_kept(*answers(planned, tmp_path / "out"), lines)


@pytest.mark.parametrize(
    "lines",
    [
        ["order: {stack: transformer_blocks, as: [1, 2, 4]}"],
        ['skip: "transformer_blocks[0]"'],
        ['reverse: "transformer_blocks[:]"'],
        ['repeat: {layers: "transformer_blocks[0:3]", using: center}'],
    ],
)
def test_dit_without_its_first_block_is_said_to_be_doubtful_and_is_refused(folders, tmp_path, lines):
    said, refusal = answers(plan_of(lines, folders["dit"], tmp_path / "spec.yaml"), tmp_path / "out")
    assert said == {
        "answer": "perhaps",
        "reasons": [
            "the forward reads weights of transformer_blocks[0], where another block would stand; if other weights do "
            "not do there, it is refused"
        ],
    }
    assert "the checkpoint's output differs from the graph's" in refusal


def test_dit_with_its_first_block_in_its_place_is_promised(folders, tmp_path):
    said, refusal = answers(
        plan_of(["order: {stack: transformer_blocks, as: [0, 3, 0, 2]}"], folders["dit"], tmp_path / "spec.yaml"),
        tmp_path / "out",
    )
    assert (said["answer"], refusal) == ("yes", None)


def test_the_law_sees_a_promise_that_is_not_kept(folders, tmp_path):
    """The saboteur: an anatomy that does not know what the forward reads of the first block."""
    import dataclasses

    planned = plan_of(['skip: "transformer_blocks[0]"'], folders["dit"], tmp_path / "spec.yaml")
    stacks = tuple(dataclasses.replace(stack, read_blocks=()) for stack in planned.anatomy.stacks)
    blind = dataclasses.replace(planned, anatomy=dataclasses.replace(planned.anatomy, stacks=stacks))
    with pytest.raises(AssertionError, match="check says yes, and DiT is refused"):
        assert_kept(*answers(blind, tmp_path / "out"), "DiT")
