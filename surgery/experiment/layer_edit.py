"""A plan -> the one layer that it edits, and how: what the rows of a sweep over single layers have in common."""

from dataclasses import dataclass

from surgery.plan.paired import ModelPlan, PairedPlan
from surgery.plan.plan import ReplacedComponent
from surgery.plan.schedule import Item, Layer, Repetition, Schedule
from surgery.plan.windowed import WindowedPlan


@dataclass(frozen=True)
class LayerEdit:
    """The edit of one layer. `what` is the same for all layers: `skip`, `scale 0.5`, `repeat 2`, `attn1 = zero`."""

    stack: str
    layer: int
    what: str


def find_layer_edit(plan: ModelPlan) -> LayerEdit | None:
    """The edit of a plan that touches one layer, always, as a whole or in some components; None of any other plan."""
    if isinstance(plan, (WindowedPlan, PairedPlan)):
        return None
    found: list[LayerEdit] = []
    for schedule in plan.schedules:
        if not schedule.is_identity:
            edit = _scheduled_edit(schedule)
            if edit is None:
                return None
            found.append(edit)
    found += [LayerEdit(item.stack, item.index, _replaced_text(item)) for item in plan.replacements]
    if len({(edit.stack, edit.layer) for edit in found}) != 1:
        return None
    return LayerEdit(found[0].stack, found[0].layer, ", ".join(edit.what for edit in found))


def _scheduled_edit(schedule: Schedule) -> LayerEdit | None:
    """What becomes of the one layer that is gone, scaled or repeated where it was; None where anything else is done."""
    if len(schedule.removed) == 1:
        (gone,) = schedule.removed
        rest = tuple(Layer(index) for index in range(schedule.num_blocks) if index != gone)
        return LayerEdit(schedule.stack, gone, "skip") if schedule.items == rest else None
    if schedule.removed or len(schedule.items) != schedule.num_blocks:
        return None
    changed = [(index, item) for index, item in enumerate(schedule.items) if item != Layer(index)]
    if len(changed) != 1:
        return None
    index, item = changed[0]
    what = _item_text(item)  # of layer `index`: none is removed, and all others stand in their places
    return None if what is None else LayerEdit(schedule.stack, index, what)


def _item_text(item: Item) -> str | None:
    """How a layer runs where this item is all that stands in its place; None where another layer runs too."""
    match item:
        case Layer(_, scale):
            return f"scale {scale!r}"
        case Repetition((Layer(_, scale),), times):
            return f"repeat {times}" + ("" if scale == 1.0 else f", scale {scale!r}")
    return None


def _replaced_text(replaced: ReplacedComponent) -> str:
    values = "" if replaced.values is None else f" ({replaced.values[:8]})"
    return f"{replaced.component} = {replaced.kind}{values}"
