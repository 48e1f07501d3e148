"""The drawings show what a plan runs: all of it, in its order, with every edit marked."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_anatomy, tiny_model

from surgery.graph.variant import build_variant, forward_of_variant
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import Group, Layer, Repetition, Schedule, canonical, iter_layers
from surgery.report.cells import SkippedCell, cells_of_plan, iter_boxes
from surgery.report.draw_svg import draw_svg
from surgery.report.draw_text import draw_text
from surgery.spec.load import read_spec

LAYERS = st.builds(Layer, st.integers(0, 27), st.sampled_from((1.0, 1.0, 1.0, 0.5)))
GROUPS = st.builds(
    Group,
    st.lists(LAYERS, min_size=2, max_size=20, unique_by=lambda layer: layer.index).map(tuple),
    st.sampled_from(("mean", "sum")),
    st.integers(1, 4),
)
ITEMS = (
    LAYERS
    | GROUPS
    | st.builds(Repetition, st.lists(LAYERS | GROUPS, min_size=1, max_size=4).map(tuple), st.integers(2, 4))
)
SCHEDULES = st.lists(ITEMS, max_size=12).map(lambda items: Schedule("transformer_blocks", 28, canonical(tuple(items))))


def plan_of(schedule, *replacements):
    return Plan("PixArtTransformer2DModel", (schedule,), replacements)


def spec_plan(anatomy, *operations):
    text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
    return lower_spec(read_spec(text), anatomy)


@given(SCHEDULES)
def test_every_execution_is_a_box_and_every_layer_is_shown(anatomies, schedule):
    (layout,) = cells_of_plan(plan_of(schedule), anatomies["pixart"])
    assert [box.index for box in iter_boxes(layout.cells)] == [layer.index for layer in iter_layers(schedule.items)]
    skipped = [index for cell in layout.cells if isinstance(cell, SkippedCell) for index in range(cell.first, cell.end)]
    assert sorted(skipped) == list(schedule.removed)


@given(SCHEDULES)
def test_every_edit_is_marked(anatomies, schedule):
    (layout,) = cells_of_plan(plan_of(schedule), anatomies["pixart"])
    boxes = list(iter_boxes(layout.cells))
    for box, layer in zip(boxes, iter_layers(schedule.items), strict=True):
        assert (f"x{layer.scale:g}" in box.notes) == (layer.scale != 1.0)
        assert box.again == (sum(other.index == box.index for other in boxes) > 1)
    still = [box.index for box in boxes if not box.moved and not box.again]
    assert still == sorted(still) or any(isinstance(item, (Group, Repetition)) for item in schedule.items)


@given(SCHEDULES)
def test_the_svg_is_xml_and_names_every_layer(anatomies, schedule):
    plan = plan_of(schedule, ReplacedComponent("transformer_blocks", 3, "ff", "zero"))
    root = ElementTree.fromstring(draw_svg(plan, anatomies["pixart"], title="<b> & 'c' \"d\""))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "<b> & 'c' \"d\""
    assert texts.count("ff = zero") == sum(layer.index == 3 for layer in iter_layers(schedule.items))
    for layer in iter_layers(schedule.items):
        assert str(layer.index) in texts
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for element in root.iter("{http://www.w3.org/2000/svg}text"):
        assert element.get("fill") and element.get("font-size")  # for renderers without style sheets
    for element in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert element.get("fill", "none") != "none"
        assert float(element.get("x", 0)) + float(element.attrib["width"]) <= width
        assert float(element.get("y", 0)) + float(element.attrib["height"]) <= height


@given(SCHEDULES)
def test_the_text_fits_a_terminal(anatomies, schedule):
    for line in draw_text(plan_of(schedule), anatomies["pixart"]).splitlines():
        assert len(line) <= 130


def test_an_unedited_model_has_no_marks(anatomies):
    for anatomy in anatomies.values():
        schedules = tuple(
            Schedule(stack.name, stack.num_blocks, tuple(Layer(index) for index in range(stack.num_blocks)))
            for stack in anatomy.stacks
        )
        plan = Plan(anatomy.class_name, schedules)
        for line in draw_text(plan, anatomy).splitlines():
            assert re.fullmatch(r"\w+  \d+ layers; .*|    │  0:\d+|    ▼|", line)
        assert not re.search(r'class="(changed|skipped|parallel|repeated)', draw_svg(plan, anatomy, title="x"))


def test_the_drawing_of_all_kinds_of_edits(anatomies):
    plan = spec_plan(
        anatomies["pixart"],
        "scale: {layers: 'transformer_blocks[0]', by: 0.5}",
        "skip: 'transformer_blocks[2:4]'",
        "parallel: {layers: 'transformer_blocks[4:9]', loops: 2}",
        "replace: {component: 'transformer_blocks[9].attn2', with: zero}",
        "reverse: 'transformer_blocks[11:14]'",
        "repeat: {layers: 'transformer_blocks[16:18]', times: 3}",
    )
    assert draw_text(plan, anatomies["pixart"]) == (
        "transformer_blocks  28 layers; streams: hidden_states\n"
        " *  │  0      x0.5\n"
        "    │  1\n"
        " -  ┊  2:4    skipped\n"
        "    ├──┬──┬──┬──┐\n"
        " =  4  5  6  7  8   5 in parallel, mean of the outputs, 2 times\n"
        "    ├──┴──┴──┴──┘\n"
        " *  │  9      attn2 = zero\n"
        "    │  10\n"
        " *  │  13  moved\n"
        "    │  12\n"
        " *  │  11  moved\n"
        "    │  14:16\n"
        " x  │  16:18  3 times in a row\n"
        "    │  18:28\n"
        "    ▼\n"
        "\n"
        "- skipped, * changed, = in parallel, x repeated"
    )


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("pixart", "reverse: 'transformer_blocks[0:3]'"),
        ("pixart", "skip: 'transformer_blocks[1]'"),
        ("sd3", "parallel: {layers: 'transformer_blocks[0:3]'}"),
        ("pixart", "repeat: {layers: 'transformer_blocks[1:3]', using: 2}"),
        ("flux", "reverse: 'transformer_blocks[0:3]'"),  # two stacks
    ],
)
def test_what_is_drawn_is_what_the_rewritten_graph_runs(name, operation):
    model, anatomy = tiny_model(name), tiny_anatomy(name)
    plan = spec_plan(anatomy, operation)
    variant = build_variant(model, plan, anatomy)
    source = forward_of_variant(variant).first_source
    ran = [(stack, int(index)) for stack, index in re.findall(r'getattr\(self\.(\w+), "(\d+)"\)\(', source)]
    drawn = []
    for layout, schedule in zip(cells_of_plan(plan, anatomy), plan.schedules, strict=True):
        times = schedule.items[1].times if "using" in operation and not schedule.is_identity else 1
        for box in iter_boxes(layout.cells):
            drawn += [(layout.name, box.index)] * (times if is_looped(schedule, box.index) else 1)
    assert ran == drawn


def is_looped(schedule, index):
    """Whether a layer stands in a loop of its own."""
    return any(isinstance(item, Repetition) and item.items[0] == Layer(index) for item in schedule.items)
