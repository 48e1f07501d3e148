"""What a user of a variant is owed (the promises of the README), each by a test."""

import copy
import gc
import weakref

import pytest
import torch
from tiny import tiny_anatomy, tiny_model
from torch import nn

import surgery
from surgery.errors import RefusedError
from surgery.graph.apply import apply
from surgery.graph.variant import build_variant, is_variant
from surgery.spec.load import read_spec
from surgery.testing import TINY_MODELS, build_tiny_model, tiny_call

SKIP = 'surgery: v1\noperations: [{skip: "transformer_blocks[1:3]"}]'


def spec_text(operation):
    return read_spec(f"surgery: v1\noperations: [{operation}]")


def storages(model):
    return {value.untyped_storage().data_ptr() for value in model.parameters()}


@pytest.fixture(scope="module")
def skipped():
    """A variant of the shared pixart that nobody changes."""
    return apply(tiny_model("pixart"), read_spec(SKIP))


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("sd3-dual", "chroma"))) for name in TINY_MODELS]
)  # quick: sd3 and flux, which are much like them
def test_identity_is_to_the_bit(plan_of, run, name):
    model, anatomy = tiny_model(name), tiny_anatomy(name)
    variant = build_variant(model, plan_of([], anatomy), anatomy)
    call = tiny_call(model)
    assert torch.equal(run(variant, call), run(model, call))


def test_a_variant_is_of_the_class_of_the_original():
    original = tiny_model("sd3")
    variant = apply(original, read_spec(SKIP))
    assert isinstance(variant, type(original))
    assert type(variant).__name__ == type(original).__name__
    assert type(variant) is not type(original)
    assert (variant.config, variant.dtype, variant.device) == (original.config, original.dtype, original.device)
    assert not variant.training


def test_the_original_is_left_as_it_is(run):
    original = build_tiny_model("flux")
    call, before = tiny_call(original), snapshot(original)
    expected = run(original, call)
    modules = [id(module) for module in original.modules()]
    variant = apply(original, spec_text('replace: {component: "transformer_blocks[0].attn", with: zero}'))
    variant.to(torch.bfloat16).train()
    assert [id(module) for module in original.modules()] == modules
    assert original.dtype == torch.float32 and not original.training
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
    assert torch.equal(run(original, call), expected)


@pytest.mark.slow
def test_twenty_variants_and_a_hundred_repeats_take_no_parameter_memory():
    original = build_tiny_model("pixart")
    own = storages(original)
    variants = [apply(original, spec_text(f'skip: "transformer_blocks[{k % 5}]"')) for k in range(19)]
    variants.append(apply(original, spec_text('repeat: {layers: "transformer_blocks[2]", times: 100}')))
    assert all(storages(variant) <= own for variant in variants)
    variants[-1](**tiny_call(original))
    assert storages(variants[-1]) == own


def test_skipped_blocks_are_freed_with_the_original():
    original = build_tiny_model("sd3")
    skipped = [weakref.ref(value) for value in original.transformer_blocks[1].parameters()]
    memory = weakref.ref(original.transformer_blocks[1].attn.to_q.weight.untyped_storage())
    variant = apply(original, read_spec(SKIP))
    kept = [name for name, _ in variant.transformer_blocks.named_children()]
    del original
    gc.collect()
    assert kept == ["0", "3", "4"]
    assert all(value() is None for value in skipped)
    assert memory() is None
    assert variant(**tiny_call(variant)).sample.isfinite().all()


def test_surviving_blocks_keep_their_names(skipped):
    original, variant = tiny_model("pixart"), skipped
    expected = {
        name
        for name in original.state_dict()
        if not name.startswith(("transformer_blocks.1.", "transformer_blocks.2."))
    }
    assert set(variant.state_dict()) == expected


def test_what_stands_in_for_a_component_is_in_its_mode():
    variant = apply(tiny_model("pixart"), spec_text('replace: {component: "transformer_blocks[1].attn1", with: zero}'))
    assert not any(module.training for module in variant.modules())


def test_what_the_forward_reads_of_a_skipped_block_stays():
    """DiT's forward takes the time embedding of its first block."""
    original = build_tiny_model("dit")
    variant = apply(original, spec_text('skip: "transformer_blocks[0]"'))
    left = set(variant.get_submodule("transformer_blocks.0")._modules)
    assert left == {"norm1"}
    assert set(variant.get_submodule("transformer_blocks.0.norm1")._modules) == {"emb"}


def test_weights_of_a_variant_are_those_of_the_original_while_it_trains(run):
    original = build_tiny_model("pixart")
    variant = apply(original, spec_text('skip: "transformer_blocks[1]"'))
    before = run(variant, tiny_call(original))
    with torch.no_grad():
        original.proj_out.weight.mul_(2)
    assert not torch.equal(run(variant, tiny_call(original)), before)


def test_gradients_flow_to_the_layers_that_run():
    original = build_tiny_model("sd3")
    variant = apply(original, spec_text('repeat: {layers: "transformer_blocks[0:2]", times: 2}'))
    variant(**tiny_call(original)).sample.square().mean().backward()
    assert all(
        value.grad is not None and value.grad.isfinite().all() for value in variant.transformer_blocks[0].parameters()
    )
    assert all(value.grad is None for value in original.parameters())


