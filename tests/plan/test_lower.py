import dataclasses
import json
import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgery.errors import SpecError
from surgery.plan import edits
from surgery.plan import lower as lower_module
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan, plan_from_json, plan_from_text
from surgery.plan.replacements import MeanValues
from surgery.plan.schedule import Group, Layer, Repetition, count_executions
from surgery.spec.load import read_spec
from surgery.spec.operations import AnyOperation

STACK = "transformer_blocks"
NUM_BLOCKS = 28


def lower(operations: list[object], anatomy, means: MeanValues | None = None) -> Plan:
    """The plan of operations; JSON is YAML."""
    return lower_spec(read_spec(json.dumps({"surgery": "v1", "operations": operations})), anatomy, means)


def text_of(operations: list[object], anatomy, stack: str = STACK) -> str:
    """The schedule of one stack as text."""
    start = f"{stack}["
    line = next(line for line in lower(operations, anatomy).text.splitlines() if line.startswith(start))
    return line.split(": ")[1]


def flat(operations: list[object], anatomy, stack: str = STACK) -> list[object]:
    """The executions of a schedule: a layer's index, or (layer, scale), or (frozenset of layers, combine)."""
    done: list[object] = []

    def run(items):
        for item in items:
            match item:
                case Layer(index, scale):
                    done.append(index if scale == 1.0 else (index, scale))
                case Group(layers, combine, loops):
                    done.extend([(frozenset(layer.index for layer in layers), combine)] * loops)
                case Repetition(inner, times):
                    for _ in range(times):
                        run(inner)

    run(lower(operations, anatomy).schedule(stack).items)
    return done


@st.composite
def runs(draw, num_blocks: int = NUM_BLOCKS) -> tuple[int, int]:
    start = draw(st.integers(0, num_blocks - 1))
    return start, draw(st.integers(start + 1, num_blocks))


SELECTIONS = st.lists(st.integers(0, NUM_BLOCKS - 1), min_size=1, max_size=10, unique=True)


def subscript(layers) -> str:
    return f"{STACK}[{', '.join(str(layer) for layer in layers)}]"


def test_no_operations_are_the_identity(anatomies):
    for anatomy in anatomies.values():
        assert lower([], anatomy).is_identity
    assert text_of([], anatomies["pixart"]) == "0:28"
    assert text_of([], anatomies["flux"], "single_transformer_blocks") == "0:38"


@given(SELECTIONS)
def test_reverse_twice_is_the_identity(anatomies, layers):
    reverse = {"reverse": subscript(layers)}
    assert lower([reverse, reverse], anatomies["pixart"]).is_identity


@given(SELECTIONS, st.integers(0, 2**32))
def test_shuffle_is_that_of_random(anatomies, layers, seed):
    expected = list(range(NUM_BLOCKS))
    order = sorted(layers)
    random.Random(seed).shuffle(order)
    for position, layer in zip(sorted(layers), order, strict=True):
        expected[position] = layer
    assert flat([{"shuffle": {"layers": subscript(layers), "seed": seed}}], anatomies["pixart"]) == expected


@given(SELECTIONS, SELECTIONS)
def test_skips_add_up_in_any_order(anatomies, one, other):
    other = [layer for layer in other if layer not in one] or [next(i for i in range(NUM_BLOCKS) if i not in one)]
    first, second = {"skip": subscript(one)}, {"skip": subscript(other)}
    both = lower([first, second], anatomies["pixart"])
    assert (
        both
        == lower([second, first], anatomies["pixart"])
        == lower([{"skip": subscript(one + other)}], anatomies["pixart"])
    )


@given(SELECTIONS)
def test_skip_leaves_out_the_selected_layers_and_no_others(anatomies, layers):
    expected = [layer for layer in range(NUM_BLOCKS) if layer not in layers]
    assert flat([{"skip": subscript(layers)}], anatomies["pixart"]) == expected


