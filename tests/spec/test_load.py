import pytest

from surgery.errors import InputError, SpecError
from surgery.spec.load import Spec, load_spec, read_spec
from surgery.spec.operations import Replace, Skip
from surgery.spec.selector import Selector


def read(groups: str, operation: str) -> Spec:
    return read_spec(f"surgery: v1\ngroups:\n{groups}operations:\n- {operation}\n")


def selected(spec: Spec) -> tuple[Selector, ...]:
    (operation,) = spec.operations
    assert isinstance(operation, Skip)
    return operation.layers


def test_a_group_is_what_it_stands_for():
    named = read("  middle: transformer_blocks[4:15]\n", "skip: middle")
    (group,) = selected(named)
    (written,) = selected(read("  x: blocks[0]\n", "skip: transformer_blocks[4:15]"))
    assert (group.stack, group.text) == (written.stack, written.text)
    assert [(part.start, part.stop) for part in group.parts] == [(4, 15)]


def test_a_group_may_be_a_list_and_take_groups_before_it():
    spec = read('  ends: ["blocks[0]", "blocks[-1]"]\n  more: [ends, "blocks[3]"]\n', "skip: more")
    assert [selector.text for selector in selected(spec)] == ["blocks[0]", "blocks[-1]", "blocks[3]"]


def test_a_group_is_not_known_before_it_is_defined():
    with pytest.raises(
        SpecError, match=r'^spec.yaml:3:9: "ends" has no subscript and is no group; no groups are defined'
    ):
        read('  more: ends\n  ends: "blocks[0]"\n', "skip: more")


def test_a_component_may_follow_after_a_group():
    spec = read('  ends: ["blocks[0]", "blocks[-1]"]\n', "replace: {component: ends.attn1, with: zero}")
    (operation,) = spec.operations
    assert isinstance(operation, Replace)
    assert [selector.component for selector in operation.components] == ["attn1", "attn1"]


def test_a_broken_group_is_one_fault_and_not_one_for_each_use():
    with pytest.raises(SpecError, match=r"^spec.yaml:3:18: the step -1 is not positive") as caught:
        read("  middle: blocks[9:4:-1]\n", "skip: middle\n- reverse: middle")
    assert len(caught.value.faults) == 1


def test_a_group_from_a_profile_keeps_its_reference():
    (group,) = read('  middle: "means.safetensors#blocks.middle"\n', "skip: middle").profile_groups
    assert (group.name, group.reference) == ("middle", "means.safetensors#blocks.middle")


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml can't be read: No such file"):
        load_spec(tmp_path / "no.yaml")


def test_all_faults_come_in_the_order_of_their_places():
    with pytest.raises(SpecError, match="titel") as caught:
        read_spec("surgery: v2\ntitel: x\noperations:\n- skip: 3\n- reverse: 4\n- scale: {by: x}\n")
    places = [tuple(int(number) for number in fault.split(":")[1:3]) for fault in caught.value.faults]
    assert places == sorted(places)
    assert [line for line, _ in places] == [1, 2, 4, 5, 6, 6]
