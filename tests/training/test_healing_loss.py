"""What a student is told: the difference to its teacher's prediction, and to the same blocks of it."""

import functools

import pytest
import torch
from pipelines import build_pipeline
from torch import nn

from surgery.plan.plan import plan_from_text
from surgery.training.call_form import conditions_of_call, learn_form, note_call
from surgery.training.features import match_blocks
from surgery.training.healing_loss import DENOISING, FEATURES, OUTPUT, HealingLoss
from surgery.training.noised_batches import noised_batch


@functools.cache
def made():
    """A PixArt with its pipeline's form, a batch, and a copy without block 1; nobody changes them."""
    pipe, call = build_pipeline("demo")
    pipe.transformer.requires_grad_(False)
    student = type(pipe.transformer).from_config(pipe.transformer.config)
    student.load_state_dict(pipe.transformer.state_dict())
    student.transformer_blocks = nn.ModuleList(student.transformer_blocks[index] for index in range(12) if index != 1)
    form = learn_form(pipe, call)
    texts = {
        str(number): rows
        for number, rows in conditions_of_call(form, note_call(pipe, ["red apple", "rocket"], call)).items()
    }
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, *form.sample_shape, generator=generator) for _ in range(2))
    shares = torch.tensor([0.3, 0.8], dtype=torch.float64)
    batch = noised_batch(form, pipe.scheduler, clean, noise, shares, texts, torch.device("cpu"))
    return pipe, student, form, batch


def losses_of(student, matches, weights, sigmas=None):
    pipe, _, form, batch = made()
    return HealingLoss(pipe.transformer, student, matches, form, pipe.scheduler, weights, sigmas)(student, batch)


def matches():
    return match_blocks(plan_from_text("model PixArtTransformer2DModel\ntransformer_blocks[12]: 0 2:12\n"))


def test_blocks_before_the_gap_are_the_teachers_and_those_behind_it_are_compared_with_themselves():
    _, student, _, _ = made()
    weights = {OUTPUT: 1.0, FEATURES: 1.0}
    assert losses_of(student, matches()[:1], weights)[FEATURES] == 0
    pipe = made()[0]
    ends = {}
    for model, place, name in ((pipe.transformer, 5, "teacher"), (student, 4, "student")):
        hook = model.transformer_blocks[place].register_forward_hook(
            lambda module, args, output, name=name: ends.__setitem__(name, output)
        )
        with torch.no_grad():
            model(*made()[3].args, **made()[3].kwargs)
        hook.remove()
    expected = (ends["student"] - ends["teacher"]).square().sum() / ends["teacher"].square().sum()
    found = losses_of(student, [match for match in matches() if match.original == 5], weights)
    assert found[FEATURES].item() == pytest.approx(expected.item(), rel=1e-5) and expected > 0.001


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    pipe = made()[0]
    every = match_blocks(plan_from_text("model PixArtTransformer2DModel\ntransformer_blocks[12]: 0:12\n"))
    found = losses_of(pipe.transformer, every, {OUTPUT: 1.0, FEATURES: 1.0, DENOISING: 1.0}, sigmas=4.0)
    assert found[OUTPUT] == 0 and found[FEATURES] == 0 and found[DENOISING] > 0


def test_the_denoising_loss_is_to_what_a_flow_is_trained_to_predict():
    _, student, form, batch = made()
    with torch.no_grad():
        predicted = form.prediction_of(student(*batch.args, **batch.kwargs))
    expected = (predicted - (batch.noise - batch.clean)).square().mean()
    found = losses_of(student, (), {DENOISING: 1.0})
    assert found.keys() == {DENOISING} and found[DENOISING].item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_go_to_the_student_alone_and_no_hook_is_left():
    pipe, student, _, _ = made()
    sum(losses_of(student, matches(), {OUTPUT: 1.0, FEATURES: 1.0}).values()).backward()
    assert all(value.grad is None for value in pipe.transformer.parameters())
    assert any(value.grad is not None for value in student.parameters())
    assert not any(module._forward_hooks for model in (pipe.transformer, student) for module in model.modules())
    student.zero_grad(set_to_none=True)
