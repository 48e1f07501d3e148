"""Names of modules -> `fnmatch` patterns that take exactly these: no order of the patterns changes what they take.

A trainer may save a config with sorted keys. A pattern for the rest of a block, `X.0.*`, then stands before the special
ones, `X.0.attn.*`, and takes their modules. Here the patterns of two sets of names never take the same module.
"""

from collections.abc import Iterable, Sequence


def cover_names(wanted: Sequence[str], others: Iterable[str], path: str = "") -> list[str]:
    """Patterns of whole subtrees (`X.0.attn.*`) and plain names that take what is wanted and none of the others.

    All are dotted names; those that are wanted lie at or below `path`, which no pattern goes above.
    """
    taken = set(wanted)
    beside = [name for name in others if name not in taken and is_within(name, path)]
    if path and not beside and list(wanted) != [path]:
        return [*[path] * (path in taken), f"{path}.*"]
    by_child: dict[str, list[str]] = {}
    for name in wanted:
        by_child.setdefault(_step_towards(name, path), []).append(name)
    below = {child: names for child, names in by_child.items() if child != path}
    patterns = [path] * (path in by_child)
    return patterns + [pattern for child, names in below.items() for pattern in cover_names(names, beside, child)]


def is_within(name: str, path: str) -> bool:
    """Whether a module is the one at a path, or lies below it; the path of the model itself is empty."""
    return not path or name == path or name.startswith(f"{path}.")


def _step_towards(name: str, path: str) -> str:
    """The path that is one step below another on the way to a name; the name itself where that is the path."""
    if name == path:
        return path
    below = name[len(path) + 1 :] if path else name
    return f"{path}.{below.split('.')[0]}" if path else below.split(".")[0]
