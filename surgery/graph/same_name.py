"""Subclasses that go by the name of their original: objects stay what they were, and do one thing otherwise."""

from collections.abc import Mapping
from typing import Any


def subclass_of_same_name(original: Any, members: Mapping[str, Any]) -> type:
    """A subclass with the name, module and docstring of its original, and with these members."""
    named = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
    }
    return type(original.__name__, (original,), {**named, **members})
