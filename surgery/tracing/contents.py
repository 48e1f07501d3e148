"""What a forward decides on the contents of a tensor, worked out on the call's real ones while it is traced.

A traced forward runs on tensors without contents. Where it needs some (`mask.sum().item()`, `nonzero`), the part of the
graph that they depend on is run on the real inputs and the real weights: as a rule a few operations on a mask.
What Python decides on them is a check in the graph, like a decision on a size. A decision on what a block returns is
refused: under a plan it returns something else.
"""

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from surgery.errors import TraceError
from surgery.tracing.memo import is_block_path, tensors_in


class Contents:
    """The real values of the nodes of a graph, as far as they were asked for.

    `model` has the real weights, and may lack blocks that a plan removes; `inputs` are the real inputs by placeholder.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[fx.Node, Any]) -> None:
        self.model = model
        self.known: dict[fx.Node, Any] = dict(inputs)
        self.are_read = False

    def run(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operation on nodes, on their real values.

        Raises:
            TraceError: it makes numbers of what a block returns, or depends on a block that is not there.
            Exception: whatever the operation raises.
        """
        self.are_read = True
        used: list[fx.Node] = []
        fx.map_arg((args, kwargs), used.append)
        result = _in_own_thread(lambda: self.work_out(kind, target, args, kwargs, used))
        if not tensors_in(result):  # of tensors the shapes alone are kept
            _refuse_blocks(used)
        return result

    def work_out(self, kind: str, target: Any, args: Any, kwargs: Any, used: list[fx.Node]) -> Any:
        for node in used:
            self.learn(node)
        return self.operate(kind, target, self.real(args), self.real(kwargs))

    def learn(self, node: fx.Node) -> None:
        """Work out a node and what it depends on (on a stack of its own: graphs are deep)."""
        pending = [node]
        while pending:
            top = pending[-1]
            missing = [used for used in top.all_input_nodes if used not in self.known]
            if top not in self.known and not missing:
                self.known[top] = self.operate(top.op, top.target, self.real(top.args), self.real(top.kwargs))
            if missing:
                pending.extend(missing)
            else:
                pending.pop()

    def real(self, arguments: Any) -> Any:
        return fx.map_arg(arguments, self.known.__getitem__)

    def operate(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        match kind:
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case "call_function":
                return target(*args, **kwargs)
            case "get_attr":
                return operator.attrgetter(target)(self.model)
        try:
            module = self.model.get_submodule(target)
        except AttributeError as error:
            raise TraceError(f"it decides on what {target} returns, which the plan removes") from error
        return module(*args, **kwargs)


def _refuse_blocks(nodes: Sequence[fx.Node]) -> None:
    pending, seen = list(nodes), set[fx.Node]()
    while pending:
        node = pending.pop()
        if node.op == "call_module" and is_block_path(str(node.target)):
            raise TraceError(f"it decides on what {node.target} returns")
        pending += [used for used in node.all_input_nodes if used not in seen]
        seen.update(node.all_input_nodes)


def _in_own_thread(work: Callable[[], Any]) -> Any:
    """The result of `work` in a new thread: what makes new tensors fake, or records them, holds for one thread."""
    done: list[Any] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            with torch.no_grad():
                done.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
