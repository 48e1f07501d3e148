"""Whatever in a spec can grow has a bound: at it there is a plan, one beyond it a fault, and both come at once."""

import time
from pathlib import Path

import pytest

from surgery.errors import InputError, SpecError
from surgery.plan.lower import lower_spec
from surgery.plan.sweep import expand_sweep
from surgery.spec import limits
from surgery.spec.load import read_spec

SECONDS = 4.0  # of processor time; what doubles with each line would take years


def spec(operations: str, *, head: str = "") -> str:
    return f"surgery: v1\n{head}operations: [{operations}]\n"


def groups(*lines: str) -> str:
    return "groups:\n" + "".join(f"  {line}\n" for line in lines)


def vary(*lines: str) -> str:
    return "vary:\n" + "".join(f"  {line}\n" for line in lines)


def parts(number: int) -> str:
    return ", ".join(str(index % 28) for index in range(number))


def at_once(text: str, anatomies) -> str:
    """What is said of a spec and its variants: nothing, or the faults."""
    started = time.process_time()
    try:
        for point in expand_sweep(read_spec(text), anatomies["pixart"])[:3]:
            lower_spec(point, anatomies["pixart"])
        said = ""
    except (SpecError, InputError) as error:
        said = str(error)
    assert time.process_time() - started < SECONDS
    return said


def named_twice(depth: int) -> str:
    lines = [f"g{number}: [g{number - 1}, g{number - 1}]" for number in range(1, depth)]
    return spec("{skip: g0}", head=groups("g0: transformer_blocks[0]", *lines))


def test_groups_that_name_groups_twice_do_not_double(anatomies):
    lines = at_once(named_twice(30), anatomies).splitlines()
    assert len(lines) == 29
    assert all("transformer_blocks[0] is in the group a second time; name each layer once" in line for line in lines)


def cases_in_cases(depth: int, times: int = 2) -> str:
    lines = [f"v{n}: {{a: [{', '.join([f'v{n + 1}'] * times)}]}}" for n in range(depth)]
    return spec("v0", head=vary(*lines, f"v{depth}: {{a: []}}"))


def variables(num_variants: int) -> list[str]:
    """Two variables of so many variants; 10,001 is 73 x 137."""
    size = 73 if num_variants % 73 == 0 else 100
    return [f"s: 'range(0, {size})'", f"t: 'range(0, {num_variants // size})'"]


