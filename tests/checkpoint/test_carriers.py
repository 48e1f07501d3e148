"""Which weights carry a constant or a factor is found by trying; what can't be carried is refused with the reason."""

import pytest
import torch
from torch import nn

from surgery.anatomy.anatomy import Component, TokenOutput
from surgery.anatomy.from_model import read_anatomy
from surgery.checkpoint.carriers import (
    find_constant_carriers,
    find_scale_carriers,
    find_used_streams,
    record_calls,
    silence_block,
)
from surgery.errors import RefusedError
from surgery.testing import build_tiny_model, tiny_call


def carriers_of(name, path, *, with_mean=True):
    return carriers_of_model(build_tiny_model(name), path, with_mean=with_mean)


def carriers_of_model(model, path, *, with_mean):
    stack, index, component = path.split(".", 2)
    known = read_anatomy(model).find_stack(stack).kind(int(index)).find_component(component)
    block = f"{stack}.{index}"
    calls = record_calls(model, [path, block], tiny_call(model))
    streams = find_used_streams(model.get_submodule(block), known, calls[block])
    return find_constant_carriers(model.get_submodule(path), known, calls[path], streams, with_mean=with_mean)


@pytest.mark.parametrize(
    ("name", "path", "carriers"),
    [
        ("pixart", "transformer_blocks.1.attn1", ["to_out.0"]),
        ("pixart", "transformer_blocks.1.ff", ["net.2"]),
        ("pixart", "transformer_blocks.1.ff.net.0.proj", [""]),
        ("sd3", "transformer_blocks.1.attn", ["to_out.0", "to_add_out"]),
        ("sd3", "transformer_blocks.4.attn", ["to_out.0"]),  # the last layer drops the other output
        ("sd3-dual", "transformer_blocks.1.attn2", ["to_out.0"]),
        ("flux", "transformer_blocks.1.ff_context", ["net.2"]),
        ("flux", "single_transformer_blocks.1.attn", ["to_v"]),
        ("flux", "single_transformer_blocks.1.proj_mlp", [""]),
    ],
)
def test_the_layer_at_the_end_carries_a_mean(name, path, carriers):
    assert list(carriers_of(name, path).values()) == carriers


def test_without_a_bias_there_is_nothing_to_carry_a_mean():
    with pytest.raises(RefusedError, match="at its end has no bias that could carry a mean"):
        carriers_of("auraflow", "single_transformer_blocks.1.ff")
    assert carriers_of("auraflow", "single_transformer_blocks.1.ff", with_mean=False)


def test_the_last_convolution_carries_a_mean_of_every_place():
    torch.manual_seed(0)
    picture = nn.Sequential(nn.Conv2d(4, 6, 1), nn.SiLU(), nn.Conv2d(6, 4, 3, padding=1))
    known = Component("c", "Sequential", 250, (TokenOutput("input", 4, 4, 1),))
    call = ((torch.randn(2, 4, 5, 5),), {})
    assert find_constant_carriers(picture, known, call, ["input"], with_mean=True) == {"input": "2"}


def test_an_output_that_keeps_its_input_can_not_be_made_constant():
    class Residual(nn.Linear):
        def forward(self, x):
            return x + super().forward(x)

    torch.manual_seed(0)
    known = Component("c", "Residual", 20, (TokenOutput("x", 4, 4),))
    with pytest.raises(RefusedError, match="none of its layers alone can make its output constant"):
        find_constant_carriers(Residual(4, 4), known, ((torch.randn(2, 3, 4),), {}), ["x"], with_mean=False)


class Block(nn.Module):
    """Adds what one or two branches make of its input; in series, or side by side."""

    def __init__(self, *, in_series, adds=True):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.in_series, self.adds = in_series, adds

    def forward(self, x):
        a = self.first(x)
        b = self.second(torch.tanh(x + a if self.in_series else x))
        return (x if self.adds else torch.tanh(x)) + a + b


def block_call(**kinds):
    torch.manual_seed(1)
    return Block(**kinds), ((torch.randn(2, 3, 4),), {})


def test_branches_side_by_side_are_scaled_together():
    block, call = block_call(in_series=False)
    assert find_scale_carriers(block, call, ["first", "second"]) == ("first", "second")


def test_branches_in_series_can_be_silenced_but_not_scaled():
    block, call = block_call(in_series=True)
    with pytest.raises(
        RefusedError, match="one of its branches feeds another, so no factor on weights scales their sum"
    ):
        find_scale_carriers(block, call, ["first", "second"])
    assert silence_block(block, call, ["first", "second"]) == ("first", "second")


def test_a_block_that_does_more_than_add_is_refused():
    block, call = block_call(in_series=False, adds=False)
    with pytest.raises(RefusedError, match="it does not add to its streams"):
        find_scale_carriers(block, call, ["first", "second"])
    with pytest.raises(RefusedError, match="it does not add to its streams"):
        silence_block(block, call, ["first", "second"])


def test_silencing_less_than_all_branches_is_refused():
    block, call = block_call(in_series=False)
    with pytest.raises(RefusedError, match="it does more than add the outputs of its components"):
        silence_block(block, call, ["first"])


def test_trying_leaves_the_model_and_the_random_state_as_they_were():
    model = build_tiny_model("sd3")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    path = "transformer_blocks.1.attn"
    carriers_of_model(model, path, with_mean=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
