from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import SpecError
from surgery.spec import selector as selector_module
from surgery.spec.document import Scalar
from surgery.spec.places import Faults, Place
from surgery.spec.selector import Groups, Index, Range, Selector, indices_of_part, indices_to_text, read_selector


def read_all(text: str, groups: Groups | None = None) -> tuple[Selector, ...]:
    faults = Faults("t.yaml")
    found = read_selector(Scalar(text, text, Place(1, 1)), groups or {}, faults)
    faults.raise_if_any()
    return found


def read_one(text: str) -> Selector:
    (selector,) = read_all(text)
    return selector


def indices_of(text: str, num_blocks: int) -> list[int]:
    found = [indices_of_part(part, num_blocks) for part in read_one(f"blocks[{text}]").parts]
    return [index for indices in found for index in indices or []]


@given(
    st.lists(st.integers(-30, 30) | st.none(), min_size=2, max_size=2),
    st.integers(1, 5) | st.none(),
    st.integers(1, 30),
)
def test_a_range_selects_what_a_python_slice_does(ends, step, num_blocks):
    start, stop = ends
    text = ":".join("" if number is None else str(number) for number in (start, stop, step))
    assert indices_of(text, num_blocks) == list(range(num_blocks))[start:stop:step]


@given(st.integers(-40, 40), st.integers(1, 30))
def test_an_index_selects_what_a_python_subscript_does(index, num_blocks):
    part = read_one(f"blocks[{index}]").parts[0]
    expected = [range(num_blocks)[index]] if -num_blocks <= index < num_blocks else None
    assert indices_of_part(part, num_blocks) == expected


@given(st.sets(st.integers(0, 60), min_size=1))
def test_layers_written_as_a_subscript_select_themselves(layers):
    assert indices_of(indices_to_text(layers), 61) == sorted(layers)


@given(st.text())
def test_any_text_is_a_selector_or_a_fault(text):
    faults = Faults("t.yaml")
    found = read_selector(Scalar(text, text, Place(1, 1)), {}, faults)
    assert bool(found) != bool(faults.found)


@pytest.mark.parametrize(
    ("text", "stack", "component", "model"),
    [
        ("transformer_blocks[3]", "transformer_blocks", None, None),
        ("transformer_blocks[3].attn1", "transformer_blocks", "attn1", None),
        ("blocks[3].ff.net.0.proj", "blocks", "ff.net.0.proj", None),
        ("encoder.layers[3].*", "encoder.layers", "*", None),
        ("*[3]", "*", None, None),
        ("transformer/blocks[3].ff", "blocks", "ff", "transformer"),
        ("transformer_2/blocks[3]", "blocks", None, "transformer_2"),
    ],
)
def test_a_selector_has_a_stack_a_component_and_a_model(text, stack, component, model):
    selector = read_one(text)
    assert (selector.stack, selector.component, selector.model) == (stack, component, model)


def test_parts_keep_their_places():
    parts = read_one("blocks[0,  3, 5:9:2]").parts
    assert parts == (Index(0, Place(1, 8)), Index(3, Place(1, 12)), Range(5, 9, 2, Place(1, 15)))


@pytest.mark.parametrize("text", ["blocks[²]", "blocks[٣]", "blocks[1:٣]", "blocks[1.0]", "blocks[+1]", "blocks[--1]"])
def test_only_ascii_integers_are_indices(text):
    with pytest.raises(SpecError, match=r'^t.yaml:1:8: ".*" is no index; write an integer'):
        read_one(text)


@pytest.mark.parametrize("text", ["blocks[100001]", "blocks[99999999999]", "blocks[0:" + "9" * 5000 + "]"])
def test_absurd_indices_are_refused(text):
    with pytest.raises(SpecError, match="is larger than any stack"):
        read_one(text)
    assert read_one("blocks[100000]").parts[0] == Index(100_000, Place(1, 8))


def test_a_group_stands_for_its_selectors_also_before_a_component():
    groups = {"middle": read_all("blocks[4:15]")}
    assert read_all("middle", groups) == groups["middle"]
    (with_component,) = read_all("middle.attn1", groups)
    assert (with_component.component, with_component.component_place) == ("attn1", Place(1, 8))
    assert with_component.parts == groups["middle"][0].parts


def test_a_group_keeps_the_model_it_is_taken_of():
    (selector,) = read_all("transformer_2/middle", {"middle": read_all("blocks[4:15]")})
    assert selector.model == "transformer_2"


def test_the_python_slice_law_fails_when_ranges_include_their_end(monkeypatch):
    read_part = selector_module._read_part

    def read_part_wrongly(*args):
        part = read_part(*args)
        return replace(part, stop=part.stop + 1)

    monkeypatch.setattr(selector_module, "_read_part", read_part_wrongly)
    assert indices_of("4:15", 28) != list(range(28))[4:15]
