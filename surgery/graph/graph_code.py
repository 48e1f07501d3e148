"""A rewritten graph -> its function, the names in it, and its Python code to be read."""

from collections.abc import Callable
from typing import Any

from torch import fx

from surgery.torch_internals import without_freeing

CompiledForward = Callable[..., Any]


def compile_graph(graph: fx.Graph) -> CompiledForward:
    """The function of a graph's own code, as torch.fx.GraphModule runs it: `forward(model, *inputs)`."""
    code = graph.python_code("self", verbose=False)
    namespace: dict[str, Any] = dict(code.globals)
    exec(code.src, namespace)
    compiled: CompiledForward = namespace["forward"]
    return compiled


def names_in_graph(graph: fx.Graph) -> frozenset[str]:
    """The modules and weights that a graph names."""
    return frozenset(str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr"))


def readable_source(graph: fx.Graph) -> str:
    """The code of a graph without what frees its values early."""
    return without_freeing(graph.python_code("self", verbose=False).src).strip() + "\n"
