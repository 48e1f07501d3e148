"""A DiT with frequency gates and timesteps -> how far each block's gate is open to which adapter."""

from collections.abc import Sequence

import torch

from surgery.dit.blocks import FrequencyGate
from surgery.dit.model import DiT
from surgery.errors import InputError


def read_gates(model: DiT, timesteps: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """(blocks, timesteps) in float32: the mean of g over the channels, which is the share of the `low` adapter.

    Timesteps are counted as the scheduler does. A mean of 0.5 at all times can hide channels that go apart: see
    `read_channel_gates`. Which of the two adapters is called low is a name, and no finding (see `FrequencyGate`).

    Raises:
        InputError: the model has no such gates.
    """
    return read_channel_gates(model, timesteps).mean(dim=-1)


@torch.no_grad()
def read_channel_gates(model: DiT, timesteps: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """(blocks, timesteps, channels) in float32: g = sigmoid(W SiLU(t) + b) of every block; raises as `read_gates`."""
    gates = [getattr(block, "condition", None) for block in model.transformer_blocks]
    found = [gate for gate in gates if isinstance(gate, FrequencyGate)]
    if not found:
        raise InputError(f"a DiT of conditioning {model.config.conditioning} has no gates; freq_gate has")
    times = torch.as_tensor(timesteps, dtype=torch.float32, device=model.device).reshape(-1)
    time = model.time_embedding(times, model.dtype)
    return torch.stack([gate.gate_at(time).float().cpu() for gate in found])
