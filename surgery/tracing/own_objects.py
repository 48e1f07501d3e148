"""Plain objects that the modules of a model hold: a helper that makes positions, an attention processor.

They are no modules, so nothing that goes through modules sees them; but a forward runs their code, and they may keep
what they make from one call to the next: a table, a list of tensors.
"""

import sys
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

OF_TORCH = frozenset(vars(nn.Module()))  # what torch keeps in every module, its registries among them
FOREIGN = {*sys.stdlib_module_names, "torch"}  # whose objects may be more than what stands in them: threads, streams
PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)

Path = tuple[Hashable, ...]  # names of attributes, indices of lists, keys of dicts


class OwnObjects:
    """Copies of the plain objects of modules, and of the containers that hold them; one for each object."""

    def __init__(self, modules: Mapping[int, nn.Module]) -> None:
        """`modules` are the copies of modules by the identity of the original."""
        self.modules = modules
        self.found: dict[int, Any] = {}

    def give_to_(self, module: nn.Module) -> None:
        """Let a copy of a module hold copies of what it holds."""
        for name, value in module.__dict__.items():
            if name not in OF_TORCH and type(value) not in PLAIN_TYPES:
                module.__dict__[name] = self.of(value)

    def of(self, value: Any) -> Any:
        """The copy of a value; what is neither a plain object nor a plain container stands for itself."""
        if id(value) in self.modules:
            return self.modules[id(value)]
        if id(value) in self.found:
            return self.found[id(value)]
        if type(value) in (tuple, set):
            return type(value)(self.of(item) for item in value)
        if type(value) is list:
            copied: list[Any] = []
            self.found[id(value)] = copied
            copied.extend(self.of(item) for item in value)
            return copied
        if type(value) in (dict, OrderedDict):
            self.found[id(value)] = table = type(value)()
            table.update((key, self.of(item)) for key, item in value.items())
            return table
        if not is_plain_object(value):
            return value
        self.found[id(value)] = twin = object.__new__(type(value))
        twin.__dict__.update((name, self.of(held)) for name, held in vars(value).items())
        return twin


def is_plain_object(value: Any) -> bool:
    """Whether all that a value is stands in its `__dict__`: an object of an ordinary class of Python, and no module."""
    kind: Any = type(value)
    return (
        kind.__new__ is object.__new__
        and kind.__reduce__ is object.__reduce__
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__module__.partition(".")[0] not in FOREIGN
        and isinstance(getattr(value, "__dict__", None), dict)
        and not any("__slots__" in vars(base) for base in kind.__mro__)
        and not isinstance(value, nn.Module)
    )


def names_of_objects(model: nn.Module) -> tuple[str, ...]:
    """The attributes of a model in which it holds plain objects, or tensors in lists and dicts."""
    return tuple(
        name for name, value in _attributes(model) if any(_is_state(held) for _, held in walk_objects(value, (name,)))
    )


def held_in_objects(model: nn.Module) -> Iterator[tuple[Path, Any]]:
    """What the plain objects and the containers of a model hold, with the way to it from the model."""
    for name, value in _attributes(model):
        for path, held in walk_objects(value, (name,)):
            if len(path) > 1:
                yield path, held


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # it checks itself what it reads of them
def state_of_objects(model: nn.Module, names: tuple[str, ...]) -> str:
    """What these attributes of a model hold, as far as a forward may go by it: of tensors all but what is in them.

    A text, which torch.compile can hold as a constant. Which tensors are one and the same is in it as well.
    """
    numbers: dict[int, int] = {}
    state = [
        (
            path,
            _form_of(value),
            numbers.setdefault(id(value), len(numbers)) if isinstance(value, torch.Tensor) else None,
        )
        for name in names
        for path, value in walk_objects(vars(model).get(name), (name,))
    ]
    return repr(state)


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in vars(model).items() if not name.startswith("_"))


def walk_objects(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """A value and all that it holds as a plain object or a plain container, with the way to it."""
    pending, seen = [(path, value)], dict[int, Any]()
    while pending:
        here, top = pending.pop()
        yield here, top
        if id(top) in seen:
            continue
        held = _held_by(top)
        seen.update({id(top): top} if held else {})
        pending += reversed([((*here, key), item) for key, item in held])


def _held_by(value: Any) -> list[tuple[Hashable, Any]]:
    if type(value) in (tuple, list):
        return list(enumerate(value))
    if type(value) in (dict, OrderedDict):
        return list(value.items())
    return list(vars(value).items()) if is_plain_object(value) else []


def _is_state(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or is_plain_object(value)


def _form_of(value: Any) -> tuple[Any, ...]:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype, value.device
    return (type(value), value) if isinstance(value, PLAIN_TYPES) else (type(value),)
