"""What a plan changes, in a line: for lists of many plans."""

from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.windowed import WindowedPlan, names_of


def changes_text(plan: ModelPlan) -> str:
    """The stacks that run otherwise and the components that are replaced; `unchanged` where there are none."""
    if isinstance(plan, PairedPlan):
        return "; ".join(f"{part}: {changes_text(each)}" for part, each in plan.by_part.items())
    if isinstance(plan, WindowedPlan):
        return "; ".join(f"{names_of(atoms)}: {changes_text(each)}" for each, atoms in plan.by_plan.items())
    changed = plan.text.splitlines()[1:]
    stacks = [line for line, s in zip(changed, plan.schedules, strict=False) if not s.is_identity]
    return "; ".join([*stacks, *changed[len(plan.schedules) :]]) or "unchanged"
