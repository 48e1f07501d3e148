"""The code of a class -> whether its forward only runs the blocks of a stack one after the other; nothing is run.

For a class whose forward can't be watched. What is known to be plain is `for block in self.blocks`, with or without the
number of the block, which may be used only where an optional argument is given (a ControlNet's residuals are spaced by
it). All else that the code does with the stack or with the number counts as going by numbers; so does what counts the
rounds of such a loop in another way.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from surgery.tracing.wrappers import innermost

FROM_OUTSIDE = re.compile(r"control|residual|samples|skip_layers|adapter|ip_")  # names of such arguments
MAX_SHOWN = 80  # characters of a line of code in a message


def use_of_numbers(model: nn.Module, stack: str, fields: Collection[str] = ()) -> str | None:
    """The line of a forward that goes by the numbers of a stack's blocks, as a phrase; None where there is none.

    `stack` is the dotted name of a ModuleList in `model`; `fields` are those of the config that say how long it is.
    """
    path, _, name = stack.rpartition(".")
    owner = type(model.get_submodule(path))
    is_run = False
    for method in _reachable(owner, "forward", set()):
        if _names_of(method).isdisjoint({name, *fields}):
            continue
        tree = _parse(method)
        if tree is None:
            return f"the code of {owner.__name__} can't be read"
        is_run = is_run or any(_runs(node, name) for node in ast.walk(tree))
        line = _suspicious(tree, name, fields, _optional_arguments(owner))
        if line is not None:
            return f"the code of {owner.__name__} has `{line}`"
    return None if is_run else f"the code of {owner.__name__} does not run its {name} one after the other"


def is_read(owners: Iterable[type], attribute: str) -> bool:
    """Whether the code of the files in which classes stand, and those that they inherit from, reads an attribute."""
    bases = {base for owner in owners for base in owner.__mro__ if base not in (object, nn.Module)}
    files = {file for base in bases for file in _files_of(base)}
    try:
        sources = [inspect.getsource(sys.modules[file]) for file in files]
    except (OSError, TypeError):
        return True
    name = re.escape(attribute)
    reading = re.compile(rf"\.{name}\b(?!\s*=[^=])|getattr\([^)]*[\"']{name}[\"']")
    return any(reading.search(source) for source in sources)


def _files_of(owner: type) -> set[str]:
    """The modules that hold the code of a class: where it says it is, which may be the package that offers it, and
    where its methods are."""
    methods = [member for member in vars(owner).values() if inspect.isfunction(member)]
    return {owner.__module__, *(method.__module__ for method in methods)}


def _reachable(owner: type, name: str, seen: set[str]) -> Iterator[Any]:
    """A method of a class, and those that it calls by name."""
    method = inspect.getattr_static(owner, name, None)
    method = innermost(method) if inspect.isfunction(method) else None
    if method is None or name in seen:
        return
    seen.add(name)
    yield method
    for called in _names_of(method):
        yield from _reachable(owner, called, seen)


def _names_of(method: Any) -> set[str]:
    """The names of globals and attributes in a function, and in those within it."""
    codes, names = [method.__code__], set()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return names


def _parse(method: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return None


def _optional_arguments(owner: type) -> set[str]:
    """Those that a pipeline of the model alone does not give: a ControlNet's and their like."""
    parameters = inspect.signature(innermost(getattr(owner, "forward"))).parameters.values()  # noqa: B009  (typed Any)
    return {one.name for one in parameters if one.default is None and FROM_OUTSIDE.search(one.name)}


def _suspicious(tree: ast.AST, name: str, fields: Collection[str], optional: set[str]) -> str | None:
    """The first line that uses the stack, or the number of a block, in a way that is not known to be plain."""
    allowed = {inner for node in ast.walk(tree) for part in _only_with(node, optional) for inner in ast.walk(part)}
    numbers: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)) and (found := _iterated(node.iter, name)) is not None:
            allowed |= set(ast.walk(node.iter))
            numbers |= _first_targets(node.target) if found == "numbers" else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and _iterated(node.iter, name) is None:  # its numbers are those of another loop
            others = _first_targets(node.target) & numbers
            allowed |= {part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id in others}
        if isinstance(node, ast.For) and _iterated(node.iter, name) is not None:
            counting = next((part for line in node.body for part in ast.walk(line) if _counts(part)), None)
            counting = counting or _carried(node)
            if counting is not None:
                return _line_of(tree, counting)
    for node in ast.walk(tree):
        is_number = isinstance(node, ast.Name) and node.id in numbers and isinstance(node.ctx, ast.Load)
        is_field = isinstance(node, ast.Attribute) and node.attr in fields
        if (_is_stack(node, name) or is_number or is_field) and node not in allowed:
            return _line_of(tree, node)
    return None


