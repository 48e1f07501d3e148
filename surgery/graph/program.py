"""A variant -> a self-contained `torch.export` program: weights included, loadable with torch alone.

program = torch.export.load("variant.pt2").module()
(sample,) = program(hidden_states=..., timestep=..., ...)
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from surgery.calls.example_inputs import ExampleCall, example_call, why_no_call
from surgery.errors import InternalsError, RefusedError, TraceError
from surgery.graph.rewritten_forward import RewrittenForward
from surgery.graph.variant import forward_of_variant
from surgery.graph.windowed_forward import WindowedForward
from surgery.torch_internals import export_guards
from surgery.tracing.arguments import FlatCall, flatten_call

TRIED_GROWTH = (2, 1.5, 0.5)  # a size is dynamic if the program takes it so many times as large, in one case at least


@dataclass(frozen=True)
class Program:
    """An exported program. `inputs` holds the dtype and shape of each input.

    A size that may differ from call to call is given by its name (`batch`, `height`, ...); `dynamic` are those names,
    `fixed` the other sizes of the example.
    """

    exported: ExportedProgram
    inputs: Mapping[str, Any]
    dynamic: tuple[str, ...]
    fixed: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """What a caller of the program needs to know."""
        return {"inputs": dict(self.inputs), "dynamic": list(self.dynamic), "fixed": dict(self.fixed)}


def export_program(variant: nn.Module, *, sizes: Mapping[str, int] | None = None) -> Program:
    """Export the rewritten graph of a variant, with its weights, in their dtype and on their device.

    Inputs are named as in the model's forward; the output is a tuple. Each size that neither the graph nor the model's
    own modules decide on is dynamic: the batch, the texts, and the resolution where the model allows it. `sizes`
    overrides the example sizes.

    Raises:
        RefusedError: the class has no example inputs, or its forward can't be traced whole or exported.
    """
    name = type(variant).__name__
    example = example_call(variant, sizes=sizes)
    if example is None:
        raise RefusedError(f"an export needs example inputs, and {why_no_call(variant)}; compile to a folder instead")
    rewritten = forward_of_variant(variant)
    if isinstance(rewritten, WindowedForward):
        raise RefusedError(
            "a program runs the same layers in every step and branch, and this variant has windows (when)"
        )
    call = _flat(example, rewritten)
    inputs = dict(zip(call.names, call.inputs, strict=True))
    shapes = {key: dict.fromkeys(range(value.ndim), Dim.AUTO) for key, value in inputs.items()}
    try:
        with torch.no_grad():
            graph, _ = rewritten.rewritten_graph(variant, call)
            exported = torch.export.export(fx.GraphModule(variant, graph), (), inputs, dynamic_shapes=shapes)
    except InternalsError:
        raise
    except TraceError as error:
        raise RefusedError(f"{name} can't be exported: {error}") from error
    except Exception as error:  # torch.export raises errors of many kinds; their first line says why
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RefusedError(f"{name} can't be exported: {reason}") from error
    return _describe(exported, variant, example, rewritten)


def save_program(program: Program, path: Path, extra_files: Mapping[str, str] | None = None) -> None:
    """Write a program to a `.pt2` file; `extra_files` lie in its archive, where `torch.export.load` reads them back."""
    torch.export.save(program.exported, path, extra_files=dict(extra_files or {}))


def _flat(example: ExampleCall, rewritten: RewrittenForward) -> FlatCall:
    return flatten_call((), {**example.kwargs, "return_dict": False}, rewritten.parameters)


def _describe(
    exported: ExportedProgram, variant: nn.Module, example: ExampleCall, rewritten: RewrittenForward
) -> Program:
    """Name the sizes that the program's own guards let change; each is tried, without running the program.

    A version of torch that keeps its guards elsewhere has all sizes fixed here: none is promised unseen.
    """
    guards = [compile(text, "guard", "eval") for text in export_guards(exported)]
    base = _flat(example, rewritten)
    labels: dict[tuple[int, int], list[str]] = {}
    dynamic = []
    for size, value in example.sizes.items():
        for growth in TRIED_GROWTH:
            grown = example_call(variant, sizes={**example.sizes, size: int(value * growth)})
            assert grown is not None, "the example has been made before"
            call = _flat(grown, rewritten)
            if not _hold(guards, dict(zip(call.names, call.inputs, strict=True))):
                continue
            dynamic.append(size)
            for number, (before, after) in enumerate(zip(base.inputs, call.inputs, strict=True)):
                for axis in range(before.ndim):
                    if before.shape[axis] != after.shape[axis]:
                        labels.setdefault((number, axis), []).append(size)
            break
    inputs = {
        name: {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [" + ".join(labels.get((number, axis), [])) or value.shape[axis] for axis in range(value.ndim)],
        }
        for number, (name, value) in enumerate(zip(base.names, base.inputs, strict=True))
    }
    fixed = {size: value for size, value in example.sizes.items() if size not in dynamic}
    return Program(exported, inputs, tuple(dynamic), fixed)


def _hold(guards: list[Any], inputs: Mapping[str, torch.Tensor]) -> bool:
    """Whether all guards of a program hold for inputs of these shapes."""
    with contextlib.suppress(ZeroDivisionError):
        return all(eval(guard, {"torch": torch, "math": math, "L": inputs}) for guard in guards)  # torch's own code
    return False
