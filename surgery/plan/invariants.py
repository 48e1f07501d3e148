"""What must hold of every plan, checked where one is made and where one is used."""

from surgery.anatomy.anatomy import Anatomy, Stack
from surgery.plan.plan import Plan, plan_from_json, plan_from_text
from surgery.plan.schedule import Group, Item, Layer, Repetition, canonical, iter_layers


def check_plan(plan: Plan, anatomy: Anatomy) -> None:
    """Raise ValueError where an invariant of the plan does not hold: a bug of whoever made it, not of a user."""
    if plan.class_name != anatomy.class_name:
        raise ValueError(f"the plan is for {plan.class_name}, the model is a {anatomy.class_name}")
    planned = [schedule.stack for schedule in plan.schedules]
    stacks = [stack for stack in anatomy.stacks if not stack.is_inner or stack.name in planned]
    if planned != [stack.name for stack in stacks]:
        raise ValueError("the plan's stacks are not the model's, in the order in which they run")
    for schedule, stack in zip(plan.schedules, stacks, strict=True):
        if schedule.num_blocks != stack.num_blocks:
            raise ValueError(f"{stack.name} has {stack.num_blocks} blocks, the plan says {schedule.num_blocks}")
        if any(not 0 <= layer.index < stack.num_blocks for layer in iter_layers(schedule.items)):
            raise ValueError(f"the schedule of {stack.name} names a layer that it does not have")
        if canonical(schedule.items) != schedule.items:
            raise ValueError(f"the schedule of {stack.name} is not in canonical form")
        _check_items(schedule.items)
        misplaced = misplaced_layer(schedule.items, stack)
        if misplaced is not None:
            raise ValueError(misplaced)
    for replaced in plan.replacements:
        found = anatomy.find_stack(replaced.stack)
        component = None if found is None else found.kind(replaced.index).find_component(replaced.component)
        if component is None or component.refusal is not None:
            raise ValueError(f"{replaced.path} is no component that can be replaced")
        if (replaced.kind == "mean") != (replaced.values is not None):
            raise ValueError(f"{replaced.path}: values belong to a replacement with mean, and to no other")
    if plan_from_text(plan.text) != plan or plan_from_json(plan.to_json()) != plan:
        raise ValueError("the plan does not survive being written and read")


def _check_items(items: tuple[Item, ...]) -> None:
    for item in items:
        match item:
            case Group(layers, _, loops):
                if len(layers) < 2 or loops < 1:
                    raise ValueError(f"a group has at least two layers and one round: {item}")
            case Repetition(inner, times):
                if not inner or times < 2:
                    raise ValueError(f"a loop has items and at least two rounds: {item}")
                _check_items(inner)


def misplaced_layer(items: tuple[Item, ...], stack: Stack) -> str | None:
    """Why the schedule can't run: a block that does not return a stream stands where that stream is still needed.

    SD3's last block is the example: it returns no text, so it can only be the last to run, once, in no group.
    """
    settled = canonical(items)
    for position, item in enumerate(settled):
        is_last = position == len(settled) - 1
        for layer in iter_layers((item,)):
            missing = stack.kind(layer.index).missing_streams
            if not missing or (is_last and isinstance(item, Layer)):
                continue
            where = (
                "in a group" if isinstance(item, Group) else "in a loop" if isinstance(item, Repetition) else "earlier"
            )
            return (
                f"{stack.name}[{layer.index}] returns no {' and no '.join(missing)}, which the layers after it need; "
                f"it can't run {where}; leave it last, or out"
            )
    return None
