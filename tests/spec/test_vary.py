import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import SpecError
from surgery.spec.document import Entries, Scalar, read_document
from surgery.spec.load import read_spec
from surgery.spec.places import Faults, Place
from surgery.spec.vary import Variable, read_variables, samples, substitute


def variables_of(text: str) -> tuple[Variable, ...]:
    faults = Faults("t.yaml")
    document = read_document(text, faults)
    assert isinstance(document, Entries)
    found = read_variables(document, faults)
    faults.raise_if_any()
    return found


def worked_out(text: str, **bindings: object) -> object:
    faults = Faults("t.yaml")
    value = substitute(Scalar(text, text, Place(1, 1)), bindings, faults)
    faults.raise_if_any()
    assert isinstance(value, Scalar)
    return value.value


@given(st.integers(-99, 99), st.integers(1, 99))
def test_arithmetic_is_pythons(s, w):
    assert worked_out("{(s + 1) * 2 - s // w + s % w}", s=s, w=w) == (s + 1) * 2 - s // w + s % w


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("transformer_blocks[{s+1}:{27-s}]", "transformer_blocks[4:24]"),
        ("{s}", 3),
        ("{ s }", 3),
        ("{-s}", -3),
        ("{word}", "mean"),
        ("{x}", 0.5),
        ("{word}_{s}", "mean_3"),
        ("plain", "plain"),
    ],
)
def test_expressions_give_way_to_their_values(text, result):
    assert worked_out(text, s=3, word="mean", x=0.5) == result


@pytest.mark.parametrize(
    "text",
    ["{s ** 2}", "{__import__('os')}", "{s.real}", "{s if s else 1}", "{True}", "{1e5}", "{s +}", "{}", "{9**9**9}"],
)
def test_what_is_no_integer_arithmetic_is_a_fault(text):
    with pytest.raises(SpecError, match=r"^t.yaml:1:1: .*(can't be worked out|is no integer arithmetic)"):
        worked_out(text, s=3)


@pytest.mark.parametrize("text", ["{1000000000*s}", "{99999999999}", "{" + "9" * 5000 + "}", "{" + "-" * 5000 + "1}"])
def test_numbers_and_expressions_are_bounded(text):
    with pytest.raises(SpecError, match=r"^t.yaml:1:1: "):
        worked_out(text, s=3)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("s: range(3)", (0, 1, 2)),
        ("s: range(1)", (0,)),
        ("s: range(4, 8, 2)", (4, 6)),
        ("s: range(3, 0, -1)", (3, 2, 1)),
        ("s: [1, 2.5, zero]", (1, 2.5, "zero")),
    ],
)
def test_a_variable_has_values_in_order(text, values):
    assert variables_of(text)[0].values == values


def test_a_variable_may_run_over_the_layers_of_a_selector():
    assert variables_of("k: transformer_blocks[4:8]")[0].selector == "transformer_blocks[4:8]"


def test_samples_use_every_value_and_every_case():
    variables = variables_of("s: range(3)\nc:\n  a: []\n  b: []\n")
    bound = list(samples(variables))
    assert {binding["s"] for binding in bound} == {0, 1, 2}
    assert {id(binding["c"]) for binding in bound} == {id(case) for _, case in variables[1].cases}


def test_cases_stand_for_their_operations():
    spec = read_spec(
        "surgery: v1\n"
        "vary:\n"
        "  s: range(1, 4)\n"
        "  case:\n"
        '    skip: [{skip: "transformer_blocks[{s}]"}]\n'
        '    both: [{skip: "transformer_blocks[{s}]"}, {reverse: "transformer_blocks[{s+1}:9]"}]\n'
        "cumulative: s\n"
        "operations: [case]\n"
    )
    assert [variable.name for variable in spec.variables] == ["s", "case"]


def test_a_broken_variable_is_one_fault_and_not_one_for_each_use():
    with pytest.raises(SpecError, match=r"^spec.yaml:3:6: range\(0, 0\) is empty") as caught:
        read_spec('surgery: v1\nvary:\n  s: range(0, 0)\noperations:\n- skip: "blocks[{s}]"\n- skip: "blocks[{s+1}]"\n')
    assert len(caught.value.faults) == 1


def test_a_fault_for_some_values_only_is_found():
    text = 'surgery: v1\nvary:\n  s: range(0, 5)\noperations:\n- scale: {layers: "blocks[3]", by: "{12//(s-3)}"}\n'
    with pytest.raises(SpecError, match="divides by zero for some values"):
        read_spec(text)
    assert read_spec(text.replace("s-3", "s+3")).variables


def test_nothing_adds_up_along_cases():
    text = "surgery: v1\nvary:\n  s: range(3)\n  case: {a: [], b: []}\ncumulative: case\noperations: [case]\n"
    with pytest.raises(SpecError, match=r"^spec.yaml:5:13: there is no variable for cumulative \"case\""):
        read_spec(text)
    assert read_spec(text.replace("cumulative: case", "cumulative: s")).variables
