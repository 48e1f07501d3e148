"""Who asks an object for its class: Python, which may be told what it stands for, or C++ that is called with it.

A proxy says that it is a tensor, so that code which asks with `isinstance` takes the way of tensors. What is dispatched
by `__torch_function__` looks for that first. But other C++ asks as well (autograd functions, TorchScript, transforms of
torch.func), and then reads the memory of the object as that of a tensor: with a proxy the process falls over, now or
later.
"""

import dis
import functools
import inspect
from types import CodeType

QUESTIONS = frozenset({"isinstance", "issubclass"})
METACLASS_ANSWER = "__instancecheck__"  # Python or C that runs for `isinstance` itself
OWN = "surgery.tracing."  # where torch is called only with what it dispatches
CALL = "CALL"  # in the names of all instructions that call something


def is_asked_in_python() -> bool:
    """Whether the attribute `__class__`, whose getter calls this, is read by other code than a function that is called.

    Called with it, that is, in the line of Python that runs: an operator or an index is dispatched by torch.
    """
    frame = inspect.currentframe()
    getter = frame and frame.f_back
    asker = getter and getter.f_back
    if asker is None:
        return False
    return (
        asker.f_lasti not in _calls_of_others(asker.f_code)
        or asker.f_code.co_name == METACLASS_ANSWER
        or str(asker.f_globals.get("__name__")).startswith(OWN)
    )


@functools.cache
def _calls_of_others(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions that call something else than a question: a call begins where its name stands."""
    instructions = list(dis.get_instructions(code))
    questions = {_begin_of(found) for found in instructions if found.argval in QUESTIONS}
    calls = (found for found in instructions if CALL in found.opname)
    return frozenset(found.offset for found in calls if _begin_of(found) not in questions)


def _begin_of(instruction: dis.Instruction) -> tuple[int | None, int | None]:
    """Line and column; without columns, where Python was told to keep none, the whole line counts."""
    place = instruction.positions
    return (None, None) if place is None else (place.lineno, place.col_offset)
