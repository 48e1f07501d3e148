"""Blocks of one kind are run once while tracing; what can't be told apart by shape is run."""

import pytest
import torch
from torch import nn

from surgery.tracing.memo import BlockMemo


class Block(nn.Module):
    """A block that returns no second stream where its flag says so."""

    def __init__(self, width, last=False):
        super().__init__()
        self.linear, self.last = nn.Linear(width, width), last

    def forward(self, hidden_states):
        return self.linear(hidden_states), None if self.last else hidden_states * 2


def test_equal_blocks_have_equal_keys():
    memo, given = BlockMemo(), (torch.zeros(2, 4),)
    assert memo.key(Block(4), given, {}) == memo.key(Block(4), given, {})


def test_flags_shapes_and_inputs_tell_blocks_apart():
    memo, given = BlockMemo(), (torch.zeros(2, 4),)
    keys = [
        memo.key(Block(4), given, {}),
        memo.key(Block(4, last=True), given, {}),
        memo.key(Block(5), given, {}),
        memo.key(Block(4), (torch.zeros(3, 4),), {}),
        memo.key(Block(4), (torch.zeros(2, 4, dtype=torch.bfloat16),), {}),
        memo.key(Block(4), given, {"scale": 2}),
        memo.key(Block(4), given, {"scale": True}),
    ]
    assert len(set(keys)) == len(keys)


def test_a_recalled_result_has_memory_of_its_own():
    memo, block, given = BlockMemo(), Block(4), (torch.zeros(2, 4),)
    key = memo.key(block, given, {})
    result = block(*given)
    memo.keep(key, result, given)
    recalled = memo.recall(key)
    assert [value.shape for value in recalled] == [value.shape for value in result]
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(recalled, result, strict=True))


def test_a_result_that_shares_memory_with_its_input_is_not_kept():
    memo, given = BlockMemo(), (torch.zeros(2, 4),)
    memo.keep("key", (given[0][:1],), given)
    assert memo.results == {}


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_blocks_with_hooks_are_run(register):
    memo, hooked = BlockMemo(), Block(4)
    getattr(hooked.linear, register)(lambda *_: None)
    assert memo.key(hooked, (torch.zeros(2, 4),), {}) is None


def test_blocks_with_opaque_arguments_are_run():
    memo = BlockMemo()
    assert memo.key(Block(4), (object(),), {}) is None
