"""An attribute of a live object, replaced for a while: how a pipeline's calls are listened to and stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of an instance, for a while."""
    before = owner.__dict__.get(name, replaced)
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if before is replaced:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = before
