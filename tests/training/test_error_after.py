"""Healing as an objective of a search, and adapters: what a few steps leave, and that nobody else's weights move."""

import copy
import functools

import pytest
import torch
from pipelines import build_pipeline

from surgery.errors import RefusedError
from surgery.plan.plan import plan_from_text
from surgery.testing import build_tiny_model
from surgery.training.adapters import merge_adapters_, put_adapters_, refuse_apart, save_adapters
from surgery.training.call_form import learn_form
from surgery.training.error_after import error_after
from surgery.training.settings import TrainingSettings
from surgery.training.trained_parts import choose_trained_

PROMPTS = ["red apple", "blue heart", "red heart", "blue apple"]


@functools.cache
def pipeline():
    """A tiny pipeline of SD3, and its call; nobody changes it."""
    return build_pipeline("sd3")


def plan_of(items):
    blocks = len(pipeline()[0].transformer.transformer_blocks)
    return plan_from_text(f"model SD3Transformer2DModel\ntransformer_blocks[{blocks}]: {items(blocks)}\n")


def test_more_steps_leave_less_error_and_the_pipeline_is_as_it_was(tmp_path):
    pipe, call = pipeline()
    before = copy.deepcopy(pipe.transformer.state_dict())
    plan = plan_of(lambda blocks: f"0 2:{blocks}")
    errors = []
    for steps in (1, 12):
        settings = TrainingSettings(steps=steps, learning_rate=1e-3, warmup=0)
        objective = error_after(pipe, PROMPTS[:2], PROMPTS[2:], settings, call=call, cache=tmp_path, bins=2)
        errors.append(objective(plan))
    assert errors[1] < errors[0]
    assert objective(plan) == errors[1], "the same plan, the same error"
    assert objective(plan_of(lambda blocks: f"0:{blocks}")) == 0.0
    assert all(torch.equal(value, before[name]) for name, value in pipe.transformer.state_dict().items())


def adapted():
    """A tiny SD3 whose adapters have learnt something; and what it was."""
    model, original = build_tiny_model("sd3"), build_tiny_model("sd3")
    choose_trained_(model, "lora", plan_of(lambda blocks: f"0:{blocks}"))
    put_adapters_(model, plan_of(lambda blocks: f"0:{blocks}"), 2, seed=0)
    return model, original


def example(form):
    generator = torch.Generator().manual_seed(0)
    conditions = {n: form.inputs[n] for n in form.by_row if n != form.time}
    sample = torch.randn(1, *form.sample_shape, generator=generator)
    return form.arguments(sample, torch.tensor([0.5], dtype=torch.float64), conditions)


@torch.no_grad()
def test_adapters_begin_as_nothing_and_are_the_same_merged_and_loaded_by_the_stock_pipeline(tmp_path):
    pipe, call = build_pipeline("sd3")
    args, kwargs = example(learn_form(pipe, call))
    model, original = adapted()
    assert torch.equal(model(*args, **kwargs)[0], original(*args, **kwargs)[0])
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name and name.startswith("transformer_blocks.") for name in trained)
    for value in trained.values():
        value.add_(0.05)
    found = model(*args, **kwargs)[0]
    assert not torch.allclose(found, original(*args, **kwargs)[0], atol=1e-4)
    save_adapters(model, type(pipe), tmp_path)
    pipe.load_lora_weights(tmp_path)
    assert torch.allclose(pipe.transformer(*args, **kwargs)[0], found, atol=1e-5)
    merge_adapters_(model)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert torch.allclose(model(*args, **kwargs)[0], found, atol=1e-5)  # one product, or two and their sum


def test_a_pipeline_that_loads_no_lora_is_told():
    refuse_apart(type(pipeline()[0]))
    with pytest.raises(RefusedError, match=r"DiTPipeline loads no LoRA .*; leave --lora-apart out"):
        refuse_apart(type(build_pipeline("dit")[0]))
