"""One mistake is told once, where it is: what only follows from it is not told as well."""

import copy
import json
import random
from dataclasses import replace

import pytest

from surgery.anatomy.resolve import resolve_components, resolve_layers
from surgery.errors import SpecError
from surgery.plan.lower import lower_spec
from surgery.spec import operations as ops
from surgery.spec.load import Spec, read_spec
from surgery.spec.places import Faults

STACKS = {
    "pixart": {"transformer_blocks": 28},
    "sd3": {"transformer_blocks": 24},
    "flux": {"transformer_blocks": 19, "single_transformer_blocks": 38},
}
SHARES = {"skip": 3, "parallel": 3, "times": 2, "using": 2, "shuffle": 2, "reverse": 1, "scale": 1, "replace": 1}
FIRST_LINE = 3  # of the operations, where there are no groups
EVERY = range(60)  # seeds of specs


def selection_at(chance: random.Random, stacks: dict[str, int]) -> list[str]:
    """A selector or two of one stack, where operations meet: at its beginning, or its end."""
    stack = chance.choice(sorted(stacks))
    start = chance.choice([*range(7), *range(stacks[stack] - 3, stacks[stack])])
    texts = [f"{stack}[{chance.choice([f'{start}', f'{start}:{start + 3}', f'{start}, {start + 2}'])}]"]
    return [*texts, f"{stack}[{start + 3}]"] if chance.random() < 0.5 else texts


def operation_at(chance: random.Random, layers: list[str]) -> dict[str, dict[str, object]]:
    """An operation on these layers."""
    number = chance.randint(1, 3)
    match chance.choices(list(SHARES), SHARES.values())[0]:
        case "shuffle":
            return {"shuffle": {"layers": layers, "seed": number}}
        case "times":
            return {"repeat": {"layers": layers, "times": number}}
        case "using":
            return {"repeat": {"layers": layers, "using": chance.choice(["center", *range(7)])}}
        case "parallel":
            return {"parallel": {"layers": layers, "loops": number}}
        case "scale":
            return {"scale": {"layers": layers, "by": number}}
        case "replace":
            return {"replace": {"component": [f"{text}.ff" for text in layers], "with": "zero"}}
        case name:
            return {name: {"layers": layers}}


def selection_of(operation: dict[str, dict[str, object]]) -> list[str]:
    """The list of selectors of an operation; to be changed."""
    fields = next(iter(operation.values()))
    return fields["layers"] if "layers" in fields else fields["component"]


def read(operations, groups=None, *, line: int = 0) -> Spec:
    """A spec with every group and every operation on a line of its own, the first operation `line` further down."""
    lines = [f"  {name}: {json.dumps(group)}" for name, group in (groups or {}).items()]
    head = ["surgery: v1", "groups:", *lines] if lines else ["surgery: v1"]
    return read_spec(
        "\n".join([*head, "operations:", *[""] * line, *(f"  - {json.dumps(operation)}" for operation in operations)])
    )


def faults_of(spec: Spec, anatomy) -> list[str]:
    """All faults of a spec."""
    try:
        lower_spec(spec, anatomy)
    except SpecError as error:
        return list(error.faults)
    return []


def assert_told_once(found: list[str], line: int, spec: Spec) -> None:
    if [int(fault.split(":")[1]) for fault in found] != [line]:
        pytest.fail("\n".join([*found, *map(str, spec.operations)]), pytrace=False)  # its values take a minute to show


def count_matched(operation, anatomy) -> int:
    """How many layers or components an operation selects."""
    if isinstance(operation, ops.Replace):
        return len(resolve_components(operation.components, anatomy, Faults("")))
    return sum(len(layers.indices) for layers in resolve_layers(operation.layers, anatomy, Faults("")))


