"""What a forward writes into its model while it is traced: a graph writes nothing, so a later call must not need it.

A table that is made of sizes and constants is made anew by the graph, the same each time. What is made of the contents
of the inputs (a cache of keys, the result of the step before) is another thing at the next call.
"""

from torch import fx, nn

from surgery.errors import RefusedError
from surgery.tracing.own_objects import OF_TORCH, Path, is_plain_object, walk_objects
from surgery.tracing.stack_code import is_read
from surgery.tracing.values import ValueProxy

SIZES = ("shape", "ndim", "size", "dim", "numel", "__len__")  # attributes and methods that say nothing of contents


def refuse_kept_inputs(model: nn.Module) -> None:
    """Refuse a forward that has left what it made of its inputs in the model that was traced, and may read it again.

    Raises:
        RefusedError: it has; the text names the attribute.
    """
    for name, value in vars(model).items():
        for path, kept in () if name in OF_TORCH else walk_objects(value, (name,)):
            is_made_of_inputs = issubclass(type(kept), ValueProxy) and _is_made_of_inputs(kept.node)
            if is_made_of_inputs and _may_be_read(model, path):
                place = ".".join(map(str, path))
                raise RefusedError(
                    f"{type(model).__name__} can't be edited: from call to call it keeps {place}, which is made of its "
                    "inputs, and a rewritten graph keeps nothing"
                )


def _may_be_read(model: nn.Module, path: Path) -> bool:
    """Whether code reads the attribute of the model, and that of the object in it, by which a value is found."""
    owners, owner = [type(model)], vars(model)[str(path[0])]
    names = list(path[: 2 if is_plain_object(owner) else 1])
    return all(is_read([*owners, type(owner)][: number + 1], str(name)) for number, name in enumerate(names))


def _is_made_of_inputs(node: fx.Node) -> bool:
    pending, seen = [node], set[fx.Node]()
    while pending:
        top = pending.pop()
        if top.op == "placeholder":
            return True
        if top not in seen and not _is_size(top):
            pending += top.all_input_nodes
        seen.add(top)
    return False


def _is_size(node: fx.Node) -> bool:
    return (node.target is getattr and node.args[1] in SIZES) or (node.op == "call_method" and node.target in SIZES)
