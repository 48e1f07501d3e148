"""On the meta device what is made of inputs alone is known, and what hangs on weights, or was written over, is not."""

import pytest
import torch

from surgery.calls.known_values import known_values

WEIGHT = torch.empty(5, 4, device="meta")


def test_what_follows_from_inputs_is_what_it_is_on_real_tensors():
    def decide(device):
        mask = torch.ones(2, 7, device=device)
        mask[0, 3:] = 0
        places = torch.tensor([[1, 2], [3, 3]], device=device)
        repeated = torch.repeat_interleave(places[0], mask[0, :2].long() + 1)
        return (
            mask.sum(1).tolist(),
            bool((mask == 0).any()),
            int(places.max()),
            mask.nonzero().shape,
            repeated.cpu().numpy().tolist(),
        )

    with known_values():
        assert decide("meta") == decide("cpu")


def test_unknown_values_are_chosen_by_known_ones():
    with known_values():
        hidden_states = torch.zeros(2, 7, 4, device="meta") @ WEIGHT.T
        mask = torch.ones(2, 7, device="meta")
        mask[:, 5:] = 0
        assert hidden_states[mask.bool()].shape == (10, 5)


def test_what_hangs_on_weights_is_unknown():
    with known_values(), pytest.raises(RuntimeError, match="meta"):
        (torch.ones(1, 4, device="meta") @ WEIGHT.T).sum().item()


def test_what_something_unknown_is_written_into_is_unknown_with_all_that_sees_its_memory():
    with known_values():
        mask = torch.ones(5, device="meta")
        seen = mask[1:]
        mask[:] = WEIGHT[:, 0]
        with pytest.raises(RuntimeError, match="meta"):
            seen.sum().item()


def test_autocast_is_as_it_was_afterwards():
    begin = torch.autocast.__init__
    with known_values(), torch.autocast("meta", enabled=False):
        pass
    assert torch.autocast.__init__ is begin
