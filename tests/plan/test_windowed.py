"""Plans of specs with windows: laws of what runs where, and of their text, JSON and hash."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.plan.atoms import Atom, Grid, atom_from_text
from surgery.plan.cost import course_of, plan_cost
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan
from surgery.plan.windowed import WindowedPlan, any_plan_from_json, any_plan_from_text, compare_atoms, names_of
from surgery.spec.load import read_spec
from surgery.spec.operations import BRANCHES

EDGES = [0.0, 0.25, 0.3, 0.5, 0.8, 1.0]
SHARES = (0.0, 0.1, 0.25, 0.29999, 0.3, 0.5, 0.79, 0.8, 0.999, 1.0)


def plan_of(anatomies, *operations):
    text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
    return lower_spec(read_spec(text), anatomies["pixart"])


def skip(layer, when=""):
    return f"{{skip: 'transformer_blocks[{layer}]'{f', when: {{{when}}}' if when else ''}}}"


@st.composite
def windows(draw):
    """A window as a spec has it, and whether a share, step and branch lie in it."""
    low, high = sorted(draw(st.lists(st.sampled_from(EDGES), min_size=2, max_size=2, unique=True)))
    first = draw(st.integers(0, 3))
    end = draw(st.none() | st.integers(first + 1, 6))
    branch = draw(st.none() | st.sampled_from(BRANCHES))
    has_time, has_steps = draw(st.booleans()), draw(st.booleans())
    parts = [f"timesteps: [{low}, {high}]"] * has_time + [f'steps: "{first}:{"" if end is None else end}"'] * has_steps
    parts += [f"branch: {branch}"] if branch else []

    def holds(share, step, side):
        in_time = not has_time or (low <= share and (share < high or high == 1.0))
        in_steps = not has_steps or (first <= step and (end is None or step < end))
        return in_time and in_steps and branch in (None, side)

    return ", ".join(parts), holds


@given(st.lists(windows(), min_size=1, max_size=4))
def test_what_runs_is_what_the_windows_say(anatomies, drawn):
    """Each window skips a layer of its own: those that are gone are those whose windows hold."""
    plan = plan_of(anatomies, *(skip(layer, text) for layer, (text, _) in enumerate(drawn)))
    for share, step, branch in itertools.product(SHARES, range(7), BRANCHES):
        within = plan.plan_at(share, step, branch) if isinstance(plan, WindowedPlan) else plan
        expected = [layer for layer, (_, holds) in enumerate(drawn) if holds(share, step, branch)]
        assert list(within.schedules[0].removed) == expected


@given(st.lists(windows(), min_size=1, max_size=4))
def test_text_and_json_are_read_back_and_the_atoms_are_few(anatomies, drawn):
    plan = plan_of(anatomies, *(skip(layer, text) for layer, (text, _) in enumerate(drawn)))
    assert any_plan_from_text(plan.text) == plan
    assert any_plan_from_json(plan.to_json()) == plan
    if isinstance(plan, WindowedPlan):
        for axis, cells in zip(("timesteps", "steps", "branch"), axes_of(plan), strict=True):
            for one, other in itertools.pairwise(cells):
                assert slice_of(plan, axis, one) != slice_of(plan, axis, other)


def axes_of(plan):
    return [
        list(dict.fromkeys(getattr(atom, axis) for atom, _ in plan.atoms)) for axis in ("timesteps", "steps", "branch")
    ]


def slice_of(plan, axis, cell):
    return [within for atom, within in plan.atoms if getattr(atom, axis) == cell]


@pytest.mark.parametrize(
    "operations",
    [
        [skip(3, "timesteps: [0.0, 1.0]")],
        [skip(3, 'steps: "0:"')],
        [skip(3, "timesteps: [0.0, 0.3]"), skip(3, "timesteps: [0.3, 1.0]")],
        [skip(3, "branch: conditional"), skip(3, "branch: unconditional")],
        [skip(3, 'steps: [0, "1:4"]'), skip(3, 'steps: "4:"')],
    ],
)
def test_windows_that_cover_all_are_no_windows(anatomies, operations):
    plan = plan_of(anatomies, *operations)
    assert isinstance(plan, Plan)
    assert plan == plan_of(anatomies, skip(3))
    assert plan.hash == plan_of(anatomies, skip(3)).hash


def test_an_edge_that_parts_nothing_is_gone_where_another_axis_parts_something(anatomies):
    halves = [skip(3, f"timesteps: [0.0, 0.5], branch: {branch}") for branch in BRANCHES]
    thirds = [skip(3, f'timesteps: [0.0, 0.5], steps: "{steps}"') for steps in ("0:2", "2:5", "5:")]
    once = plan_of(anatomies, skip(3, "timesteps: [0.0, 0.5]"))
    assert plan_of(anatomies, *halves) == plan_of(anatomies, *thirds) == once


def test_the_order_of_disjoint_windows_does_not_matter(anatomies):
    one, other = skip("1:3", "timesteps: [0.0, 0.3]"), skip("2:9", "timesteps: [0.5, 1.0]")
    assert plan_of(anatomies, one, other).hash == plan_of(anatomies, other, one).hash


def test_windows_that_overlap_add_up_where_they_do(anatomies):
    plan = plan_of(anatomies, skip(1, "timesteps: [0.0, 0.5]"), skip(2, "timesteps: [0.3, 1.0]"))
    assert [(atom.text, within.schedules[0].removed) for atom, within in plan.atoms] == [
        ("timesteps 0:0.3", (1,)),
        ("timesteps 0.3:0.5", (1, 2)),
        ("timesteps 0.5:1", (2,)),
    ]


def test_the_cost_is_that_of_a_trajectory_and_blocks_count_that_some_atom_runs(anatomies):
    anatomy = anatomies["pixart"]
    never = plan_cost(plan_of(anatomies, "{reverse: 'transformer_blocks[:]'}"), anatomy)
    half = plan_of(anatomies, skip("0:14", "timesteps: [0.5, 1.0], branch: conditional"))
    cost = plan_cost(half, anatomy)
    assert cost.parameters_after == never.parameters_after
    assert cost.executions_after == pytest.approx(28 - 14 / 4)
    noisy = plan_cost(half, anatomy, course_of([0.9, 0.8, 0.6, 0.1]))
    assert noisy.executions_after == pytest.approx(28 - 14 * 3 / 8)
    by_steps = plan_of(anatomies, skip("0:14", 'steps: "0:1"'))
    assert plan_cost(by_steps, anatomy).executions_after is None
    assert plan_cost(by_steps, anatomy, course_of([0.9, 0.8])).executions_after == pytest.approx(28 - 7)


def test_a_changed_plan_is_not_read(anatomies):
    data = plan_of(anatomies, skip(1, "timesteps: [0.0, 0.5]")).to_json()
    with pytest.raises(ValueError, match="it was changed after it was written"):
        any_plan_from_json({**data, "windows": [{**w, "replacements": []} for w in data["windows"]][::-1], "hash": "0"})
    with pytest.raises(ValueError, match="leave something out, or overlap"):
        any_plan_from_json({**data, "windows": data["windows"][:1]})
    with pytest.raises(ValueError, match="an atom has timesteps, steps and a branch, not 'branch both'"):
        atom_from_text("branch both")


def test_names_join_what_touches_and_specs_are_compared_where_both_run(anatomies):
    grid = Grid(((0.0, 0.3), (0.3, 1.0)), ((0, 2), (2, None)), BRANCHES)
    assert names_of(grid.atoms()) == ""
    assert names_of([Atom((0.0, 0.3), (0, 2), "conditional"), Atom((0.0, 0.3), (0, 2), "unconditional")]) == (
        "timesteps 0:0.3, steps 0:2"
    )
    windowed, always = plan_of(anatomies, skip(1, "timesteps: [0.0, 0.5]")), plan_of(anatomies, skip(1))
    pairs = compare_atoms(windowed, always)
    assert [names_of(atoms) for atoms in pairs.values()] == ["timesteps 0:0.5", "timesteps 0.5:1"]
    assert [one == other for one, other in pairs] == [True, False]
