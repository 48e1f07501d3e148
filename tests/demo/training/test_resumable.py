"""A killed training goes on to the same bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from surgery.demo.training import resumable
from surgery.demo.training.resumable import Averaged, TrainingSchedule, generator_for_step, train_

NUM_STEPS = 20
CPU = torch.device("cpu")


class Killed(Exception):  # noqa: N818  (no error of anybody)
    """Stands for the end of the process."""


def train(checkpoint, *, killed_at=None, seed=0):
    """A trained nn.Linear and its average; the run ends at step `killed_at`."""
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1

    def loss_at_step(step):
        if step == killed_at:
            raise Killed(f"at step {step}")
        inputs = torch.randn(4, 3, generator=generator_for_step(seed, step, CPU))
        return F.mse_loss(module(inputs), inputs[:, :2])

    average = train_(
        module,
        optimizers=[optimizer],
        loss_at_step=loss_at_step,
        schedule=TrainingSchedule(NUM_STEPS, warmup_steps=4),
        checkpoint=checkpoint,
        ema_decay=0.9,
        label="test",
    )
    return module.state_dict(), average.values


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture
def save_every_step(monkeypatch):
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


@pytest.mark.usefixtures("save_every_step")
@pytest.mark.parametrize("killed_at", [1, 7, 19])
def test_a_killed_and_resumed_run_ends_in_the_same_bits(tmp_path, killed_at):
    straight = train(tmp_path / "straight.pt")
    with pytest.raises(Killed, match="at step"):
        train(tmp_path / "killed.pt", killed_at=killed_at)
    resumed = train(tmp_path / "killed.pt")
    assert equal(resumed[0], straight[0])
    assert equal(resumed[1], straight[1])


def test_a_run_killed_long_after_its_checkpoint_repeats_the_steps_since(tmp_path, monkeypatch):
    straight = train(tmp_path / "straight.pt")
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    with pytest.raises(Killed, match="at step"):
        train(tmp_path / "killed.pt", killed_at=5)
    monkeypatch.setattr(resumable, "SECONDS_BETWEEN_CHECKPOINTS", 1e9)
    with pytest.raises(Killed, match="at step"):
        train(tmp_path / "killed.pt", killed_at=15)
    assert torch.load(tmp_path / "killed.pt", weights_only=True)["step"] == 5
    assert equal(train(tmp_path / "killed.pt")[0], straight[0])


@pytest.mark.usefixtures("save_every_step")
def test_a_resumed_run_without_its_optimizer_is_caught(tmp_path):
    """The saboteur: what the law above would miss if checkpoints held the parameters only."""
    straight = train(tmp_path / "straight.pt")
    with pytest.raises(Killed, match="at step"):
        train(tmp_path / "killed.pt", killed_at=7)
    state = torch.load(tmp_path / "killed.pt", weights_only=True)
    for optimizer in state["optimizers"]:
        optimizer["state"] = {}
    torch.save(state, tmp_path / "killed.pt")
    assert not equal(train(tmp_path / "killed.pt")[0], straight[0])


def test_a_finished_run_is_only_loaded(tmp_path):
    first = train(tmp_path / "done.pt")
    again = train(tmp_path / "done.pt", killed_at=0)
    assert equal(first[0], again[0]) and equal(first[1], again[1])
    assert [path.name for path in tmp_path.iterdir()] == ["done.pt"]


def test_another_seed_is_another_run(tmp_path):
    assert not equal(train(tmp_path / "one.pt")[0], train(tmp_path / "other.pt", seed=1)[0])


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0.0, 1.0))
def test_the_rate_rises_stays_and_falls_to_almost_nothing(num_steps, warmup_steps, decay_share):
    schedule = TrainingSchedule(num_steps, warmup_steps, decay_share)
    factors = [schedule.factor(step) for step in range(num_steps)]
    peak = factors.index(max(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_factors_of_a_round_schedule():
    schedule = TrainingSchedule(100, warmup_steps=10, decay_share=0.4)
    assert [schedule.factor(step) for step in (0, 4, 9, 30, 60, 80, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0, 0.5, 0.025]


@given(st.integers(0, 9), st.integers(0, 10_000))
def test_random_numbers_are_a_function_of_seed_and_step(seed, step):
    first, again = (torch.rand(2, generator=generator_for_step(seed, step, CPU)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(2, generator=generator_for_step(seed, step + 1, CPU)))


def test_the_average_forgets_where_it_started():
    module = nn.Linear(1, 1)
    average = Averaged(module, decay=0.9)
    with torch.no_grad():
        module.weight.fill_(5.0)
    for step in range(200):
        average.update_(module, step)
    assert average.values["weight"].item() == pytest.approx(5.0)
