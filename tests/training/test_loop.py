"""The loop: what is trained and what is not, what is kept, and that a killed run ends as it would have ended."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from other_process import status_of
from torch import nn

from surgery.errors import InputError
from surgery.training import state as state_module
from surgery.training.accelerator import open_accelerator
from surgery.training.loop import ERROR, seed_of, train_
from surgery.training.settings import TrainingSettings
from surgery.training.state import NAME, read_state

TRUTH = torch.tensor([[1.0, -2.0, 0.5, 3.0]])


class Toy(nn.Module):
    """A line with dropout, and a layer that nobody trains."""

    def __init__(self):
        super().__init__()
        self.line, self.dropout, self.frozen = nn.Linear(4, 1, bias=False), nn.Dropout(0.1), nn.Linear(4, 4)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.line(self.dropout(x))


def build():
    torch.manual_seed(0)
    return Toy()


def batches(number, device, size=8):
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(seed_of(0, number))).to(device)


def loss_of(model, batch):
    return {"square": (model(batch) - batch @ TRUTH.T).square().mean()}


def validate(model):
    return {ERROR: float((model.line.weight - TRUTH).detach().norm()), "more": 1.0}


def run(folder, model=None, batches=batches, loss_of=loss_of, validate=validate, **settings):
    """Train a toy; the model, and how it went."""
    folder.mkdir(exist_ok=True)
    model = build() if model is None else model
    chosen = TrainingSettings(
        **{"steps": 12, "learning_rate": 0.05, "validate_every": 4, "checkpoint_every": 5, **settings}
    )
    accelerator = open_accelerator(chosen, folder, device="cpu")
    trained = train_(
        model, batches=batches, loss_of=loss_of, validate=validate, settings=chosen, accelerator=accelerator,
        folder=folder,
    )  # fmt: skip
    return model, trained


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_error_falls_and_frozen_weights_stay_equal_to_the_bit(tmp_path):
    model, trained = run(tmp_path, steps=60)
    assert trained.best.error < 0.5 * trained.history[0].error
    assert same(model.frozen, build().frozen)
    assert [measured.step for measured in trained.history] == list(range(0, 61, 4))


@pytest.mark.parametrize("is_training", [True, False])
def test_a_model_is_trained_in_the_mode_that_it_is_in_and_measured_without_chance(tmp_path, is_training):
    seen = []

    def noting(model, batch):
        seen.append(model.training)
        return loss_of(model, batch)

    def measured(model):
        assert not model.training
        return validate(model)

    model, _ = run(tmp_path, model=build().train(is_training), loss_of=noting, validate=measured)
    assert set(seen) == {is_training} and model.training == is_training


def test_the_weights_that_measured_best_are_left_in_the_model(tmp_path):
    errors = iter([5.0, 3.0, 4.0, 4.5])
    seen = []

    def measured(model):
        seen.append(model.line.weight.detach().clone())
        return {ERROR: next(errors)}

    model, trained = run(tmp_path, validate=measured)
    assert (trained.best.step, trained.best.error) == (4, 3.0)
    assert torch.equal(model.line.weight, seen[1])


def test_a_run_stops_when_nothing_better_was_measured_for_long(tmp_path):
    errors = iter([5.0, 3.0, 4.0, 4.5, 1.0])
    _, trained = run(tmp_path, validate=lambda model: {ERROR: next(errors)}, steps=100, patience=2)
    assert (trained.steps, trained.best.step) == (12, 4)


def test_two_batches_accumulated_are_one_of_both(tmp_path):
    apart, _ = run(tmp_path / "a", model=without_dropout(), accumulate=2, steps=3, validate_every=3)

    def both(number, device):
        return torch.cat([batches(2 * number, device), batches(2 * number + 1, device)])

    joined, _ = run(tmp_path / "b", model=without_dropout(), batches=both, steps=3, validate_every=3)
    assert torch.allclose(apart.line.weight, joined.line.weight, atol=1e-6)  # sums in another order


def without_dropout():
    model = build()
    model.dropout = nn.Identity()
    return model


def test_a_loss_of_weight_0_is_looked_at_and_teaches_nothing(tmp_path):
    def both(model, batch):
        return {**loss_of(model, batch), "other": 100 * model.line.weight.square().sum()}

    plain, _ = run(tmp_path / "a")
    weighted, _ = run(tmp_path / "b", loss_of=both, weights={"other": 0.0})
    assert same(plain, weighted)


def run_and_be_killed(folder, last, options):
    """As `run`, until the batch of a number is asked for."""

    def killing(number, device):
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(number, device)

    run(Path(folder), batches=killing, **options)


class Stopped(BaseException):
    """What ends a run where it is raised."""


def run_and_be_stopped(folder, last, options):
    """As `run`, until the batch of a number is asked for, in this process."""

    def stopping(number, device):
        if number == last:
            raise Stopped
        return batches(number, device)

    with pytest.raises(Stopped):
        run(Path(folder), batches=stopping, **options)


@pytest.mark.parametrize("kept_before", [4, 7], ids=["within an interval", "two intervals in"])
@pytest.mark.parametrize(
    "is_killed",
    [False, pytest.param(True, marks=pytest.mark.slow)],  # it takes a process that loads torch
)
def test_a_killed_run_ends_as_it_would_have_ended_to_the_bit(tmp_path, kept_before, is_killed):
    """One that is stopped keeps nothing more on its way out: its state is that of one that is killed."""
    options = {"ema": 0.9, "accumulate": 2, "schedule": "cosine", "checkpoint_every": 3, "weight_decay": 0.01}
    whole, expected = run(tmp_path / "whole", **options)

    given = str(tmp_path / "killed"), 2 * kept_before, options
    if is_killed:
        assert status_of(__file__, "run_and_be_killed", *given) == -signal.SIGKILL
    else:
        run_and_be_stopped(*given)
    assert read_state(tmp_path / "killed")["step"] == kept_before // 3 * 3
    asked = []

    def noting(number, device):
        asked.append(number)
        return batches(number, device)

    resumed, found = run(tmp_path / "killed", batches=noting, **options)
    assert min(asked) == kept_before // 3 * 3 * 2, "it began again"
    assert same(whole, resumed) and found == expected


def test_a_state_of_other_parameters_is_refused(tmp_path):
    run(tmp_path)
    other = build()
    other.frozen.requires_grad_(True)
    with pytest.raises(InputError, match=r"state\.pt is the state of other parameters; remove it to begin again"):
        run(tmp_path, model=other)


def test_a_damaged_state_is_told(tmp_path):
    (tmp_path / NAME).write_bytes(b"no state")
    with pytest.raises(InputError, match=r"state\.pt can't be read; remove it to begin again"):
        run(tmp_path)


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_state(tmp_path):
    def broken(model, batch):
        broken.calls += 1
        return {"square": loss_of(model, batch)["square"] * (float("nan") if broken.calls == 9 else 1.0)}

    broken.calls = 0
    said = r"the loss square is nan at step 9: training has stopped, and the last good state, of step 5, is kept in .*"
    with pytest.raises(InputError, match=said):
        run(tmp_path, loss_of=broken)
    assert read_state(tmp_path)["step"] == 5
    whole, _ = run(tmp_path / "whole")
    resumed, _ = run(tmp_path)
    assert same(whole, resumed)


def test_a_gradient_or_a_measure_that_is_no_number_stops_it_too(tmp_path):
    def steep(model, batch):
        return {"square": (model.line.weight - model.line.weight.detach()).abs().sum().sqrt()}

    with pytest.raises(InputError, match=r"the gradient is (nan|inf) at step 1.*no state was kept before it"):
        run(tmp_path, loss_of=steep)
    with pytest.raises(InputError, match="the held-out error is nan"):
        run(tmp_path, validate=lambda model: {ERROR: float("nan")})


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), RuntimeError("unexpected pos 64 vs 0")])
def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch, failure):
    save, writes = torch.save, []

    def full(state, path):
        writes.append(path)
        if len(writes) == 2:
            path.write_bytes(b"the first half")
            raise failure
        save(state, path)

    monkeypatch.setattr(state_module.torch, "save", full)
    said = r"the state of step 10 can't be kept in .*: the disk is full; the last good one is still there: make room"
    with pytest.raises(InputError, match=said):
        run(tmp_path)
    assert read_state(tmp_path)["step"] == 5 and [path.name for path in tmp_path.iterdir()] == [NAME]
    resumed, _ = run(tmp_path)
    whole, _ = run(tmp_path / "whole")
    assert same(whole, resumed)


def test_nothing_to_train_is_told(tmp_path):
    with pytest.raises(InputError, match="nothing of Toy is to be trained"):
        run(tmp_path, model=build().requires_grad_(False))


def test_a_model_that_checkpoints_no_blocks_is_told(tmp_path):
    with pytest.raises(InputError, match="Toy has no gradient checkpointing"):
        run(tmp_path, gradient_checkpointing=True)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"steps": 0}, "the steps is 0; write 1 or more"),
        ({"learning_rate": float("nan")}, "the learning rate is nan; write more than 0"),
        ({"ema": 1.0}, "the ema is 1.0; write a number between 0 and 1"),
        ({"precision": "fp8"}, "the precision is fp8; write no, bf16, fp16"),
        ({"weights": {"output": -1.0}}, "the weight of loss output is -1.0; write 0 or more"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_setting_that_is_none_is_told(setting, said):
    with pytest.raises(InputError, match=said):
        TrainingSettings(**{"steps": 1, **setting})


def test_another_precision_takes_another_process(tmp_path):
    """accelerate has one a process."""
    open_accelerator(TrainingSettings(steps=1), tmp_path, device="cpu")
    with pytest.raises(
        InputError, match=r"with another precision .* before, .* with precision bf16 on cpu in a process of"
    ):
        open_accelerator(TrainingSettings(steps=1, precision="bf16"), tmp_path, device="cpu")


def test_a_device_or_a_tracker_that_is_none_is_told(tmp_path):
    with pytest.raises(InputError, match="the device is tpu; write auto or cpu"):
        open_accelerator(TrainingSettings(steps=1), tmp_path, device="tpu")
    with pytest.raises(InputError, match="there is no tracker paper; write "):
        open_accelerator(TrainingSettings(steps=1, trackers=("paper",)), tmp_path)
    with pytest.raises(InputError, match="the tracker aim is not installed here; install it, or leave it out"):
        open_accelerator(TrainingSettings(steps=1, trackers=("aim",)), tmp_path)