@given(SELECTIONS)
def test_reverse_exchanges_the_selected_positions_end_for_end(anatomies, layers):
    expected = list(range(NUM_BLOCKS))
    for position, layer in zip(sorted(layers), sorted(layers, reverse=True), strict=True):
        expected[position] = layer
    assert flat([{"reverse": subscript(layers)}], anatomies["pixart"]) == expected


@given(runs(), st.integers(1, 7))
def test_repeat_runs_the_run_as_often_as_it_says(anatomies, run, times):
    start, end = run
    expected = [*range(start), *list(range(start, end)) * times, *range(end, NUM_BLOCKS)]
    repeat = {"repeat": {"layers": f"{STACK}[{start}:{end}]", "times": times}}
    assert flat([repeat], anatomies["pixart"]) == expected


@given(runs())
def test_a_middle_repeat_runs_one_layer_in_every_position(anatomies, run):
    start, end = run
    center = range(start, end)[(end - start - 1) // 2]
    expected = [*range(start), *[center] * (end - start), *range(end, NUM_BLOCKS)]
    for using in ("center", center):
        repeat = {"repeat": {"layers": f"{STACK}[{start}:{end}]", "using": using}}
        assert flat([repeat], anatomies["pixart"]) == expected


@given(runs(), st.sampled_from(["mean", "sum"]), st.integers(1, 4))
def test_parallel_makes_one_group_of_the_run(anatomies, run, combine, loops):
    start, end = run
    members = range(start, end)
    group = [(frozenset(members), combine)] if len(members) > 1 else [start]
    expected = [*range(start), *group * loops, *range(end, NUM_BLOCKS)]
    parallel = {"parallel": {"layers": f"{STACK}[{start}:{end}]", "combine": combine, "loops": loops}}
    assert flat([parallel], anatomies["pixart"]) == expected


@given(SELECTIONS, st.sampled_from([0.0, 0.5, -1.0, 2.0]))
def test_scale_touches_the_selected_layers_and_keeps_the_order(anatomies, layers, by):
    expected = [(layer, by) if layer in layers else layer for layer in range(NUM_BLOCKS)]
    assert flat([{"scale": {"layers": subscript(layers), "by": by}}], anatomies["pixart"]) == expected


@given(st.lists(st.integers(0, NUM_BLOCKS - 1), min_size=1, max_size=40))
def test_order_is_the_schedule_as_written(anatomies, layers):
    assert flat([{"order": {"stack": STACK, "as": layers}}], anatomies["pixart"]) == layers


def test_order_takes_ranges_negative_layers_and_groups(anatomies):
    written = [0, "5:9", -1, {"parallel": [10, 11], "loops": 2, "combine": "sum"}, ":2"]
    group = (frozenset({10, 11}), "sum")
    expected = [0, 5, 6, 7, 8, 27, group, group, 0, 1]
    assert flat([{"order": {"stack": STACK, "as": written}}], anatomies["pixart"]) == expected


@pytest.mark.parametrize(
    ("anatomy", "stack", "middle", "center"),
    [
        ("flux", "transformer_blocks", range(3, 17), 9),
        ("flux", "single_transformer_blocks", range(4, 36), 19),
        ("sd3", "transformer_blocks", range(14, 18), 15),
        ("sd3", "transformer_blocks", range(18, 22), 19),
    ],
)
def test_the_center_of_a_middle_repeat_is_that_of_the_published_runs(anatomies, anatomy, stack, middle, center):
    repeat = {"repeat": {"layers": f"{stack}[{middle.start}:{middle.stop}]", "using": "center"}}
    assert flat([repeat], anatomies[anatomy], stack)[middle.start : middle.stop] == [center] * len(middle)


@pytest.mark.parametrize("start", range(13))
def test_the_painters_middle_is_what_their_paper_says(anatomies, start):
    num_middle = NUM_BLOCKS - 2 * start - 1
    middle = list(range(start + 1, NUM_BLOCKS - start))
    before, after = list(range(start + 1)), list(range(NUM_BLOCKS - start, NUM_BLOCKS))
    layers = f"{STACK}[{start + 1}:{NUM_BLOCKS - start}]"
    group = (frozenset(middle), "mean")
    shuffled = list(middle)
    random.Random(7).shuffle(shuffled)
    runs = {
        "skip": ({"skip": layers}, []),
        "middle repeat": ({"repeat": {"layers": layers, "using": "center"}}, [NUM_BLOCKS // 2] * num_middle),
        "reverse": ({"reverse": layers}, middle[::-1]),
        "random": ({"shuffle": {"layers": layers, "seed": 7}}, shuffled),
        "parallel": ({"parallel": layers}, [group]),
        "looped parallel 3X": ({"parallel": {"layers": layers, "loops": 3}}, [group] * 3),
        "2x repeat": ({"repeat": {"layers": layers, "times": 2}}, middle * 2),
    }
    for name, (operation, expected) in runs.items():
        assert flat([operation], anatomies["pixart"]) == [*before, *expected, *after], name


def test_a_looped_parallel_of_one_layer_runs_that_layer(anatomies):
    assert text_of([{"parallel": {"layers": f"{STACK}[14]", "loops": 3}}], anatomies["pixart"]) == "0:14 (14)x3 15:28"


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ([{"skip": "transformer_blocks[3:6]"}, {"reverse": "transformer_blocks[2, 6]"}], "0:2 6 2 7:28"),
        ([{"skip": "transformer_blocks[5]"}, {"parallel": "transformer_blocks[4, 6]"}], "0:4 (4|6) 7:28"),
        ([{"parallel": "transformer_blocks[4:7]"}, {"skip": "transformer_blocks[5]"}], "0:4 (4|6) 7:28"),
        ([{"parallel": "transformer_blocks[4:6]"}, {"skip": "transformer_blocks[5]"}], "0:5 6:28"),
        (
            [{"parallel": "transformer_blocks[4:6]"}, {"repeat": {"layers": "transformer_blocks[4:7]", "times": 2}}],
            "0:4 ((4|5) 6)x2 7:28",
        ),
        (
            [{"repeat": {"layers": "transformer_blocks[4:6]", "times": 3}}, {"skip": "transformer_blocks[5]"}],
            "0:4 (4)x3 6:28",
        ),
        (
            [
                {"parallel": "transformer_blocks[4:6]"},
                {"scale": {"layers": "transformer_blocks[4:7]", "by": 0.5}},
                {"scale": {"layers": "transformer_blocks[6]", "by": 0.5}},
            ],
            "0:4 (4*0.5|5*0.5) 6*0.25 7:28",
        ),
        (
            [
                {"order": {"stack": STACK, "as": [0, 1, 0, 1, 2]}},
                {"scale": {"layers": "transformer_blocks[0]", "by": 2}},
            ],
            "0*2 1 0*2 1:3",
        ),
        ([{"skip": "transformer_blocks[:]"}], "-"),
    ],
)
def test_operations_apply_in_order_to_every_occurrence(anatomies, operations, text):
    assert text_of(operations, anatomies["pixart"]) == text


def test_a_star_takes_every_stack(anatomies):
    plan = lower([{"skip": "*[-1]", "expect": 2}], anatomies["flux"])
    assert [schedule.removed for schedule in plan.schedules] == [(18,), (37,)]


def test_the_last_block_of_another_kind_may_stay_last_or_go(anatomies):
    sd3 = anatomies["sd3"]
    assert text_of([{"skip": "transformer_blocks[23]"}], sd3) == "0:23"
    assert text_of([{"scale": {"layers": "transformer_blocks[23]", "by": 0.5}}], sd3) == "0:23 23*0.5"
    assert text_of([{"parallel": "transformer_blocks[4:23]"}], sd3).endswith(" 23")
    with pytest.raises(SpecError, match="it can't run earlier; leave it last, or out"):
        lower([{"order": {"stack": STACK, "as": ["0:22", 23, 22]}}], sd3)


def test_a_star_replaces_the_components_that_can_be_replaced(anatomies):
    plan = lower([{"replace": {"component": "transformer_blocks[22:].*", "with": "zero"}}], anatomies["sd3"])
    assert [replaced.path for replaced in plan.replacements] == [
        "transformer_blocks.22.attn",
        "transformer_blocks.22.ff",
        "transformer_blocks.22.ff_context",
        "transformer_blocks.23.attn",
        "transformer_blocks.23.ff",
    ]


def test_means_must_be_there_and_fit(anatomies):
    replaced = [{"replace": {"component": "transformer_blocks[3].attn", "with": "mean"}}]
    path = "transformer_blocks.3.attn"
    widths = {f"{path}/hidden_states": 1152, f"{path}/encoder_hidden_states": 1152}
    plan = lower(replaced, anatomies["sd3"], MeanValues("sha256:00", widths))
    assert plan.replacements[0].values == "sha256:00"
    with pytest.raises(SpecError, match="has no mean of encoder_hidden_states in the profile"):
        lower(replaced, anatomies["sd3"], MeanValues("sha256:00", {f"{path}/hidden_states": 1152}))
    with pytest.raises(SpecError, match="has 1152 channels of hidden_states, but 64 means in the profile"):
        lower(replaced, anatomies["sd3"], MeanValues("sha256:00", {**widths, f"{path}/hidden_states": 64}))
    with pytest.raises(SpecError, match="takes its means from a profile"):
        lower(replaced, anatomies["sd3"])


@st.composite
def selectors(draw) -> str:
    stack = draw(st.sampled_from(["transformer_blocks"] * 4 + ["single_transformer_blocks", "*"]))
    layers = [str(draw(st.integers(-3, 27)))]
    if draw(st.booleans()):
        start = draw(st.integers(0, 24))
        layers = [f"{start}:{start + draw(st.integers(1, 6))}"]
    return f"{stack}[{', '.join(layers)}]"


@st.composite
def operations(draw) -> dict[str, object]:
    layers = draw(selectors())
    loops = draw(st.integers(1, 4))
    match draw(st.sampled_from(get_args(AnyOperation))).__name__:
        case "Skip":
            return {"skip": layers}
        case "Reverse":
            return {"reverse": layers}
        case "Shuffle":
            return {"shuffle": {"layers": layers, "seed": loops}}
        case "Repeat":
            how = draw(st.sampled_from([{"times": loops}, {"using": "center"}, {"using": loops}]))
            return {"repeat": {"layers": layers, **how}}
        case "Parallel":
            return {"parallel": {"layers": layers, "loops": loops, "combine": draw(st.sampled_from(["mean", "sum"]))}}
        case "Scale":
            return {"scale": {"layers": layers, "by": draw(st.floats(-2, 2))}}
        case "Order":
            items = draw(st.lists(st.integers(0, 18) | st.just("2:9") | st.just({"parallel": [3, 4]}), min_size=1))
            return {"order": {"stack": layers.split("[")[0], "as": items}}
        case "Replace":
            component = draw(st.sampled_from(["attn1", "attn", "ff", "norm1", "*", "ff_context"]))
            with_ = draw(st.sampled_from(["zero", "input", "channel_mean"]))
            return {"replace": {"component": f"{layers}.{component}", "with": with_}}
    raise AssertionError("an operation that this test does not know")


@settings(max_examples=300)
@given(st.lists(operations(), max_size=5), st.sampled_from(["pixart", "sd3", "flux"]))
def test_any_operations_are_a_plan_that_can_be_read_back_or_have_faults(anatomies, found, name):
    try:
        plan = lower(found, anatomies[name])
    except SpecError as error:
        assert all(fault.startswith("spec.yaml:1:") for fault in error.faults)
        return
    assert plan_from_text(plan.text) == plan
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for schedule, stack in zip(plan.schedules, anatomies[name].stacks, strict=True):
        assert set(count_executions(schedule.items)) == set(range(stack.num_blocks)) - set(schedule.removed)


def test_the_reverse_law_fails_when_positions_are_not_reversed(anatomies, monkeypatch):
    monkeypatch.setattr(edits, "reversed_", lambda items, positions: items)
    assert flat([{"reverse": subscript([3, 4, 5])}], anatomies["pixart"])[3:6] != [5, 4, 3]


def test_the_painters_law_fails_when_the_center_is_rounded_up(anatomies, monkeypatch):
    def round_up(self, operation, stack, before, positions):
        return before[positions[len(positions) // 2]]

    monkeypatch.setattr(lower_module._Lowering, "layer_to_use", round_up)
    repeat = {"repeat": {"layers": "single_transformer_blocks[4:36]", "using": "center"}}
    assert flat([repeat], anatomies["flux"], "single_transformer_blocks")[4] != 19


def test_the_shuffle_law_fails_with_another_seed(anatomies, monkeypatch):
    expected = list(range(8))
    random.Random(1).shuffle(expected)
    shuffle = {"shuffle": {"layers": f"{STACK}[0:8]", "seed": 1}}
    assert flat([shuffle], anatomies["pixart"])[:8] == expected
    seeded = random.Random
    monkeypatch.setattr(edits.random, "Random", lambda seed: seeded(seed + 1))
    assert flat([shuffle], anatomies["pixart"])[:8] != expected


def test_the_check_of_every_plan_fails_when_lowering_forgets_the_canonical_form(anatomies, monkeypatch):
    monkeypatch.setattr(lower_module, "canonical", lambda items: items)
    with pytest.raises(ValueError, match="is not in canonical form"):
        lower([{"order": {"stack": STACK, "as": [1, 1]}}], anatomies["pixart"])


@pytest.mark.parametrize("names", [("ff", "ff_context"), ("ff_context", "ff")])
def test_components_of_which_one_has_the_beginning_of_the_others_name_are_both_replaced(anatomies, names):
    """Only a component within another one is replaced with it: `ff.net`, not `ff_context`, is within `ff`."""
    replaced = [{"replace": {"component": f"{STACK}[2].{name}", "with": "zero"}} for name in names]
    assert [item.component for item in lower(replaced, anatomies["sd3"]).replacements] == ["ff", "ff_context"]


@pytest.mark.parametrize("names", [("ff", "ff.net.0.proj"), ("ff.net.0.proj", "ff")])
def test_a_component_and_one_within_it_are_not_both_replaced(anatomies, names):
    with pytest.raises(SpecError, match="are both replaced, and one holds the other"):
        lower([{"replace": {"component": f"{STACK}[2].{name}", "with": "zero"}} for name in names], anatomies["pixart"])


def test_a_group_that_loses_a_member_keeps_how_it_combines_and_how_often_it_runs(anatomies):
    grouped = {"parallel": {"layers": f"{STACK}[4:8]", "combine": "sum", "loops": 3}}
    text = text_of([grouped, {"skip": f"{STACK}[5]"}], anatomies["pixart"])
    assert text == "0:4 (4|6|7)+x3 8:28"


@pytest.mark.parametrize(
    "stacks", [("transformer_blocks", "single_transformer_blocks"), ("single_transformer_blocks", STACK)]
)
def test_of_stacks_that_take_turns_one_is_edited(anatomies, stacks):
    double, single = anatomies["flux"].stacks
    anatomy = dataclasses.replace(
        anatomies["flux"], stacks=(dataclasses.replace(double, between=(single.name,)), single)
    )
    first, second = ({"skip": f"{stack}[1]"} for stack in stacks)
    lower([first], anatomy)
    message = rf"{stacks[1]} and {stacks[0]} take turns in the forward: .*, and {stacks[0]} is edited in line 1"
    with pytest.raises(SpecError, match=message):
        lower([first, second], anatomy)