def _counts(node: ast.AST) -> bool:
    """Whether a loop may count its rounds by this: `n += 1`, or something is put aside or taken each time."""
    match node:
        case ast.AugAssign(value=ast.Constant(int())):
            return True
        case ast.Call(ast.Name("next")) | ast.Call(ast.Attribute(attr="append" | "pop" | "popleft" | "__next__")):
            return True
    return False


def _carried(loop: ast.For) -> ast.AST | None:
    """The first line by which a loop carries something from round to round that its blocks do not return."""
    blocks = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
    lines = [line for part in loop.body for line in ast.walk(part) if isinstance(line, (ast.Assign, ast.AugAssign))]
    streams = {name for line in lines if _runs_one_of(line.value, blocks) for name in _stored(line)}
    fresh: set[str] = set()
    for line in lines:
        read = {node.id for node in ast.walk(line.value) if isinstance(node, ast.Name)}
        is_kept = isinstance(line, ast.AugAssign) or any(isinstance(node, ast.Subscript) for node in _targets(line))
        for name in _stored(line) - streams - fresh:
            if is_kept or name in read:
                return line
            fresh.add(name)
    return None


def _runs_one_of(value: ast.AST, blocks: set[str]) -> bool:
    """Whether a block is called, or handed to a function that calls it."""
    calls = [node for node in ast.walk(value) if isinstance(node, ast.Call)]
    return any(isinstance(part, ast.Name) and part.id in blocks for call in calls for part in (call.func, *call.args))


def _targets(line: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    return [line.target] if isinstance(line, ast.AugAssign) else line.targets


def _stored(line: ast.Assign | ast.AugAssign) -> set[str]:
    """The names that an assignment changes, those of which it changes an item too."""
    found = set()
    for node in (part for target in _targets(line) for part in ast.walk(target)):
        if isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node is _base(line)):
            found.add(node.id)
    return found


def _base(line: ast.Assign | ast.AugAssign) -> ast.AST | None:
    """`x` of `x[0] = ...`."""
    target = _targets(line)[0]
    while isinstance(target, (ast.Subscript, ast.Attribute)):
        target = target.value
    return target


def _only_with(node: ast.AST, optional: set[str]) -> Sequence[ast.AST]:
    """The parts of a statement or an expression that run only where an optional argument is given."""
    match node:
        case ast.If(test, body) if _asks_for(test, optional):
            return [test, *body]
        case ast.IfExp(test, body) if _asks_for(test, optional):
            return [test, body]
        case ast.BoolOp(ast.And(), [first, *others]) if _asks_for(first, optional):
            return others
    return []


def _runs(node: ast.AST, name: str) -> bool:
    return isinstance(node, (ast.For, ast.comprehension)) and _iterated(node.iter, name) is not None


def _iterated(node: ast.AST, name: str) -> str | None:
    """What a loop goes over: the `blocks` of the stack, or their `numbers` too."""
    if _is_stack(node, name):
        return "blocks"
    match node:
        case ast.Call(ast.Name("enumerate"), [stack], []) if _is_stack(stack, name):
            return "numbers"
    return None


def _is_stack(node: ast.AST, name: str) -> bool:
    """`self.NAME`, whatever the object is called."""
    return isinstance(node, ast.Attribute) and node.attr == name


def _first_targets(target: ast.AST) -> set[str]:
    if not isinstance(target, ast.Tuple):
        return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
    return {node.id for node in ast.walk(target.elts[0]) if isinstance(node, ast.Name)}


def _asks_for(test: ast.AST, optional: set[str]) -> bool:
    """Whether a condition holds only where an optional argument is given."""
    match test:
        case ast.BoolOp(ast.And(), values):
            return any(_asks_for(value, optional) for value in values)
        case ast.Compare(ast.Name(name), [ast.IsNot()], [ast.Constant(None)]):
            return name in optional
    return False


def _line_of(tree: ast.AST, node: ast.AST) -> str:
    """The statement of a node, on one line."""
    statements = [part for part in ast.walk(tree) if isinstance(part, ast.stmt) and node in set(ast.walk(part))]
    smallest = min(statements, key=lambda part: len(list(ast.walk(part))))
    text = ast.unparse(smallest).splitlines()[0]
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
