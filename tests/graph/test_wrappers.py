"""Decorators and hooks around `forward` run on every call of a variant; LoRA layers work on it."""

import functools

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module

from surgery.errors import RefusedError, TraceError
from surgery.graph.apply import apply
from surgery.graph.held_graphs import HeldGraphs
from surgery.graph.variant import forward_of_variant
from surgery.spec.load import read_spec
from surgery.testing import build_tiny_model, tiny_call
from surgery.tracing.wrappers import rewrap

SKIP = read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]')


class CountingHook(ModelHook):
    """Counts calls, and doubles the time step."""

    def __init__(self):
        self.calls = 0

    def pre_forward(self, module, *args, **kwargs):
        self.calls += 1
        return args, {**kwargs, "timestep": kwargs["timestep"] * 2}


def add_lora(model, *, skip=()):
    from peft import LoraConfig

    targets = [
        name
        for name, module in model.named_modules()
        if name.endswith(("to_q", "to_v")) and isinstance(module, torch.nn.Linear) and not name.startswith(skip)
    ]
    model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), adapter_name="test")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            if "lora_" in name:
                value.copy_(torch.randn(value.shape, generator=generator))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_lora_scale_passed_at_call_time_has_its_effect(run, name):
    variant = apply(build_tiny_model(name), SKIP)
    add_lora(variant)
    call = tiny_call(variant)
    outputs = [run(variant, {**call, "joint_attention_kwargs": {"scale": scale}}) for scale in (0.0, 0.5, 1.0)]
    variant.disable_adapters()
    assert torch.equal(outputs[0], run(variant, call))
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])


def test_a_lora_of_the_original_works_on_the_variant(run):
    """Adding it before surgery, or to the variant after it, is the same."""
    before = build_tiny_model("sd3")
    add_lora(before)
    after = apply(build_tiny_model("sd3"), SKIP)
    add_lora(after)
    call = tiny_call(before)
    first = apply(before, SKIP)
    with torch.no_grad():
        for (name, value), (_, other) in zip(
            sorted(after.named_parameters()), sorted(first.named_parameters()), strict=True
        ):
            if "lora_" in name:
                value.copy_(other)
    assert torch.equal(run(first, call), run(after, call))


def test_a_lora_on_a_variant_leaves_the_original_alone(run):
    original = build_tiny_model("sd3")
    call = tiny_call(original)
    expected = run(original, call)
    add_lora(apply(original, SKIP))
    assert torch.equal(run(original, call), expected)
    assert not any("lora" in name for name, _ in original.named_modules())


def test_hooks_of_accelerate_run_on_every_call(run):
    plain, hooked = build_tiny_model("pixart"), build_tiny_model("pixart")
    call = tiny_call(plain)
    expected = run(apply(plain, SKIP), {**call, "timestep": call["timestep"] * 2})
    hook = CountingHook()
    add_hook_to_module(hooked, hook)
    before = apply(hooked, SKIP)
    assert torch.equal(run(before, call), expected) and torch.equal(run(before, call), expected)
    assert hook.calls == 2
    after = apply(plain, SKIP)
    add_hook_to_module(after, CountingHook())
    assert torch.equal(run(after, call), expected)


def test_forward_hooks_of_torch_run_on_every_call(run):
    variant = apply(build_tiny_model("pixart"), SKIP)
    seen = []
    variant.register_forward_hook(lambda *_: seen.append("model"))
    variant.transformer_blocks.get_submodule("2").register_forward_hook(lambda *_: seen.append("block"))
    run(variant, tiny_call(variant))
    run(variant, tiny_call(variant))
    assert seen == ["block", "model"] * 2


def test_rewrap_keeps_every_decorator():
    log = []

    def noting(word):
        def decorate(function):
            @functools.wraps(function)
            def wrapper(*args):
                log.append(word)
                return function(*args)

            return wrapper

        return decorate

    @noting("outer")
    @noting("inner")
    def forward(value):
        return value

    assert rewrap(forward, lambda value: -value)(3) == -3
    assert log == ["outer", "inner"]
    assert forward(3) == 3


def test_a_decorator_that_hides_its_function_is_refused():
    hidden = {}

    def forward(value):
        return value

    @functools.wraps(forward)
    def wrapper(value):
        return hidden["function"](value)

    with pytest.raises(TraceError, match="hides the function it wraps"):
        rewrap(wrapper, lambda value: value)


def test_the_state_of_adapters_is_each_models_own(run):
    original = build_tiny_model("flux")
    add_lora(original)
    variant, call = apply(original, SKIP), tiny_call(original)
    expected = run(original, call)
    variant.set_adapters(["test"], [0.0])
    variant.delete_adapters("test")
    assert torch.equal(run(original, call), expected)
    assert list(original.peft_config) == ["test"]


def test_a_model_with_hooks_of_diffusers_is_refused_and_a_variant_takes_them(run):
    hooked = build_tiny_model("pixart")
    hooked.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    with pytest.raises(RefusedError, match="carries hooks of diffusers"):
        apply(hooked, SKIP)
    variant = apply(build_tiny_model("pixart"), SKIP)
    expected = run(variant, tiny_call(variant))
    cpu = torch.device("cpu")
    variant.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    assert torch.equal(run(variant, tiny_call(variant)), expected)


def test_a_model_compiled_in_place_gives_a_variant_that_is_not(run):
    original = build_tiny_model("pixart")
    call = tiny_call(original)
    expected = run(apply(original, SKIP), call)
    original.compile(backend="eager")
    assert torch.equal(run(apply(original, SKIP), call), expected)
    with pytest.raises(RefusedError, match="this model is compiled"):
        apply(torch.compile(build_tiny_model("pixart"), backend="eager"), SKIP)


def test_offloaded_weights_are_traced_on_the_device_of_the_call():
    variant = apply(build_tiny_model("pixart"), SKIP)
    call = tiny_call(variant)
    with torch.no_grad():
        (expected,) = variant(**call, return_dict=False)
    forward_of_variant(variant).graphs = HeldGraphs()
    cpu_offload(variant, execution_device=torch.device("cpu"))
    with torch.no_grad():
        (actual,) = variant(**call, return_dict=False)
    assert torch.equal(actual, expected)