@pytest.fixture(scope="module")
def valid_specs(anatomies):
    """Specs without faults: the name of an anatomy, and operations that say how many layers they match."""
    found = []
    for seed in EVERY:
        chance = random.Random(seed)
        name = chance.choice(sorted(STACKS))
        selections = [selection_at(chance, STACKS[name]) for _ in range(4)]
        written = [operation_at(chance, list(chance.choice(selections))) for _ in range(7)]
        spec = read(written)
        kept: list[int] = []
        for number in range(len(written)):
            chosen = tuple(spec.operations[place] for place in (*kept, number))
            if not faults_of(replace(spec, operations=chosen), anatomies[name]):
                kept.append(number)
        expected = [count_matched(operation, anatomies[name]) for operation in spec.operations]
        found.append((name, [{**written[number], "expect": expected[number]} for number in kept]))
    return [(name, written) for name, written in found if len(written) > 1]


def misspell_stack(selection: list[str], others: list[str]) -> None:
    selection[0] = selection[0].replace("blocks[", "blcks[")


def add_missing_layer(selection: list[str], others: list[str]) -> None:
    selection[-1] = selection[-1].replace("]", ", 99]")


def name_layers_twice(selection: list[str], others: list[str]) -> None:
    selection.append(selection[0])


def leave_one_out(selection: list[str], others: list[str]) -> None:
    if len(selection) > 1:
        selection.pop()


def take_others(selection: list[str], others: list[str]) -> None:
    _, dot, component = selection[0].partition("].")
    selection.extend(text.partition("].")[0].rstrip("]") + "]" + dot[1:] + component for text in others[:1])


MISTAKES = (misspell_stack, add_missing_layer, name_layers_twice, leave_one_out, take_others)


@pytest.mark.parametrize("expecting", [True, False], ids=["with expect", "without"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_operation_is_told_there_and_nowhere_else(anatomies, valid_specs, mistake, expecting):
    """Where the operation itself shows that there is one."""
    num_told = 0
    for name, written in valid_specs:
        spec = read(written)
        for number, operation in enumerate(written):
            broken = copy.deepcopy(operation)
            mistake(selection_of(broken), selection_of(written[(number + 1) % len(written)]))
            if not expecting:
                del broken["expect"]
            (other,) = read([broken], line=number).operations
            before, after = spec.operations[:number], spec.operations[number + 1 :]
            if faults_of(replace(spec, operations=(*before, other)), anatomies[name]):
                changed = replace(spec, operations=(*before, other, *after))
                assert_told_once(faults_of(changed, anatomies[name]), FIRST_LINE + number, changed)
                num_told += 1
    assert num_told > 50 or (mistake is leave_one_out and not expecting)


@pytest.mark.parametrize("mistake", MISTAKES[:3])
def test_a_mistake_in_a_group_is_told_there_and_nowhere_else(anatomies, valid_specs, mistake):
    """However often the group is used, and whatever its users expect of it."""
    for name, written in valid_specs:
        selections = [selection_of(operation) for operation in written]
        number = max(range(len(written)), key=lambda place: (selections.count(selections[place]), -place))
        using = copy.deepcopy(written)
        for place, selection in enumerate(selections):
            if selection == selections[number]:
                selection_of(using[place])[:] = ["middle"]
        group = list(selections[number])
        mistake(group, [])
        try:
            spec = read(using, {"middle": group})
            faults = faults_of(spec, anatomies[name])
        except SpecError as error:  # what is wrong with the group itself is told before the model is looked at
            spec, faults = error.partial, error.faults
        assert_told_once(faults, FIRST_LINE, spec)


def test_how_large_scales_become_is_not_judged_where_one_is_not_known(anatomies):
    scales = [("transformer_blocks[3, 99]", 1e-300), *[("transformer_blocks[3]", 1e29)] * 11]
    spec = read([{"scale": {"layers": [layers], "by": by}} for layers, by in scales])
    assert_told_once(faults_of(spec, anatomies["pixart"]), FIRST_LINE, spec)
