"""Batches, losses and measures of training: functions of numbers, and right where the answer is known."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from surgery.training.dit.encoded_pictures import Held
from surgery.training.dit.held_out_split import split_pictures
from surgery.training.dit.labels import Labels
from surgery.training.dit.noised_pictures import DenoisingLoss, HeldOutLoss, TrainingBatches
from surgery.training.dit.pictures import Picture
from surgery.training.loop import ERROR

CPU = torch.device("cpu")
CLEAN = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 1, 4, 4) / 12
NUMBERS = torch.arange(12) % 3
LABELS = Labels(("a", "b", "c"))
SCHEDULER = DDPMScheduler()


def batches(*, size=4, dropout=0.0, learnt=range(12), labels=LABELS):
    return TrainingBatches(Held(CLEAN), learnt, NUMBERS, labels, SCHEDULER, size, dropout, 0)


def clean_of(batch):
    """What a batch was noised from."""
    share = SCHEDULER.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
    return (batch.noised - (1 - share).sqrt() * batch.noise) / share.sqrt()


def rows_of(batch):
    return (12 * clean_of(batch).mean(dim=(1, 2, 3))).round().long().tolist()


class Answering:
    """A model that says what it is told to of a batch."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, noised, timestep, **labels):
        return SimpleNamespace(sample=self.answer(noised, timestep, labels))


def true_noise(noised, timestep, labels):
    """What a model that knows the pictures would tell: row k of the held-out ones is k / 12 everywhere."""
    share = SCHEDULER.alphas_cumprod[timestep].view(-1, 1, 1, 1)
    clean = CLEAN[: len(noised)]
    return (noised - share.sqrt() * clean) / (1 - share).sqrt()


def test_a_batch_is_a_function_of_its_number():
    one, again, other = batches()(5, CPU), batches()(5, CPU), batches()(6, CPU)
    assert torch.equal(one.noised, again.noised) and torch.equal(one.timesteps, again.timesteps)
    assert not torch.equal(one.noised, other.noised)


def test_every_row_comes_once_an_epoch_with_its_label_and_no_other_row():
    learnt = [0, 1, 2, 4, 5, 7, 8, 11]
    both = [batches(learnt=learnt)(number, CPU) for number in (0, 1)]
    rows = [row for batch in both for row in rows_of(batch)]
    assert sorted(rows) == learnt
    assert torch.cat([batch.labels["class_labels"] for batch in both]).tolist() == [row % 3 for row in rows]
    assert rows != [row for number in (2, 3) for row in rows_of(batches(learnt=learnt)(number, CPU))]


def test_timesteps_are_spread_over_the_noise_range():
    steps = sorted(batches(size=10)(3, CPU).timesteps.tolist())
    assert [step // 100 for step in steps] == list(range(10))


def test_a_share_of_labels_is_left_out():
    dropped = torch.cat([batches(dropout=0.3)(number, CPU).labels["class_labels"] for number in range(250)]) == 3
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.05)  # 3.4 standard deviations of 1,000 rows
    texts = Labels(("a", "b", "c"), torch.tensor([[1.0], [2.0], [3.0], [-1.0]]))
    assert (batches(dropout=0.999, labels=texts)(0, CPU).labels["pooled_projections"] == -1).all()


def test_a_model_that_knows_the_noise_has_no_loss_and_one_that_says_nothing_has_1():
    measure = HeldOutLoss(Held(CLEAN), range(12), NUMBERS, LABELS, SCHEDULER, 4, 12, CPU)
    found = measure(Answering(true_noise))
    assert list(found) == [ERROR, "0.125", "0.375", "0.625", "0.875"] and found[ERROR] < 1e-9  # of float32
    nothing = measure(Answering(lambda noised, *_: torch.zeros_like(noised)))
    assert nothing[ERROR] == pytest.approx(1.0, abs=0.2)  # 768 squares of unit noise: 4 standard deviations
    assert nothing == measure(Answering(lambda noised, *_: torch.zeros_like(noised)))
    assert nothing[ERROR] == pytest.approx(sum(list(nothing.values())[1:]) / 4)


def test_the_spectral_loss_is_beside_the_mean_square_where_it_has_a_weight():
    batch = batches()(0, CPU)
    plain = DenoisingLoss(0.0)(Answering(lambda *_: -batch.noise), batch)
    both = DenoisingLoss(0.1)(Answering(lambda *_: -batch.noise), batch)
    assert list(plain) == ["mse"] and list(both) == ["mse", "spectral"]
    assert plain["mse"] == both["mse"] == pytest.approx(4 * float(batch.noise.square().mean()))
    assert both["spectral"] == 0, "it is blind to the sign"


def test_a_share_of_each_class_is_held_out_and_equal_pictures_are_on_one_side():
    pictures = [Picture(f"{label}{number // 2}", label, None) for label in "ab" for number in range(20)]
    split = split_pictures(pictures, 0.2, 512, 0, by_label=True)
    held = [pictures[number].key for number in split.held_out]
    assert [key[0] for key in held] == ["a"] * 4 + ["b"] * 4 and len(set(held)) == 4
    assert not set(held) & {pictures[number].key for number in split.learnt}
    assert len(split_pictures(pictures, 0.2, 4, 0, by_label=True).held_out) == 4
    assert split == split_pictures(pictures, 0.2, 512, 0, by_label=True)
