"""Every bad spec in this folder gives, to the letter, the text that lies beside it."""

import re
from pathlib import Path

import pytest

from surgery.errors import NotYetError, SpecError
from surgery.plan.paired import ModelPlan
from surgery.plan.planned_pair import plan_model
from surgery.spec.load import read_spec

FOLDER = Path(__file__).parent
SPECS = sorted(FOLDER.glob("*.yaml"))


def plan_of(content: bytes, file: str, anatomies) -> ModelPlan:
    """The plan for the anatomy that the first line names, or for the two of a pipeline with two transformers."""
    header = re.match(rb"# anatomy: (\w+)(?: and (\w+))?\n", content)
    assert header is not None, "the first line names the anatomy"
    first, second = (None if name is None else anatomies[name.decode()] for name in header.groups())
    return plan_model(read_spec(content, file=file), first, lambda: second).plan


def message_of(content: bytes, file: str, anatomies) -> str:
    with pytest.raises((SpecError, NotYetError), match=rf"^{re.escape(file)}:\d+:\d+: ") as caught:
        plan_of(content, file, anatomies)
    return f"{caught.value}\n"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_bad_spec_gives_the_text_beside_it(path, anatomies):
    assert message_of(path.read_bytes(), path.name, anatomies) == path.with_suffix(".txt").read_text()


def test_every_spec_has_a_text_and_every_text_a_spec():
    assert {path.stem for path in SPECS} == {path.stem for path in FOLDER.glob("*.txt")}
    assert len(SPECS) >= 28


def test_every_line_of_a_text_points_into_the_file_and_says_more_than_a_fact():
    for path in SPECS:
        lines = path.read_bytes().decode(errors="replace").split("\n")
        for fault in path.with_suffix(".txt").read_text().splitlines():
            assert re.match(rf"{re.escape(path.name)}:\d+:\d+: [^;]+([;:,] .+|can't be used here)", fault), fault
            line, column = (int(number) for number in fault.split(":")[1:3])
            assert 1 <= column <= len(lines[line - 1]) + 1, fault


NEIGHBOURS = {
    "aliases_too_deep": ("&a [*a]", "[]"),
    "closed_range": ("[5-8]\n  - reverse: transformer_blocks[1..3, 5]\n  - shuffle: transformer_blocks[9-4]", "[5:9]"),
    "component_missing_in_last_block": ("[:]", "[:23]"),
    "component_of_another_stack": ("[2].ff", "[2].attn"),
    "component_star_within_a_name": ("conv*", "*"),
    "control_characters": (r"\x07\x85", ""),
    "duplicate_in_selector": ("0:10, 5:12", "0:10, 10:12"),
    "empty_range": ("15:4", "4:15"),
    "expect_mismatch": ("expect: 10", "expect: 11"),
    "expect_zero": ("expect: 0", "expect: 1"),
    "fault_behind_an_alias": ("26, 28", "26, 27"),
    "gone_layers": ("reverse: transformer_blocks[2:9]", "reverse: transformer_blocks[8:12]"),
    "group_named_as_a_stack": ("  transformer_blocks: ", "  middle: "),
    "group_unknown": ("midle", "middle"),
    "group_names_a_layer_twice": (", first]", "]"),
    "indented_behind_a_dash": ("   expect", "    expect"),
    "indented_too_far": ("        times", "      times"),
    "indented_too_little": ("     times", "      times"),
    "kind_grouped": ("20:24", "20:23"),
    "kind_moved": ("20:24", "20:23"),
    "kind_repeated": ("-1", "-2"),
    "misspelt_component": ("atn1", "attn1"),
    "misspelt_stack": ("transfomer", "transformer"),
    "negative_step": ("15:4:-1", "4:15:1"),
    "nested_groups": ("3:9", "8:10"),
    "operation_without_a_value": ("skip:", "skip: transformer_blocks[3]"),
    "order_misspelt_stack": ("transformer_block,", "transformer_blocks,"),
    "order_not_first": ("  - skip: transformer_blocks[3]\n", ""),
    "order_with_star": ('"*"', "transformer_blocks"),
    "out_of_range": ("28", "27"),
    "out_of_range_negative": ("-29", "-28"),
    "parallel_not_neighbours": ("4, 6:9", "4, 5:9"),
    "parallel_with_star": ("*[", "transformer_blocks["),
    "partial_group": ("6:10", "4:10"),
    "partial_loop": ("[4, 5]", "[4:8]"),
    "repeat_without_a_mapping": ("transformer_blocks[4:9]", '{layers: "transformer_blocks[4:9]", times: 2}'),
    "replace_input_of_another_shape": ("with: input", "with: zero"),
    "selector_not_ascii_digits": ("²", "2"),
    "stack_star_matches_nothing": ("*.blocks", "*"),
    "times_and_using": (", using: center", ""),
    "times_too_many": ("1001", "1000"),
    "unknown_operation": ("skp", "skip"),
    "using_misspelt": ("centre", "center"),
    "windows_line_ends": ("skp", "skip"),
    "wrong_type_by": (".nan", "1e-3"),
    "yaml_base_60_in_order": ("5:9", '"5:9"'),
    "yaml_braces": ("transformer_blocks[4:15]", '"transformer_blocks[4:15]"'),
    "yaml_brackets": ("transformer_blocks[4:15]", '"transformer_blocks[4:15]"'),
    "yaml_no": ("with: no", "with: zero"),
    "yaml_star": ("*[3:5]", '"*[3:5]"'),
    "yaml_tag": ("!!python/name:os.system ", "!!str "),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_nearest_valid_neighbour_of_a_bad_spec_is_a_plan(name, anatomies):
    bad = (FOLDER / f"{name}.yaml").read_text()
    old, new = NEIGHBOURS[name]
    assert old in bad
    assert plan_of(bad.replace(old, new).encode(), "good.yaml", anatomies).hash


def test_the_comparison_fails_when_one_character_of_a_message_changes(anatomies, monkeypatch):
    path = FOLDER / "misspelt_stack.yaml"
    monkeypatch.setattr("surgery.spec.nearest.nearest", lambda name, known: None)
    assert message_of(path.read_bytes(), path.name, anatomies) != path.with_suffix(".txt").read_text()
