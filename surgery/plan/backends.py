"""Which backend can express a plan: the graph runs every plan; a stock checkpoint only what a stock class can say."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

from surgery.anatomy.anatomy import Anatomy, Stack
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule, iter_layers, unroll
from surgery.plan.windowed import AnyPlan, WindowedPlan, plans_of
from surgery.spec.selector import indices_to_text

WINDOWS = "a stock class runs the same blocks in every step and branch, and the spec has windows (when)"

Backend = Literal["graph", "checkpoint"]
Answer = Literal["yes", "perhaps", "no"]
ANSWERS: tuple[Answer, ...] = ("yes", "perhaps", "no")  # from the best to the worst


@dataclass(frozen=True)
class Verdict:
    """Whether a backend can express a plan, and why not, or what it hangs on."""

    backend: Backend
    answer: Answer
    reasons: tuple[str, ...] = ()


def judge_backends(plan: AnyPlan, anatomy: Anatomy) -> tuple[Verdict, Verdict]:
    """The verdicts on the graph and on the checkpoint, from plan and anatomy alone; no weights, no config is tried."""
    of_graph = (doubt for each in plans_of(plan) for doubt in _graph_doubts(each, anatomy))
    if isinstance(plan, WindowedPlan):
        return _verdict("graph", of_graph), Verdict("checkpoint", "no", (WINDOWS,))
    return _verdict("graph", of_graph), _verdict("checkpoint", _checkpoint_doubts(plan, anatomy))


Doubt = tuple[Answer, str]


def _verdict(backend: Backend, doubts: Iterator[Doubt]) -> Verdict:
    found = list(dict.fromkeys(doubts))
    worst: Answer = max((answer for answer, _ in found), key=ANSWERS.index, default="yes")
    return Verdict(backend, worst, tuple(reason for answer, reason in found if answer == worst))


def _graph_doubts(plan: Plan, anatomy: Anatomy) -> Iterator[Doubt]:
    for schedule in plan.schedules:
        if not schedule.is_identity and anatomy.stack(schedule.stack).streams is None:
            fact = "has no example inputs" if anatomy.trace_failure is None else "can't be traced whole"
            yield "perhaps", f"{plan.class_name} {fact}; its stacks are traced at its first run"


def _checkpoint_doubts(plan: Plan, anatomy: Anatomy) -> Iterator[Doubt]:
    for schedule in plan.schedules:
        if not schedule.is_identity:
            yield from _item_doubts(schedule, schedule.items)
            yield from _place_doubts(schedule, anatomy.stack(schedule.stack))
    for replaced in plan.replacements:
        yield _replacement_doubt(replaced, anatomy)


def _item_doubts(schedule: Schedule, items: tuple[Item, ...]) -> Iterator[Doubt]:
    for item in items:
        match item:
            case Group(layers):
                names = f"{schedule.stack}[{indices_to_text({layer.index for layer in layers})}]"
                yield "no", f"{names} run in parallel, and a stock class runs its blocks one after the other"
            case Repetition(inner):
                yield from _item_doubts(schedule, inner)
            case Layer():
                pass
            case _:
                assert_never(item)
    scaled = {layer.index for layer in iter_layers(items) if layer.scale != 1.0}
    if scaled:
        names = f"{schedule.stack}[{indices_to_text(scaled)}]"
        yield "perhaps", f"{names} are scaled, which only linear layers and gates at the end of each branch can carry"


def _place_doubts(schedule: Schedule, stack: Stack) -> Iterator[Doubt]:
    """Whether the stock class gives the blocks the same context and shape in their new places."""
    order = _order(schedule)
    moved = any(index != position for position, index in enumerate(order))
    if stack.streams is None:
        yield "perhaps", _untraced_doubt(stack)
    elif stack.by_number:
        names = ", ".join(stack.by_number)
        fact = f"the forward makes {names} for each block of {stack.name} by its number"
        yield ("no", f"{fact}, and the numbers would shift") if moved else ("perhaps", f"{fact}")
    if order and _reads(stack, order):
        yield "perhaps", f"{_reads(stack, order)}; if other weights do not do there, it is refused"
    if not order:
        yield "perhaps", f"{stack.name} has no layer left, which not every stock class can build"
        return
    kinds = [stack.kind_of[index] for index in order]
    if len(set(kinds)) == 1 and len(stack.kinds) == 1:
        return
    last = stack.num_blocks - 1
    only_last_differs = len(set(stack.kind_of[:-1])) == 1
    if only_last_differs and order[-1] == last and last not in order[:-1]:
        return
    if last not in order:
        yield "perhaps", f"{stack.name}[{order[-1]}] becomes the last block, which is of another kind in this class"
    else:
        yield (
            "perhaps",
            f"{stack.name} has blocks of several kinds, and the config must say where each stands",
        )


def moved_stacks(plan: Plan, anatomy: Anatomy) -> list[Stack]:
    """The stacks whose blocks a checkpoint would number otherwise, or that would be of another length."""
    moved = [schedule for schedule in plan.schedules if _order(schedule) != list(range(schedule.num_blocks))]
    return [anatomy.stack(schedule.stack) for schedule in moved]


def reads_of_moved(plan: Plan, anatomy: Anatomy) -> Iterator[str]:
    """For each stack, in words, the blocks of which the forward reads a part, and that would be others."""
    for schedule in plan.schedules:
        text = _reads(anatomy.stack(schedule.stack), _order(schedule))
        if text is not None:
            yield text


def _order(schedule: Schedule) -> list[int]:
    return [layer.index for layer in unroll(schedule.items)]


def _reads(stack: Stack, order: list[int]) -> str | None:
    """Blocks of which the forward reads a part, by the number of the block or from the end, that would be others."""
    is_as_long = len(order) == stack.num_blocks
    lost = [i for i in stack.read_blocks if order[i : i + 1] != [i] or (i > 0 and not is_as_long)]
    if not lost:
        return None
    return f"the forward reads weights of {stack.name}[{indices_to_text(lost)}], where another block would stand"


def _untraced_doubt(stack: Stack) -> str:
    fact = f"{stack.name} has not been traced: whether its blocks depend on their numbers is not known"
    if stack.code_use is None:
        return f"{fact}, and compile writes it with --verify structure only"
    return f"{fact} ({stack.code_use}), and compile writes it with --verify none only"


def _replacement_doubt(replaced: ReplacedComponent, anatomy: Anatomy) -> Doubt:
    stack = anatomy.stack(replaced.stack)
    component = stack.kind(replaced.index).find_component(replaced.component)
    assert component is not None, "a plan is made for an anatomy"
    if replaced.kind in ("input", "channel_mean"):
        what = "its input" if replaced.kind == "input" else "the mean of its input over channels"
        return "no", f"no weights turn {replaced.component} into {what}"
    if component.num_parameters == 0:
        return "no", f"{replaced.component} has no weights that could make its output constant"
    carrier = "weights and a bias" if replaced.kind == "mean" else "weights"
    return "perhaps", f"{replaced.component} = {replaced.kind} needs {carrier} at its end that can carry it"
