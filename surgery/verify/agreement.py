"""Graph and checkpoint of one plan, run on the same inputs: the two roads must give one answer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from surgery.calls.example_inputs import example_call
from surgery.errors import InputError, RefusedError
from surgery.tracing.memo import tensors_in

# Relative, by dtype. Where nothing is folded the arithmetic is the same, and so is the result; a folded constant goes
# through one matrix product more, and a mean or a factor is rounded to the dtype of the weights.
TOLERANCES = {"float64": 1e-12, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}


@dataclass(frozen=True)
class Agreement:
    """How far the output of a checkpoint is from that of the graph: |checkpoint - graph| / |graph|, and what ran.

    Of a model that returns several tensors (pictures and sound) it is the largest.
    """

    difference: float
    model: str
    inputs: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "inputs": dict(self.inputs)}


def compare(graph: nn.Module, checkpoint: nn.Module, *, sizes: Mapping[str, int], what: str) -> Agreement:
    """Run both on the same random inputs of these sizes.

    Raises:
        RefusedError: they differ by more than rounding.
        InputError: the original itself gives no finite numbers.
    """
    example = example_call(graph, sizes=sizes, generator=torch.Generator().manual_seed(1))
    assert example is not None, "the class has example inputs"
    with torch.no_grad():
        expected = tensors_in(graph(**example.kwargs))
        actual = tensors_in(checkpoint(**example.kwargs))
    _refuse_broken(graph, expected, what)
    difference = max(relative_difference(*pair) for pair in zip(actual, expected, strict=True))
    dtype = str(next(graph.parameters()).dtype).removeprefix("torch.")
    if not difference <= TOLERANCES[dtype]:
        raise RefusedError(
            f"the checkpoint's output differs from the graph's by {difference:.2g} (relative), on {what}"
        )
    return Agreement(difference, what, example.sizes)


def _refuse_broken(graph: nn.Module, expected: Sequence[torch.Tensor], what: str) -> None:
    """Raise InputError where the original itself gives no finite numbers: nothing can be compared with that."""
    if all(output.isfinite().all() for output in expected):
        return
    broken = [name for name, value in graph.state_dict().items() if not value.float().isfinite().all()]
    where = f"{broken[0]} holds NaN or infinity" + f", and {len(broken) - 1} more" * (len(broken) > 1)
    reason = where if broken else "its weights are finite; does it overflow in this dtype?"
    raise InputError(
        f"the original gives no finite numbers on {what}, with which the checkpoint could be compared: {reason}; mend "
        "that, or give --verify structure, which copies the tensors as they are"
    )


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """|actual - expected| / |expected|, in float64; 0 where both are the same, infinite where the shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    if torch.equal(actual, expected):
        return 0.0
    return float((actual.double() - expected.double()).norm() / expected.double().norm())