GROWING = {
    "bytes": (lambda n: spec("").ljust(n, "#"), limits.MAX_BYTES, "bytes"),
    "values": (lambda n: spec(", ".join(["0"] * (n - 5))), limits.MAX_VALUES, "over 5,000 values"),
    "depth": (lambda n: spec("[" * (n - 2) + "]" * (n - 2)), limits.MAX_DEPTH, "nested too deeply"),
    "parts of a group": (
        lambda n: spec("{skip: 'transformer_blocks[0]'}", head=groups(f"g: 'transformer_blocks[{parts(n)}]'")),
        limits.MAX_PARTS,
        "a group stands for over 5,000 indices",
    ),
    "parts of operations": (
        lambda n: spec(f"{{shuffle: 'transformer_blocks[{parts(n)}]'}}"),
        limits.MAX_PARTS,
        "the operations select with over 5,000 indices",
    ),
    "index": (lambda n: spec(f"{{skip: 'transformer_blocks[{n}]'}}"), limits.MAX_INDEX, "larger than any stack"),
    "times": (
        lambda n: spec(f"{{repeat: {{layers: 'transformer_blocks[0]', times: {n}}}}}"),
        limits.MAX_TIMES,
        "at most 1000",
    ),
    "loops": (
        lambda n: spec(f"{{parallel: {{layers: 'transformer_blocks[0:2]', loops: {n}}}}}"),
        limits.MAX_TIMES,
        "at most 1000",
    ),
    "executions": (
        lambda n: spec(
            "{repeat: {layers: 'transformer_blocks[0]', times: 1000}}, "
            "{repeat: {layers: 'transformer_blocks[0]', times: 99}}, "
            f"{{repeat: {{layers: 'transformer_blocks[1]', times: {n - 99_000 - 26}}}}}"
        ),
        limits.MAX_EXECUTIONS,
        "more than 100,000 layers",
    ),
    "integer": (
        lambda n: spec(f"{{shuffle: {{layers: 'transformer_blocks[0:3]', seed: {n}}}}}"),
        limits.MAX_INTEGER,
        "at most 9223372036854775807",
    ),
    "real": (
        lambda n: spec(f"{{scale: {{layers: 'transformer_blocks[0]', by: {n}e29}}}}"),
        round(limits.MAX_REAL / 1e29) - 1,
        "write a number",
    ),
    "arithmetic": (
        lambda n: spec("{shuffle: {layers: 'transformer_blocks[0:3]', seed: '{s+0}'}}", head=vary(f"s: [{n}]")),
        limits.MAX_NUMBER,
        "can't be worked out",
    ),
    "text": (
        lambda n: spec("{skip: '{w}transformer_blocks[0]'}", head=vary(f"w: ['{' ' * (n - 21)}']")),
        limits.MAX_TEXT,
        "over 10,000 characters",
    ),
    "values of a variable": (
        lambda n: spec("", head=vary(f"s: 'range(0, {n})'")),
        limits.MAX_VALUES_A_VARIABLE,
        "write one of 1 to 10,000 values",
    ),
    "variants": (
        lambda n: spec("", head=vary(*variables(n))),
        limits.MAX_VARIANTS,
        "has 10,001 variants",
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_bound_holds_at_it_and_not_one_beyond(name, anatomies):
    make, bound, said = GROWING[name]
    assert said not in at_once(make(bound), anatomies)
    assert said in at_once(make(bound + 1), anatomies)


def test_cases_that_name_cases_twice_do_not_double(anatomies):
    assert "over 5,000 values once the cases are written out" in at_once(cases_in_cases(30), anatomies)
    assert at_once(cases_in_cases(30, times=1), anatomies) == ""


def test_aliases_that_name_aliases_twice_do_not_double(anatomies):
    lines = [f"  v{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)]
    text = "surgery: v1\nvary:\n  v0: &a0 [1]\n" + "".join(lines) + "operations: []\n"
    assert "over 5,000 values once its aliases are written out" in at_once(text, anatomies)


def test_components_of_a_large_group_do_not_multiply(anatomies):
    """Each name of a component makes selectors of its own, of all that the group stands for."""
    many = ", ".join(f"'transformer_blocks[{n % 28}]'" for n in range(28))
    used = ", ".join(f"g.c{n}" for n in range(2000))
    head = groups(f"g: [{many}]", f"h: [{used}]")
    assert "a group stands for over 5,000 indices" in at_once(spec("", head=head), anatomies)


def test_uses_of_a_large_group_do_not_multiply(anatomies):
    head = groups(f"g: 'transformer_blocks[{', '.join(map(str, range(28)))}]'")
    said = at_once(spec(", ".join(["{reverse: g}"] * 1600), head=head), anatomies)
    assert [line for line in said.splitlines() if "operations select with over 5,000" in line] == [said]


def test_a_number_of_variants_that_nobody_can_read_is_not_written_out(anatomies):
    head = vary(*(f"v{n}: 'range(0, 10000)'" for n in range(4)))
    assert "has over 1,000,000,000,000 variants" in at_once(spec("", head=head), anatomies)


@pytest.mark.parametrize("count", [10, 11])
def test_the_operations_of_all_values_are_counted(count, monkeypatch):
    monkeypatch.setattr("surgery.spec.load.MAX_SWEPT_OPERATIONS", 20)
    text = spec(
        "{skip: 'transformer_blocks[{s}]'}, {skip: 'transformer_blocks[0]'}", head=vary(f"s: 'range(0, {count})'")
    )
    if count == 10:
        assert len(read_spec(text).variables) == 1
        return
    with pytest.raises(
        SpecError, match="there are over 20 operations for the values of the variables; write a smaller"
    ):
        read_spec(text)


@pytest.mark.parametrize("count", [5, 6])
def test_the_operations_of_a_sweep_that_adds_up_are_counted(count, monkeypatch, anatomies):
    """1 + 2 + ... + 5 = 15."""
    monkeypatch.setattr("surgery.plan.sweep.MAX_SWEPT_OPERATIONS", 15)
    head = vary(f"s: 'range(0, {count})'") + "cumulative: s\n"
    said = at_once(spec("{skip: 'transformer_blocks[{s}]'}", head=head), anatomies)
    assert said == (
        "" if count == 5 else "spec.yaml has over 15 operations in all its variants together; write a smaller sweep"
    )


def test_windows_cut_sampling_into_a_bounded_number_of_parts(anatomies):
    """As many as MAX_WINDOWS, whatever its axes: 20 x 5 x 2 are 200."""
    timesteps = [f"{{reverse: 'transformer_blocks[0:2]', when: {{timesteps: [{n / 20}, 1.0]}}}}" for n in range(1, 20)]
    branch = "{reverse: 'transformer_blocks[2:4]', when: {branch: conditional}}"
    steps = [f"{{reverse: 'transformer_blocks[4:6]', when: {{steps: '{n}:'}}}}" for n in range(1, 5)]
    assert at_once(spec(", ".join([*timesteps, branch, *steps])), anatomies) == ""
    more = "{reverse: 'transformer_blocks[6:8]', when: {steps: '7:'}}"
    assert "cut sampling into 240 parts" in at_once(spec(", ".join([*timesteps, branch, *steps, more])), anatomies)
    at_bound = ", ".join(str(2 * n) for n in range(limits.MAX_WINDOWS))
    skip = "{{skip: 'transformer_blocks[0]', when: {{steps: [{}]}}}}"
    assert f"write at most {limits.MAX_WINDOWS}" in at_once(spec(skip.format(f"{at_bound}, 999")), anatomies)


def test_every_limit_is_tested_here():
    """A new one can't be forgotten: those that are not in the table have a test of their own, above."""
    named = {name for name in vars(limits) if name.startswith("MAX_")}
    text = Path(__file__).read_text()
    assert {name for name in named if name not in text} == set()
