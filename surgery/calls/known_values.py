"""Forwards on the meta device that ask what is in their inputs: what is made of inputs alone is computed for real, too.

A mask that is summed, positions that are looked up, a flag of a whole tensor: forwards decide on these, and on the meta
device there is nothing to decide on. Within `known_values` every tensor that is made there, and all that follows from
such tensors and from no weight, has a twin on the CPU that answers. What depends on a weight stays unknown.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from surgery.tracing.in_place import is_name_in_place
from surgery.tracing.memo import tensors_in

MAX_VALUES = 2**20  # of a twin; a larger tensor has none
WRITING_OPERATORS = frozenset(
    {"__setitem__", "__iadd__", "__isub__", "__imul__", "__idiv__", "__itruediv__", "__ifloordiv__", "__imod__"}
    | {"__ipow__", "__imatmul__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"}
)
META, CPU = torch.device("meta"), torch.device("cpu")


@contextmanager
def known_values() -> Iterator[None]:
    """Within it, forwards on the meta device know what their inputs hold, if these are made within it."""
    with _autocast_on_meta(), _Twins():
        yield


class _Twins(TorchFunctionMode):
    """Runs each function on the meta device, and on the twins of its arguments where all of them have one."""

    def __init__(self) -> None:
        super().__init__()
        self.twins = WeakIdKeyDictionary()  # of tensors on the meta device
        self.lost: set[int] = set()  # where in memory twins are that something unknown was written into

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = (args, kwargs or {})
        given = tensors_in(call)
        is_known = all(self._twin(tensor) is not None for tensor in given)
        try:
            result = func(*args, **call[1])
        except Exception:
            with suppress(Exception):
                return self._on_meta(self._run_twins(func, call))
            raise
        made = tensors_in(result)
        if is_known and (_writes(func) or any(tensor.is_meta for tensor in made)):
            self._follow(func, call, made)
        elif _writes(func):
            self._lose(given[0])
        return result

    def _follow(self, func: Any, call: tuple[Any, Any], made: list[torch.Tensor]) -> None:
        """Give what a function has made its twins; where they can't be computed, it is unknown."""
        with suppress(Exception):
            if all(tensor.numel() <= MAX_VALUES for tensor in made):
                for tensor, twin in zip(made, tensors_in(self._run_twins(func, call)), strict=True):
                    self.twins[tensor] = twin

    def _run_twins(self, func: Any, call: tuple[Any, Any]) -> Any:
        args, kwargs = self._twins_in(call)
        return func(*args, **kwargs)

    def _twins_in(self, value: Any) -> Any:
        """Nested arguments with twins in the place of tensors that have one, and the CPU in that of the meta device."""
        if isinstance(value, torch.Tensor):
            twin = self._twin(value)
            return value if twin is None else twin
        if type(value) in (tuple, list):
            return type(value)(self._twins_in(item) for item in value)
        if type(value) is dict:
            return {key: self._twins_in(item) for key, item in value.items()}
        return CPU if value in (META, "meta") else value

    def _on_meta(self, value: Any) -> Any:
        """What twins have answered, with tensors on the meta device again."""
        if isinstance(value, torch.Tensor):
            return value if value.is_meta else self._with_twin(value)
        if type(value) in (tuple, list):
            return type(value)(self._on_meta(item) for item in value)
        return value

    def _with_twin(self, twin: torch.Tensor) -> torch.Tensor:
        tensor = torch.empty_strided(twin.shape, twin.stride(), dtype=twin.dtype, device=META)
        self.twins[tensor] = twin
        return tensor

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor | None:
        twin = self.twins.get(tensor) if tensor.is_meta else tensor
        return None if twin is None or _memory_of(twin) in self.lost else twin

    def _lose(self, tensor: torch.Tensor) -> None:
        """Something unknown was written into a tensor, and so into all that share its memory."""
        if self._twin(tensor) is not None:
            self.lost.add(_memory_of(self.twins[tensor]))


def _memory_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _writes(func: Any) -> bool:
    name: str = getattr(func, "__name__", "")
    return is_name_in_place(name) or name in WRITING_OPERATORS


@contextmanager
def _autocast_on_meta() -> Iterator[None]:
    """The meta device knows no autocast; forwards that switch it off, or on, for a part of them do without."""
    original = torch.autocast.__init__

    def begin(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == META.type:
            original(self, CPU.type, enabled=False)
        else:
            original(self, device_type, *args, **kwargs)

    torch.autocast.__init__ = begin  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = original  # type: ignore[method-assign]
