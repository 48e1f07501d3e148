"""Subclasses that go by the name of their original: objects stay what they were, and do one thing otherwise."""

from collections.abc import Callable, Mapping
from typing import Any


def subclass_of_same_name(original: Any, members: Mapping[str, Any], made_by: Callable[[Any], type]) -> type:
    """A subclass with the name, module and docstring of its original, and with these members.

    `made_by` makes it of the original: an object that is pickled finds its class so, as no module holds it.
    """

    def reduce(self: Any, _protocol: Any) -> tuple[Any, ...]:
        return new_object, (made_by, original), self.__getstate__()

    named = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__reduce_ex__": reduce,
    }
    return type(original.__name__, (original,), {**named, **members})


def new_object(made_by: Callable[[Any], type], original: Any) -> Any:
    """An object of such a class, without any state."""
    return object.__new__(made_by(original))
