"""The plan: what a spec means for one anatomy. Frozen data; never holds a tensor."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from surgery.anatomy.anatomy import Stack
from surgery.plan.schedule import Layer, Schedule
from surgery.plan.text import items_from_text, items_to_text


@dataclass(frozen=True)
class ReplacedComponent:
    """All outputs of one component of one block are replaced. `values` is the file of means of `kind` "mean"."""

    stack: str
    index: int
    component: str
    kind: str
    values: str | None = None

    @property
    def path(self) -> str:
        """The dotted name of the component in the model."""
        return f"{self.stack}.{self.index}.{self.component}"


@dataclass(frozen=True)
class Plan:
    """Schedules for all stacks of a model, in the order in which they run, and replacements, in theirs."""

    class_name: str
    schedules: tuple[Schedule, ...]
    replacements: tuple[ReplacedComponent, ...] = field(default=())

    @property
    def is_identity(self) -> bool:
        """Whether the plan leaves the model as it is."""
        return not self.replacements and all(schedule.is_identity for schedule in self.schedules)

    def schedule(self, stack: str) -> Schedule:
        """The schedule of one stack."""
        return next(schedule for schedule in self.schedules if schedule.stack == stack)

    def schedule_of(self, stack: Stack) -> Schedule:
        """The schedule of a stack; one that the plan does not name runs as it is."""
        named = [schedule for schedule in self.schedules if schedule.stack == stack.name]
        return named[0] if named else Schedule(stack.name, stack.num_blocks, tuple(map(Layer, range(stack.num_blocks))))

    @property
    def text(self) -> str:
        """The canonical text: the class, a line a stack, a line a replacement. `plan_from_text` reads it back."""
        lines = [f"model {self.class_name}"]
        lines += [f"{s.stack}[{s.num_blocks}]: {items_to_text(s.items)}" for s in self.schedules]
        for replaced in self.replacements:
            values = f" from {json.dumps(replaced.values)}" if replaced.values is not None else ""
            lines.append(f"{replaced.stack}[{replaced.index}].{replaced.component} = {replaced.kind}{values}")
        return "\n".join(lines) + "\n"

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; `plan_from_json` reads it back."""
        return {
            "class": self.class_name,
            "hash": self.hash,
            "schedules": [
                {
                    "stack": schedule.stack,
                    "num_blocks": schedule.num_blocks,
                    "schedule": items_to_text(schedule.items),
                    "removed": list(schedule.removed),
                }
                for schedule in self.schedules
            ],
            "replacements": [
                {
                    "stack": replaced.stack,
                    "index": replaced.index,
                    "component": replaced.component,
                    "with": replaced.kind,
                    **({} if replaced.values is None else {"values": replaced.values}),
                }
                for replaced in self.replacements
            ],
        }


def plan_from_json(data: dict[str, Any]) -> Plan:
    """The plan that `Plan.to_json` wrote.

    Raises:
        ValueError: the schedule texts are malformed, or the hash is not that of the plan.
    """
    schedules = tuple(
        Schedule(entry["stack"], entry["num_blocks"], items_from_text(entry["schedule"])) for entry in data["schedules"]
    )
    replacements = tuple(
        ReplacedComponent(entry["stack"], entry["index"], entry["component"], entry["with"], entry.get("values"))
        for entry in data["replacements"]
    )
    plan = Plan(data["class"], schedules, replacements)
    if data.get("hash", plan.hash) != plan.hash:
        raise ValueError(f"the plan's hash is {plan.hash}, not {data['hash']}: it was changed after it was written")
    return plan


def plan_from_text(text: str) -> Plan:
    """The plan of a canonical text.

    Raises:
        ValueError: a line is malformed.
    """
    head, *lines = text.splitlines()
    if not head.startswith("model "):
        raise ValueError(f"a plan begins with `model CLASS`, not {head!r}")
    schedules: list[Schedule] = []
    replacements: list[ReplacedComponent] = []
    for line in lines:
        left, colon, right = line.partition("]: ")
        if colon and "." not in left.partition("[")[2]:
            stack, _, count = left.rpartition("[")
            schedules.append(Schedule(stack, int(count), items_from_text(right)))
            continue
        target, equals, value = line.partition(" = ")
        if not equals:
            raise ValueError(f"a line of a plan is a schedule or a replacement, not {line!r}")
        stack, _, rest = target.partition("[")
        index, _, component = rest.partition("].")
        kind, _, values = value.partition(" from ")
        replacements.append(
            ReplacedComponent(stack, int(index), component, kind, json.loads(values) if values else None)
        )
    return Plan(head.removeprefix("model "), tuple(schedules), tuple(replacements))
