"""Gradient checkpointing, kept: blocks that the forward runs through the model's checkpointing function still are."""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from surgery.diffusers_internals import node_of_checkpointing_function, set_checkpointing_function_

MARK = "checkpointed"  # in a node's meta


def mark_checkpointed_calls_(model: nn.Module) -> None:
    """Let a model that is about to be traced record which blocks it runs checkpointed."""
    if not getattr(model, "gradient_checkpointing", False):
        return

    def call(block: Callable[..., Any], *args: Any) -> Any:
        result = block(*args)
        result.node.meta[MARK] = True
        return result

    set_checkpointing_function_(model, call)


def restore_checkpointed_calls_(graph: fx.Graph) -> None:
    """Run the marked blocks of a graph through the model's own checkpointing function again."""
    for node in list(graph.nodes):
        if not node.meta.get(MARK):
            continue
        with graph.inserting_before(node):
            function = node_of_checkpointing_function(graph)
            block = graph.get_attr(str(node.target))
            call = graph.call_function(call_checkpointed, (function, block, *node.args), dict(node.kwargs))
        node.replace_all_uses_with(call)
        graph.erase_node(node)


def call_checkpointed(function: Callable[..., Any], block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """`function(block, ...)`, as diffusers calls its checkpointing function."""
    return function(block, *args, **kwargs)
