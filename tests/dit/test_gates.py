"""The frequency gate: what it mixes, how it is read out, and that nothing ties it to a frequency."""

import pytest
import torch

from surgery.dit import read_channel_gates, read_gates
from surgery.dit.tiny_pipelines import tiny_dit
from surgery.errors import InputError
from surgery.testing import tiny_call

OPEN = 200.0  # a sigmoid of it is 1 in float32, and of its negative 0
SWAP_TOLERANCE = 1e-5  # 1 - sigmoid(x) and sigmoid(-x) round otherwise; carried through four blocks


def gates_of(model):
    return [block.condition for block in model.transformer_blocks]


def with_gates_at(bias):
    model = tiny_dit("freq_gate")
    with torch.no_grad():
        for condition in gates_of(model):
            condition.gate.weight.zero_()
            condition.gate.bias.fill_(bias)
    return model


def change_adapters_(model, name):
    with torch.no_grad():
        for condition in gates_of(model):
            getattr(condition, name).weight.normal_(generator=torch.Generator().manual_seed(3))
    return model


@pytest.mark.parametrize(("bias", "used", "unused"), [(OPEN, "low", "high"), (-OPEN, "high", "low")])
def test_a_gate_of_one_asks_the_low_adapter_alone_and_of_zero_the_high_one(run, bias, used, unused):
    call = tiny_call(with_gates_at(bias))
    output = run(with_gates_at(bias), call)
    assert torch.equal(run(change_adapters_(with_gates_at(bias), unused), call), output)
    assert not torch.equal(run(change_adapters_(with_gates_at(bias), used), call), output)


def test_to_swap_the_adapters_and_turn_the_gate_over_changes_nothing(run):
    model, swapped = tiny_dit("freq_gate"), tiny_dit("freq_gate")
    with torch.no_grad():
        for condition in gates_of(swapped):
            condition.low, condition.high = condition.high, condition.low
            condition.gate.weight.neg_()
            condition.gate.bias.neg_()
    call = tiny_call(model)
    torch.testing.assert_close(run(swapped, call), run(model, call), rtol=0, atol=SWAP_TOLERANCE)
    times = range(0, 1000, 100)
    torch.testing.assert_close(read_gates(swapped, times), 1 - read_gates(model, times), rtol=0, atol=SWAP_TOLERANCE)
    for condition in gates_of(swapped):  # half of the swap is none
        condition.low, condition.high = condition.high, condition.low
    assert (run(swapped, call) - run(model, call)).abs().max() > 10 * SWAP_TOLERANCE


def test_gates_are_read_out_as_the_blocks_have_them_at_a_timestep():
    model = tiny_dit("freq_gate")
    call = {**tiny_call(model), "timestep": torch.tensor([700.0, 700.0])}
    seen = []
    hooks = [
        condition.gate.register_forward_hook(lambda module, args, output: seen.append(output.sigmoid()[0, 0]))
        for condition in gates_of(model)
    ]
    with torch.no_grad():
        model(**call)
    for hook in hooks:
        hook.remove()
    found = read_channel_gates(model, [0, 700, 999])
    assert found.shape == (4, 3, 16)
    torch.testing.assert_close(found[:, 1], torch.stack(seen))
    torch.testing.assert_close(read_gates(model, [700]), torch.stack(seen).mean(dim=-1, keepdim=True))


def test_a_model_without_gates_has_none_to_read():
    with pytest.raises(InputError, match="a DiT of conditioning in_context has no gates; freq_gate has"):
        read_gates(tiny_dit("in_context"), [0])