@pytest.mark.parametrize("name", [pytest.param("pixart", marks=pytest.mark.slow), "flux"])
def test_gradient_checkpointing_gives_the_same_gradients(name):
    original = build_tiny_model(name)
    gradients = []
    for checkpointed in (False, True):
        variant = apply(original, spec_text('reverse: "transformer_blocks[0:3]"')).train()
        if checkpointed:
            variant.enable_gradient_checkpointing()
        variant(**tiny_call(original)).sample.square().mean().backward()
        gradients.append({key: value.grad for key, value in variant.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][key], gradients[1][key], rtol=1e-4, atol=1e-7) for key in gradients[0])


def test_gradient_checkpointing_is_really_used():
    variant = apply(build_tiny_model("pixart"), spec_text('skip: "transformer_blocks[1]"')).train()
    calls = []
    variant.enable_gradient_checkpointing(lambda block, *args: calls.append(block) or block(*args))
    variant(**tiny_call(variant))
    assert calls == [block for _, block in variant.transformer_blocks.named_children()]


def test_save_pretrained_refuses(skipped, tmp_path):
    with pytest.raises(RefusedError, match="random weights in the gaps"):
        skipped.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_variant_of_a_variant_is_refused(skipped):
    with pytest.raises(RefusedError, match="a variant already"):
        apply(skipped, read_spec(SKIP))


def test_a_deep_copy_of_a_variant_runs_on_its_own_weights(run, skipped):
    variant, twin, call = skipped, copy.deepcopy(skipped), tiny_call(skipped)
    expected = run(variant, call)
    assert torch.equal(run(twin, call), expected)
    with torch.no_grad():
        twin.proj_out.weight.zero_()
    assert not torch.equal(run(twin, call), expected)
    assert torch.equal(run(variant, call), expected)


def test_block_i_keeps_its_own_context_wherever_it_is_put(run):
    """Flux spaces control residuals by the number of the block: a block takes its residual along."""
    model, order = tiny_model("flux"), [2, 0, 3]
    generator = torch.Generator().manual_seed(3)
    residuals = [torch.randn(2, 9, 16, generator=generator) for _ in range(2)]
    call = {**tiny_call(model), "controlnet_block_samples": residuals}
    variant = apply(model, spec_text(f"order: {{stack: transformer_blocks, as: {order}}}"))
    by_hand = copy.deepcopy(model)
    forwards = [block.forward for block in by_hand.transformer_blocks]

    def work(hidden_states, encoder_hidden_states, **context):
        for index in order:
            encoder_hidden_states, hidden_states = forwards[index](hidden_states, encoder_hidden_states, **context)
            hidden_states = hidden_states + residuals[index // 2]
        return encoder_hidden_states, hidden_states

    by_hand.transformer_blocks = nn.ModuleList([by_hand.transformer_blocks[0]])
    by_hand.transformer_blocks[0].forward = work
    expected = run(by_hand, {**call, "controlnet_block_samples": None})
    assert torch.equal(run(variant, call), expected)


def test_in_place_edits_of_the_forward_are_kept(run):
    """Chroma adds control residuals to its single blocks by assigning to a slice."""
    model = tiny_model("chroma")
    generator = torch.Generator().manual_seed(3)
    residuals = [torch.randn(2, 9, 16, generator=generator) for _ in range(5)]
    call = {**tiny_call(model), "controlnet_single_block_samples": residuals}
    variant = apply(model, read_spec("surgery: v1\noperations: []"))
    assert torch.equal(run(variant, call), run(model, call))
    skipped = run(apply(model, spec_text('skip: "single_transformer_blocks[2]"')), call)
    assert not torch.equal(skipped, run(model, call))


def test_torch_compile_gives_the_same(run, skipped):
    call = tiny_call(skipped)
    compiled = torch.compile(skipped, backend="eager", fullgraph=True)
    assert torch.equal(run(compiled, call), run(skipped, call))


def test_the_public_names_are_those_of_the_modules():
    assert surgery.apply is apply
    assert surgery.load_spec.__module__ == "surgery.spec.load"
    with pytest.raises(AttributeError, match="no attribute 'aply'"):
        surgery.aply  # noqa: B018


def test_a_new_object_of_the_class_of_a_variant_is_an_original():
    """As diffusers' EMAModel makes one of `type(model)` and the config."""
    model = build_tiny_model("pixart")
    variant = surgery.apply(model, read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]'))
    for made in (type(variant).from_config(variant.config), type(variant)(**{"num_layers": 2, "sample_size": 8})):
        assert type(made) is type(model) and not is_variant(made)
    fresh = type(variant).from_config(variant.config)
    fresh.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh(**tiny_call(model)).sample, model(**tiny_call(model)).sample)
    assert type(copy.deepcopy(variant)) is type(variant) and is_variant(copy.deepcopy(variant))


@pytest.mark.parametrize("name", ["flux", "sd3", "pixart"])
def test_a_variant_may_be_stored_in_8_bits(name):
    """By diffusers' layerwise casting, after surgery: what the edit by hand gives, to the bit."""
    stack = "transformer_blocks"
    variant = surgery.apply(build_tiny_model(name), read_spec(f'surgery: v1\noperations: [{{skip: "{stack}[0]"}}]'))
    by_hand = build_tiny_model(name)
    del by_hand.get_submodule(stack)[0]
    call = tiny_call(build_tiny_model(name))
    outputs = []
    for model in (variant, by_hand):
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        with torch.no_grad():
            outputs.append(model(**call).sample)
    assert torch.equal(*outputs)
