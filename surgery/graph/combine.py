"""The arithmetic that a rewritten graph adds to the model's own. Half-precision tensors are combined in float32."""

import torch

HALF_TYPES = (torch.float16, torch.bfloat16)


def mean_of(*outputs: torch.Tensor) -> torch.Tensor:
    """The mean of tensors of one shape and dtype: x' = mean_i f_i(x, c) of a parallel group (arXiv 2407.09298)."""
    return (_sum(outputs) / len(outputs)).to(outputs[0].dtype)


def sum_of_updates(before: torch.Tensor, *outputs: torch.Tensor) -> torch.Tensor:
    """x' = x + sum_i (f_i(x, c) - x), for the input x and the outputs f_i(x, c) of a parallel group."""
    wide = before.float() if before.dtype in HALF_TYPES else before
    return (_sum(outputs) - (len(outputs) - 1) * wide).to(before.dtype)


def scaled_update(before: torch.Tensor, after: torch.Tensor, factor: float) -> torch.Tensor:
    """x' = x + a (f(x, c) - x), for the input x, the output f(x, c) and the factor a."""
    return before + factor * (after - before)


def _sum(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    wide = torch.float32 if tensors[0].dtype in HALF_TYPES else tensors[0].dtype
    total = tensors[0].to(wide)
    for tensor in tensors[1:]:
        total = total + tensor
    return total
