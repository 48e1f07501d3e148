"""The text of a suggestion: it reads back as what was chosen, whatever names it holds."""

import pytest

from surgery.profiles.suggested_spec import ProfileFacts, write_suggestion
from surgery.profiles.suggestion import choose_layers
from surgery.spec.load import read_spec
from surgery.spec.operations import Repeat, Skip
from surgery.spec.selector import indices_of_part

STACKS = {"transformer_blocks": 5, "single_transformer_blocks": 8}
NAMES = [
    "demo",
    "owner/name-1.0",
    "no",
    "a: b",
    "/models/my model",
    "1e3",
    "line\nbreak",
    "~/x",
    "null",
    "#x",
    "é/ü",
    "",
]


@pytest.fixture(scope="module")
def choices(made):
    """By method, of two stacks or one of them."""
    profile = made.make_profile(STACKS.items(), streams=("text", "hidden_states"))
    return {
        "influence": choose_layers(profile, 5, by="influence", stacks=list(STACKS)),
        "span": choose_layers(profile, 3, by="span", stacks=["transformer_blocks"]),
        "greedy": choose_layers(profile, 3, by="greedy", stacks=["single_transformer_blocks"]),
    }


def text_of(choice, use="remove", model="demo", **recipe):
    facts = ProfileFacts("p.safetensors", "ab" * 32, {"model": model, **recipe})
    return write_suggestion(choice, use, facts, STACKS, model=model)


def layers_of(operation):
    return {
        (selector.stack, index)
        for selector in operation.layers
        for part in selector.parts
        for index in indices_of_part(part, STACKS[selector.stack])
    }


@pytest.mark.parametrize("by", ["influence", "span", "greedy"])
@pytest.mark.parametrize("use", ["remove", "repeat"])
def test_the_operations_are_those_of_the_choice(choices, by, use):
    operations = read_spec(text_of(choices[by], use)).operations
    assert set().union(*map(layers_of, operations)) == {(layer.stack, layer.index) for layer in choices[by].layers}
    assert {type(operation) for operation in operations} == {Skip if use == "remove" else Repeat}
    if use == "remove":
        assert all(operation.expect == len(layers_of(operation)) for operation in operations)


@pytest.mark.parametrize("model", NAMES)
def test_any_name_of_a_model_is_read_back(choices, model):
    assert read_spec(text_of(choices["span"], model=model or None)).model == (model or None)


def test_nothing_of_a_recipe_breaks_out_of_its_comment(choices):
    text = text_of(choices["span"], model="demo", mode="x\noperations: []", samples=["1"])
    assert "1 sample, x operations: [];" in text.replace("\n# ", " ")
    assert len(read_spec(text).operations) == 1


def test_each_layer_stands_with_its_number(choices):
    for by in ("influence", "greedy"):
        lines = text_of(choices[by]).splitlines()
        for layer in choices[by].layers:
            name = f"  # {layer.stack}[{layer.index}] "
            (line,) = (line for line in lines if line.startswith(name))
            assert line.split()[2:] == [f"{layer.value:.6f}", str(layer.rank)]
    span = choices["span"].layers
    named = f"transformer_blocks[{span[0].index}:{span[-1].index + 1}]: {span[0].value:.6f} of pi, the least of 1 spans"
    assert named in text_of(choices["span"])


def test_no_line_is_long(choices):
    for by, choice in choices.items():
        assert all(len(line) <= 120 for line in text_of(choice, samples=["1"]).splitlines()), by
