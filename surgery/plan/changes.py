"""What a plan changes, in a line: for lists of many plans."""

from surgery.plan.windowed import AnyPlan, WindowedPlan, names_of


def changes_text(plan: AnyPlan) -> str:
    """The stacks that run otherwise and the components that are replaced; `unchanged` where there are none."""
    if isinstance(plan, WindowedPlan):
        return "; ".join(f"{names_of(atoms)}: {changes_text(each)}" for each, atoms in plan.by_plan.items())
    changed = plan.text.splitlines()[1:]
    stacks = [line for line, s in zip(changed, plan.schedules, strict=False) if not s.is_identity]
    return "; ".join([*stacks, *changed[len(plan.schedules) :]]) or "unchanged"
