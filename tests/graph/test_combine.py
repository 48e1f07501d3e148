"""Half-precision outputs are combined in float32, and rounded once."""

import pytest
import torch

from surgery.graph.combine import mean_of, sum_of_updates


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_combination_is_that_in_float32_rounded_once(dtype):
    generator = torch.Generator().manual_seed(0)
    # four outputs: 3 times `before` is rounded in half precision, 4 times it is not
    before, *outputs = (torch.randn(64, 64, generator=generator).to(dtype) for _ in range(5))
    wide = torch.stack([output.float() for output in outputs])
    assert torch.equal(mean_of(*outputs), (wide.sum(0) / 4).to(dtype))
    updates = sum_of_updates(before, *outputs)
    assert updates.dtype == dtype
    assert torch.equal(updates, (wide.sum(0) - 3 * before.float()).to(dtype))
