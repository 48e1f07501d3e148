"""Whatever the bytes: a spec and a plan, or faults with places. Never another exception."""

import random
import re
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from surgery.errors import NotYetError, SpecError
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec

SPECS = (
    """surgery: v1
model: PixArt-alpha/PixArt-XL-2-512x512
title: Middle layers in parallel
groups:
  middle: transformer_blocks[4:15]
  ends: ["transformer_blocks[0]", "transformer_blocks[-1]"]
operations:
  - skip: transformer_blocks[16, 17:19]
    expect: 3
  - parallel: {layers: middle, loops: 3, combine: sum}
  - replace: {component: "transformer_blocks[2].attn1", with: zero}
""",
    """surgery: v1
operations:
  - order: {stack: transformer_blocks, as: [0, "1:9", {parallel: [10, 11], loops: 2}, -1]}
  - repeat: {layers: "*[1:3]", times: 2}
  - shuffle: {layers: "transformer_blocks[3:8]", seed: 7}
  - scale: {layers: "transformer_blocks[10, 11]", by: 1e-3}
""",
    """surgery: v1
vary:
  s: range(0, 13)
  w: [1, 2.5, zero]
  case:
    skip: [{skip: "transformer_blocks[{s+1}:{27-s}]"}]
    ablate: [{replace: {component: "transformer_blocks[{s}].attn1", with: mean}}]
cumulative: s
operations: [case]
""",
    """surgery: v1
operations:
  - scale: {layers: &one "transformer_blocks[1]", by: 0.5}
    when: {timesteps: [0.0, 0.3], branch: conditional}
  - reverse: *one
""",
)
FRAGMENTS = (
    *("\x85", "\u2028", "\u2029", "\ufeff", "\ud800", "\x00", "\x07", "\t", "\r", "\n", "\n  ", "²", "٣", "٤:٥", "😀"),
    *("'", '"', "|", "> ", "*", "&a ", "? ", "- ", ": ", "<<: ", "{", "}", "[", "]", "#", ",", "@", "`", "~", "null"),
    *("%YAML 1.1\n", "---\n", "...\n", "!!int ", "!!binary ", "!!set ", "!!timestamp ", "!x ", "2001-01-01"),
    *(
        "9" * 5000,
        "0x" + "f" * 5000,
        ".inf",
        ".nan",
        "1e999",
        "1:30",
        "no",
        "yes",
        "-1",
        "100000",
        "[" * 500,
        "{-" * 50,
    ),
    *(
        r'"\ud800"',
        r'"\U00110000"',
        r'"\Uffffffff"',
        r'"\x00"',
        "{s}",
        "{s//0}",
        "{s**9}",
        "{1 if 1 else 2}",
        "{'\\d'}",
    ),
)
PLACED = re.compile(r"n\.yaml:\d+:\d+: .+")


