"""The edit by hand where a forward does more around its blocks: the body of its own loop is run, a round at a time.

A first run of the unedited model notes the frame of the forward at the start of each round: its local names, with
lists and dictionaries as they were. A name that the loop assigns and that held a tensor before it is a stream. In the
second run round i starts from the noted frame i with the streams as the schedule has brought them: so what a loop pops
from a list, counts, or chooses by the number of a block goes with the number of the block. What a round appends to a
list (a long skip connection) is found there by the rounds that found it there in the first run.
"""

import ast
import copy
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, MethodType
from typing import Any

import torch
from hand_edits import NoHandEditError, Streams, run_schedule
from torch import nn

from surgery.plan.schedule import Schedule

Frame = dict[str, Any]
RUN = "__run_the_loop"


@torch.no_grad()
def run_rounds_by_hand(model: nn.Module, schedule: Schedule, call: Mapping[str, Any]) -> Any:
    """What the model returns for a call with one of its stacks under a schedule; the model is left as it is.

    Raises:
        NoHandEditError: the forward does not run one loop over the stack.
    """
    edited = copy.deepcopy(model)
    path, _, name = schedule.stack.rpartition(".")
    owner = edited.get_submodule(path)
    forward = _Forward(owner, name, schedule)
    owner.forward = MethodType(forward.rewritten, owner)
    result = edited(**call)
    if forward.runs != 1:
        raise NoHandEditError(f"{forward.runs} loops over {name} are run")
    return result


class _Forward:
    """A forward whose loops over a stack (one for training, say, and one for the rest) are run by hand."""

    def __init__(self, owner: nn.Module, stack: str, schedule: Schedule) -> None:
        function = inspect.unwrap(type(owner).forward)
        definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        assert isinstance(definition, ast.FunctionDef)
        definition.decorator_list = []
        self.schedule = schedule
        self.runs = 0
        self.loops: list[_Loop] = []
        self.globals = {**vars(sys.modules[function.__module__]), RUN: self.run}
        _Replaced(stack, self.loops).visit(definition)
        module = ast.fix_missing_locations(ast.Module([definition], []))
        exec(compile(module, "<a forward whose loops are run by hand>", "exec"), self.globals)
        self.rewritten: Callable[..., Any] = self.globals[definition.name]

    def run(self, number: int, frame: Frame, rounds: Sequence[Any]) -> tuple[Any, ...]:
        """The values of the names that a loop assigns, behind the schedule."""
        self.runs += 1
        loop, frame = self.loops[number], _copied(frame)
        streams = [name for name in loop.assigned if isinstance(frame.get(name), torch.Tensor)]
        starts: list[Frame] = []
        for turn in rounds:
            starts.append(_copied(frame))
            frame = loop.run_round(self.globals, frame, turn)
        ends = [*starts[1:], frame]
        kept: dict[int, Any] = {}  # by the identity of what the first run appended to a list

        def run_block(index: int, given: Streams) -> Streams:
            before = {**_copied(starts[index]), **given}
            for name, value in before.items():
                if isinstance(value, list):
                    before[name] = [kept.get(id(item), item) for item in value]
            after = loop.run_round(self.globals, _copied(before), rounds[index])
            first = map(id, _appended(starts[index], ends[index]))
            kept.update(zip(first, _appended(before, after), strict=True))
            return {name: after[name] for name in streams}

        frame = _copied(frame) | run_schedule(self.schedule, {name: starts[0][name] for name in streams}, run_block)
        return tuple(frame.get(name) for name in loop.assigned)


class _Loop:
    """The body of a loop, and the names that it assigns."""

    def __init__(self, loop: ast.For) -> None:
        self.assigned = sorted({node.id for node in ast.walk(loop) if _is_assigned(node)})
        self.target = ast.unparse(loop.target)
        self.body = _compiled(loop.body)

    def run_round(self, module: Frame, frame: Frame, turn: Any) -> Frame:
        names = {**module, **frame, "__turn": turn}
        exec(f"{self.target} = __turn", names)
        exec(self.body, names)
        return {name: names[name] for name in {*frame, *self.assigned} if name in names}


def _is_assigned(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _compiled(body: Sequence[ast.stmt]) -> CodeType:
    """The body of a loop as one round of it, so that `continue` in it ends the round."""
    once = ast.For(ast.Name("__once", ast.Store()), ast.Constant((0,)), list(body), [])
    return compile(ast.fix_missing_locations(ast.Module([once], [])), "<a round of a loop>", "exec")


class _Replaced(ast.NodeTransformer):
    """`for TARGET in ITEMS: ...` over a stack -> `a, b, = RUN(number, locals(), list(ITEMS))`."""

    def __init__(self, stack: str, loops: list[_Loop]) -> None:
        self.stack = stack
        self.loops = loops

    def visit_For(self, node: ast.For) -> ast.AST:
        if not any(isinstance(part, ast.Attribute) and part.attr == self.stack for part in ast.walk(node.iter)):
            return self.generic_visit(node)
        loop = _Loop(node)
        self.loops.append(loop)
        run = f"{RUN}({len(self.loops) - 1}, locals(), list({ast.unparse(node.iter)}))"
        return ast.parse(f"({', '.join(loop.assigned)},) = {run}").body[0]


def _copied(frame: Frame) -> Frame:
    """A frame of its own: what a loop appends to or pops from is a list of its own, too."""
    return {name: copy.copy(value) if isinstance(value, (list, dict)) else value for name, value in frame.items()}


def _appended(before: Frame, after: Frame) -> list[Any]:
    """What a round appended to the lists of its frame, in one order for all rounds of a loop."""
    grown = [name for name, value in before.items() if isinstance(value, list) and isinstance(after.get(name), list)]
    return [item for name in grown for item in after[name][len(before[name]) :]]
