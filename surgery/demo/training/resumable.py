"""A training loop that a kill can't hurt: state is written beside and renamed, every step draws its own noise."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from surgery.progress import show_progress

SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True)
class TrainingSchedule:
    """Linear warm-up, a plateau, and a linear decay to zero over the last `decay_share` of the steps."""

    num_steps: int
    warmup_steps: int = 100
    decay_share: float = 0.4

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at `step` (0 <= step < num_steps)."""
        decay_steps = max(1, round(self.num_steps * self.decay_share))
        rising = (step + 1) / self.warmup_steps
        falling = (self.num_steps - step) / decay_steps
        return min(1.0, rising, falling)


class Averaged:
    """An exponential moving average of a module's parameters, warmed up so that early steps are forgotten."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update_(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's present values."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value.detach(), 1.0 - decay)


def generator_for_step(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random numbers of one step: a function of (seed, step) alone, so that a resumed run repeats nothing."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def write_checkpoint(state: dict[str, object], path: Path) -> None:
    """Write the state beside `path`, then rename it."""
    beside = path.with_suffix(".partial")
    torch.save(state, beside)
    beside.replace(path)


def train_(
    module: nn.Module,
    *,
    optimizers: Sequence[torch.optim.Optimizer],
    loss_at_step: Callable[[int], torch.Tensor],
    schedule: TrainingSchedule,
    checkpoint: Path,
    ema_decay: float,
    label: str,
) -> Averaged:
    """Train `module` in place for `schedule.num_steps` steps, from `checkpoint` where there is one.

    `loss_at_step(step)` returns the scalar loss of one step. Returns the moving average of the parameters.
    """
    average = Averaged(module, ema_decay)
    first_step, seconds_before = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=next(module.parameters()).device)
        module.load_state_dict(state["module"])
        average.values = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first_step, seconds_before = state["step"], state["seconds"]
    base_rates = [[group["initial_lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    started = last_saved = time.monotonic()
    smooth_loss: float | None = None
    with show_progress(schedule.num_steps, unit="step", label=label, done=first_step) as meter:
        for step in range(first_step, schedule.num_steps):
            for optimizer, rates in zip(optimizers, base_rates, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * schedule.factor(step)
            loss = loss_at_step(step)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            average.update_(module, step)
            smooth_loss = loss.item() if smooth_loss is None else 0.98 * smooth_loss + 0.02 * loss.item()
            meter.note(f"loss {smooth_loss:.4f}")
            meter.advance(1)
            now = time.monotonic()
            if now - last_saved > SECONDS_BETWEEN_CHECKPOINTS or step == schedule.num_steps - 1:
                last_saved = now
                state = {
                    "module": module.state_dict(),
                    "average": average.values,
                    "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                    "step": step + 1,
                    "seconds": seconds_before + now - started,
                }
                write_checkpoint(state, checkpoint)
    return average