@st.composite
def mutated_specs(draw) -> str | bytes:
    """A valid spec with a few edits of characters and lines, perhaps with bytes that are no text."""
    text = draw(st.sampled_from(SPECS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        lines = text.split("\n")
        line = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(("delete", "insert", "replace", "double", "drop line", "double line"))):
            case "delete":
                text = text[:start] + text[end:]
            case "insert":
                text = text[:start] + draw(st.sampled_from(FRAGMENTS) | st.characters()) + text[start:]
            case "replace":
                text = text[:start] + draw(st.sampled_from(FRAGMENTS)) + text[end:]
            case "double":
                text = text[:end] + text[start:]
            case "drop line":
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case "double line":
                text = "\n".join(lines[: line + 1] + lines[line:])
    if draw(st.booleans()):
        return text
    content = text.encode("utf-8", "surrogatepass")
    start = draw(st.integers(0, len(content)))
    return content[:start] + draw(st.binary(max_size=3)) + content[start:]


def outcome(content: str | bytes, anatomies) -> str:
    """ "plan" or "faults"; whatever else happens is a failure of the test."""
    try:
        spec = read_spec(content, file="n.yaml")
        for anatomy in anatomies.values():
            lower_spec(spec, anatomy)
    except (SpecError, NotYetError) as error:
        lines = str(error).splitlines()
        assert lines
        assert all(PLACED.fullmatch(line) for line in lines), lines
        assert str(error).encode().decode() == str(error)
        return "faults"
    return "plan"


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_specs())
@example("")
@example("surgery: v1\noperations: &a [*a]\n")
@example("surgery: v1\noperations:\n- ? {a: b}\n  : c\n")
@example("surgery: v1\noperations:\n- !!set {skip}\n")
@example("surgery: v1\noperations:\n- skip: !!binary aGVsbG8=\n")
@example("surgery: v1\noperations:\n- <<: {skip: 3}\n")
@example("surgery: v1\n1: 2\n2001-01-01: x\noperations: []\n")
@example('surgery: v1\noperations:\n- repeat: {layers: "a[0]", using: 0x' + "f" * 5000 + "}\n")
@example('surgery: v1\noperations:\n- repeat: {layers: "a[0]", times: 0x' + "f" * 5000 + "}\n")
@example('surgery: v1\noperations:\n- skip: "\\Uffffffff"\n')
def test_a_mutated_spec_is_a_plan_or_has_faults_with_places(anatomies, content):
    assert outcome(content, anatomies) in ("plan", "faults")


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_a_plan_or_have_faults_with_places(anatomies, content):
    assert outcome(content, anatomies) == "faults"


@pytest.mark.parametrize("text", SPECS)
def test_the_specs_that_are_mutated_are_valid_as_they_are(text, anatomies):
    spec = read_spec(text)
    if "vary" in text:
        with pytest.raises(NotYetError, match="not yet: "):
            lower_spec(spec, anatomies["pixart"])
    else:
        assert not lower_spec(spec, anatomies["pixart"]).is_identity


def test_specs_mutated_by_words_and_values_too(fuzz):
    """A bounded number of what `make fuzz` tries; each within its time and memory."""
    sources, anatomies, outcomes = fuzz.read_sources(), fuzz.load_anatomies(), set()
    for seed in range(600):
        content = fuzz.mutate(sources, random.Random(f"test/{seed}"))
        started = time.process_time()
        outcomes.add(fuzz.outcome_of(content, anatomies))
        assert time.process_time() - started < fuzz.MAX_SECONDS, content
    assert outcomes == {"plan", "faults", "not yet"}


@pytest.mark.parametrize(
    "text",
    [
        "surgery: " + "[" * 2000,
        "surgery: " + "{a: " * 400,
        "\n".join(" " * depth + "a:" for depth in range(400)),
        "surgery: v1\noperations: [" + "a, " * 33_000 + "]",
        "".join(f"k{number}: \n" for number in range(12_000)),
    ],
    ids=["brackets", "braces", "indented", "items", "keys"],
)
def test_what_is_too_large_is_refused_at_once(text, anatomies):
    """PyYAML's own time grows with the square of the depth."""
    started = time.process_time()
    assert outcome(text, anatomies) == "faults"
    assert time.process_time() - started < 2.0


def test_many_nested_repeats_of_one_time_are_one_plan(anatomies):
    line = '- repeat: {layers: "transformer_blocks[0:2]", times: 1}\n'
    spec = read_spec("surgery: v1\noperations:\n" + line * 700)
    assert lower_spec(spec, anatomies["pixart"]).is_identity


def test_the_property_fails_when_yaml_errors_get_out(anatomies, monkeypatch):
    def explode(*args):
        raise RuntimeError("out it got")

    monkeypatch.setattr("surgery.spec.yaml_faults._yaml_advice", explode)
    with pytest.raises(RuntimeError, match="out it got"):
        outcome("a: [", anatomies)
