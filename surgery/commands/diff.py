"""`surgery diff A B`: what two specs run and save, side by side."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.anatomy.anatomy import Anatomy
from surgery.commands.compiled_folder import artefact_at
from surgery.commands.output import JsonFlag, bytes_text, count_text, print_json, say, share_text
from surgery.commands.spec_options import POINT_HELP, MeansOption, ModelOption, refuse_stdin_twice
from surgery.errors import InputError
from surgery.plan.backends import judge_backends
from surgery.plan.cost import WHOLE, Course
from surgery.plan.plan import Plan
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource, as_pair, parts_of
from surgery.plan.schedule import count_executions
from surgery.plan.text import items_to_text
from surgery.plan.windowed import WHEN, compare_atoms, names_of
from surgery.publish.artefact import state_text
from surgery.publish.planned_folder import plan_spec_or_folder
from surgery.spec.selector import indices_to_text
from surgery.text_table import table

DIFFERS = "≠"


@dataclass(frozen=True)
class PlanDifference:
    """One fact of both sides."""

    fact: str
    first: str
    second: str

    @property
    def differs(self) -> bool:
        """Whether the sides are not the same."""
        return self.first != self.second


def run(
    first: Annotated[Path, typer.Argument(metavar="A", help=f"A spec, or a folder compiled from one; {POINT_HELP}.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another spec, or compiled folder, of the same model.")],
    model: ModelOption = None,
    profile: MeansOption = None,
    json: JsonFlag = False,
) -> None:
    """Show the schedules and savings of two specs side by side; lines that differ are marked.

    Exit status 0 whether they differ or not.
    """
    refuse_stdin_twice((first, second))
    sides = [plan_spec_or_folder(path, model=model, profile=profile) for path in (first, second)]
    rows = [*compare(*sides), *compare_states(first, second)]
    if json:
        document = {row.fact: {"a": row.first, "b": row.second, "differs": row.differs} for row in rows}
        print_json(
            {
                "a": sides[0].spec.address,
                "b": sides[1].spec.address,
                "same_plan": sides[0].plan == sides[1].plan,
                "facts": document,
            }
        )
        return
    say(describe_rows([PlanDifference("", *(side.spec.address for side in sides)), *rows]))
    if sides[0].plan == sides[1].plan:
        say(f"the same plan, {sides[0].plan.hash[:12]}")


def compare(first: AnyPlannedSource, second: AnyPlannedSource) -> list[PlanDifference]:
    """All facts of two specs; of two transformers, those of each behind its name.

    Raises:
        InputError: the specs are for models with other stacks.
    """
    rows = [
        PlanDifference("title", first.spec.title or "", second.spec.title or ""),
        PlanDifference("model", first.source.name, second.source.name),
    ]
    if not any(isinstance(side, PlannedPairSource) for side in (first, second)):
        (one,), (other,) = parts_of(first), parts_of(second)
        return rows + compare_transformers(one, other)
    if not (first.source.has_second and second.source.has_second):
        raise InputError(
            f"{_models_text(first, second)}, of which one has two transformers; to plan both for one, give --model"
        )
    pairs = [as_pair(side) for side in (first, second)]
    for part in pairs[0].sources:
        one, other = (pair.sources[part] for pair in pairs)
        found = compare_transformers(one, other, pairs[0].courses(WHOLE)[part])
        rows += [replace(row, fact=f"{part}: {row.fact}") for row in found]
    return rows


def compare_states(first: Path, second: Path) -> list[PlanDifference]:
    """Whether the weights of each side are those of its spec, where one of them is a compiled folder."""
    artefacts = [artefact_at(path) for path in (first, second)]
    if artefacts == [None, None]:
        return []
    states = ("" if each is None else state_text(each.state(), each.healed) for each in artefacts)
    return [PlanDifference("weights", *states)]


def compare_transformers(first: PlannedSource, second: PlannedSource, course: Course = WHOLE) -> list[PlanDifference]:
    """What runs of one transformer under each spec, and what that saves where a run calls it on this course."""
    refuse_different_models(first, second)
    return [*compare_plans(first, second), *compare_costs(first, second, course)]


def _models_text(first: AnyPlannedSource, second: AnyPlannedSource) -> str:
    return f"{first.spec.address} is for {first.source.name}, {second.spec.address} for {second.source.name}"


def refuse_different_models(first: PlannedSource, second: PlannedSource) -> None:
    """Raise InputError unless both plans are for models with the same stacks."""
    shapes = [
        (side.anatomy.class_name, [(stack.name, stack.num_blocks) for stack in side.anatomy.stacks])
        for side in (first, second)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{_models_text(first, second)}, which have other stacks; to plan both for one model, give --model"
        )


def compare_plans(first: PlannedSource, second: PlannedSource) -> list[PlanDifference]:
    """For each stack what runs, what is left out on one side only, and how much runs."""
    rows: list[PlanDifference] = []
    for (one, other), atoms in compare_atoms(first.plan, second.plan).items():
        when = names_of(atoms)
        rows += _compare_within(one, other, first.anatomy, f"{WHEN}{when}: " if when else "")
    return rows


def _compare_within(first: Plan, second: Plan, anatomy: Anatomy, when: str) -> list[PlanDifference]:
    """The stacks and components of two plans; `when` stands before each fact."""
    rows = []
    named = {schedule.stack for plan in (first, second) for schedule in plan.schedules}
    for stack in (stack for stack in anatomy.stacks if stack.name in named):
        one, other = (plan.schedule_of(stack) for plan in (first, second))
        rows.append(PlanDifference(f"{when}{one.stack}", items_to_text(one.items), items_to_text(other.items)))
        only = [
            indices_to_text(set(one.removed) - set(other.removed)),
            indices_to_text(set(other.removed) - set(one.removed)),
        ]
        if any(only):
            rows.append(PlanDifference(f"{when}  without", only[0], only[1]))
        runs = [sum(count_executions(side.items).values()) for side in (one, other)]
        rows.append(PlanDifference(f"{when}  executions", *map(str, runs)))
    paths = {item.path: item for side in (first, second) for item in side.replacements}
    for path in paths:
        kinds = [next((item.kind for item in side.replacements if item.path == path), "") for side in (first, second)]
        rows.append(PlanDifference(f"{when}{path}", *kinds))
    return rows


def compare_costs(first: PlannedSource, second: PlannedSource, course: Course) -> list[PlanDifference]:
    """What each side saves, and which backends can express it."""
    sides = (first, second)
    costs = [side.cost_on(course) for side in sides]
    rows = [
        PlanDifference("saves parameters", *(_saved(c.parameters_before, c.parameters_after) for c in costs)),
        PlanDifference("saves bytes", *(bytes_text(c.bytes_before - c.bytes_after) for c in costs)),
    ]
    if all(cost.flops_share is not None for cost in costs):
        rows.append(PlanDifference("FLOPs of the blocks", *(f"{100 * (cost.flops_share or 0):.1f}%" for cost in costs)))
    verdicts: list[Any] = [judge_backends(side.plan, side.anatomy) for side in sides]
    return rows + [PlanDifference(one.backend, one.answer, other.answer) for one, other in zip(*verdicts, strict=True)]


def _saved(before: int, after: int) -> str:
    return f"{count_text(before - after)} ({share_text(before - after, before)})"


def describe_rows(rows: list[PlanDifference]) -> str:
    """A table of the facts; those that differ are marked."""
    marks = [DIFFERS if row.differs and row.fact else "" for row in rows]
    cells = [[mark, row.fact, row.first, row.second] for mark, row in zip(marks, rows, strict=True)]
    return table(cells, wrap={2, 3})
