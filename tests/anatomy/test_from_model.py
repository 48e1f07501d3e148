"""The anatomy of live models: laws for every class, then what is known of each by reading its code."""

import copy

import diffusers
import pytest
import torch
import transformers
from tiny_transformers import build_transformer, transformer_call
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import surgery
from surgery.anatomy import from_model
from surgery.anatomy.anatomy import TokenOutput
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource, anatomy_of_source, build_on_meta
from surgery.calls.example_inputs import ExampleCall
from surgery.errors import InputError, SpecError
from surgery.pipelines.learn import keep_given
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec
from surgery.testing import TINY_MODELS, build_tiny_model

NUM_BLOCKS = {
    "pixart": {"transformer_blocks": 5},
    "sd3": {"transformer_blocks": 5},
    "sd3-dual": {"transformer_blocks": 5},
    "flux": {"transformer_blocks": 4, "single_transformer_blocks": 5},
    "auraflow": {"joint_transformer_blocks": 3, "single_transformer_blocks": 4},
    "dit": {"transformer_blocks": 5},
    "chroma": {"transformer_blocks": 4, "single_transformer_blocks": 5},
}
FLUX_SCHNELL = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "axes_dims_rope": [16, 56, 56],
    "guidance_embeds": False,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}
SD3_MEDIUM = {
    "_class_name": "SD3Transformer2DModel",
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "in_channels": 16,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 24,
    "out_channels": 16,
    "patch_size": 2,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
}
WITHOUT_TWINS = [  # sd3-dual is much like sd3, and chroma like flux
    pytest.param(name, marks=[pytest.mark.slow] * (name in ("sd3-dual", "chroma"))) for name in TINY_MODELS
]
COUNT_TOLERANCE = 0.01  # the published counts have three digits


@pytest.fixture(scope="module")
def models():
    return {name: build_tiny_model(name) for name in TINY_MODELS}


@pytest.fixture(scope="module")
def tiny(models):
    return {name: read_anatomy(model) for name, model in models.items()}


def source_of(config):
    return ModelSource("a config", config, None, None, None)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_stacks_are_found_in_the_order_in_which_they_run(tiny, name):
    assert {stack.name: stack.num_blocks for stack in tiny[name].stacks} == NUM_BLOCKS[name]
    assert [stack.name for stack in tiny[name].stacks] == list(NUM_BLOCKS[name])
    assert all(stack.refusal is None and stack.streams for stack in tiny[name].stacks)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_parameters_and_bytes_are_those_of_the_model(models, tiny, name):
    model, anatomy = models[name], tiny[name]
    assert anatomy.num_parameters == sum(value.numel() for value in model.parameters())
    assert anatomy.size_bytes == 4 * anatomy.num_parameters
    for stack in anatomy.stacks:
        for index, block in enumerate(model.get_submodule(stack.name)):
            kind = stack.kind(index)
            assert kind.class_name == type(block).__name__
            assert kind.num_parameters == sum(value.numel() for value in block.parameters())
            assert kind.size_bytes == 4 * kind.num_parameters
            for component in kind.components:
                module = block.get_submodule(component.name)
                assert component.class_name == type(module).__name__
                assert component.num_parameters == sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("name", TINY_MODELS)
def test_components_have_outputs_or_a_refusal(tiny, name):
    for stack in tiny[name].stacks:
        for kind in stack.kinds:
            assert kind.flops > 0
            for component in kind.components:
                assert bool(component.outputs) != bool(component.refusal), component
                assert component.flops <= kind.flops


@pytest.mark.parametrize("name", WITHOUT_TWINS)
def test_reading_leaves_the_model_as_it_was(models, name):
    model = models[name]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    read_anatomy(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all("forward" not in part.__dict__ for part in model.modules())


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_config_tells_what_the_live_model_tells(models, tiny, name):
    config = {**models[name].config, "_class_name": type(models[name]).__name__}
    on_meta = build_on_meta(source_of(config), torch.float32)
    assert all(value.is_meta for value in on_meta.parameters())
    assert read_anatomy(on_meta) == tiny[name]


@pytest.mark.parametrize("name", WITHOUT_TWINS)
def test_a_live_model_and_its_pipeline_have_one_anatomy(models, tiny, name):
    class Pipeline:
        transformer = models[name]

    assert surgery.inspect(models[name]) == surgery.inspect(Pipeline()) == tiny[name]


def test_other_sizes_change_flops_only(models):
    small, large = (read_anatomy(models["pixart"], sizes={"height": side, "width": side}) for side in (8, 16))
    assert small.stacks[0].kinds[0].flops < large.stacks[0].kinds[0].flops
    assert small.num_parameters == large.num_parameters
    assert dict(large.example)["height"] == 16


def list_flops(anatomy):
    kinds = [kind for stack in anatomy.stacks for kind in stack.kinds]
    return [(kind.flops, [component.flops for component in kind.components]) for kind in kinds]


@pytest.mark.parametrize("name", ["pixart", "sd3", "flux"])
def test_flops_are_those_of_the_model_whatever_its_device_and_precision(models, tiny, name):
    half = read_anatomy(copy.deepcopy(models[name]).to(torch.bfloat16))
    on_meta = read_anatomy(copy.deepcopy(models[name]).to("meta"))
    eight_bits = copy.deepcopy(models[name])
    eight_bits.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    assert list_flops(half) == list_flops(on_meta) == list_flops(read_anatomy(eight_bits)) == list_flops(tiny[name])
    assert (half.dtype, half.size_bytes) == ("bfloat16", 2 * half.num_parameters)


def test_attention_costs_two_products_of_queries_keys_and_values(tiny):
    """4 * batch * tokens * keys * width, in self-attention beside 8 * batch * tokens * width ** 2 of its linears."""
    anatomy, config = tiny["pixart"], build_tiny_model("pixart").config
    sizes, width = dict(anatomy.example), config.num_attention_heads * config.attention_head_dim
    tokens = (sizes["height"] // config.patch_size) * (sizes["width"] // config.patch_size)
    expected = sizes["batch"] * (4 * tokens * tokens * width + 8 * tokens * width**2)
    assert anatomy.stacks[0].kinds[0].find_component("attn1").flops == expected


@pytest.mark.parametrize("name", ["pixart", "dit", "flux", "auraflow", "chroma"])
def test_equal_blocks_are_of_one_kind(tiny, name):
    assert all(set(stack.kind_of) == {0} for stack in tiny[name].stacks)
    assert all(not kind.missing_streams for stack in tiny[name].stacks for kind in stack.kinds)


def test_the_last_block_of_sd3_is_of_another_kind_and_returns_no_text(tiny):
    (stack,) = tiny["sd3"].stacks
    assert stack.kind_of == (0, 0, 0, 0, 1)
    assert [kind.missing_streams for kind in stack.kinds] == [(), ("encoder_hidden_states",)]
    assert stack.kinds[0].find_component("ff_context") is not None
    assert stack.kinds[1].find_component("ff_context") is None


def test_dual_attention_makes_a_kind_of_its_own(tiny):
    (stack,) = tiny["sd3-dual"].stacks
    assert stack.kind_of == (0, 0, 0, 1, 2)
    assert [kind.find_component("attn2") is not None for kind in stack.kinds] == [True, False, False]
    assert "attn2" in stack.component_names()


@pytest.mark.parametrize(
    ("name", "component", "outputs"),
    [
        ("pixart", "attn1", [("hidden_states", 16, 16)]),
        ("pixart", "attn2", [("hidden_states", 16, 16)]),
        ("pixart", "ff", [("hidden_states", 16, 16)]),
        ("pixart", "norm1", [("input", 16, 16)]),
        ("sd3", "attn", [("hidden_states", 16, 16), ("encoder_hidden_states", 16, 16)]),
        ("sd3", "ff_context", [("hidden_states", 16, 16)]),
        ("flux", "attn", [("hidden_states", 16, 16), ("encoder_hidden_states", 16, 16)]),
        ("auraflow", "attn", [("hidden_states", 16, 16), ("encoder_hidden_states", 16, 16)]),
        ("dit", "attn1", [("hidden_states", 16, 16)]),
    ],
)
def test_token_outputs_are_named_by_the_argument_that_carries_them(tiny, name, component, outputs):
    found = tiny[name].stacks[0].kinds[0].find_component(component)
    assert found.refusal is None
    assert [(out.stream, out.in_channels, out.out_channels) for out in found.outputs] == outputs
    assert found.returns_tuple == (len(outputs) > 1)


def test_flux_widens_in_the_projection_of_its_single_blocks(tiny):
    found = tiny["flux"].stacks[1].kinds[0].find_component("proj_mlp")
    assert [(out.in_channels, out.out_channels) for out in found.outputs] == [(16, 64)]
    assert not found.returns_tuple


def test_a_convolution_has_its_channels_before_its_places():
    kind = read_anatomy(build_transformer("SanaTransformer2DModel")).stacks[0].kinds[0]
    pictures = {name: kind.find_component(name).outputs for name in ("ff", "ff.conv_inverted", "ff.conv_point")}
    assert pictures == {
        "ff": (TokenOutput("hidden_states", 8, 8, 1),),
        "ff.conv_inverted": (TokenOutput("input", 8, 40, 1),),
        "ff.conv_point": (TokenOutput("input", 20, 8, 1),),
    }
    assert kind.find_component("ff.nonlinearity").refusal.endswith("(2x20x32x32: a picture, or heads)")


class Turned(nn.Conv1d):
    """A convolution over tokens (batch, tokens, channels), as feed-forwards have them."""

    def forward(self, tokens):
        return super().forward(tokens.mT).mT


@pytest.mark.parametrize(
    ("module", "given", "returned", "dim"),
    [
        (nn.Conv1d(8, 8, 1), (2, 8, 8), (2, 8, 8), 1),  # the shapes alone do not tell
        (nn.Sequential(Turned(8, 8, 1)), (2, 8, 8), (2, 8, 8), -1),
        (nn.Sequential(Turned(8, 4, 1)), (2, 5, 8), (2, 5, 4), -1),
        (nn.Conv2d(8, 8, 3), (2, 8, 6, 6), (2, 8, 4, 4), None),  # other places
        (nn.Conv2d(8, 8, 1), (8, 6, 6), (8, 6, 6), None),  # no batch
        (nn.Conv3d(8, 4, 1), (2, 8, 3, 6, 6), (2, 4, 3, 6, 6), 1),
    ],
)
def test_where_the_channels_of_a_convolution_are(module, given, returned, dim):
    assert from_model._channel_dim(module, torch.empty(given), torch.empty(returned), 3) == dim


def test_tokens_without_a_batch_are_tokens_where_nothing_has_one():
    model = build_transformer("Cosmos3OmniTransformer")
    keep_given(model, (), transformer_call("Cosmos3OmniTransformer"))
    kind = read_anatomy(model).stacks[0].kinds[0]
    assert kind.find_component("mlp").outputs == (TokenOutput("x", 12, 12),)


@pytest.mark.parametrize(("name", "component"), [("sd3", "norm1"), ("flux", "norm1"), ("dit", "norm1")])
def test_norms_that_return_gates_are_refused(tiny, name, component):
    found = tiny[name].stacks[0].kinds[0].find_component(component)
    assert found.outputs == ()
    assert "is not token-shaped (2x16: a gate, a shift or an embedding)" in found.refusal


def test_modules_that_are_never_called_are_refused():
    model = build_tiny_model("pixart")
    for block in model.transformer_blocks:
        block.unused = nn.Linear(2, 2)
    found = read_anatomy(model).stacks[0].kinds[0].find_component("unused")
    assert (found.refusal, found.outputs) == ("the block never calls it as a module", ())


def test_a_model_without_blocks_is_no_transformer():
    with pytest.raises(InputError, match="Linear has no stack of blocks"):
        read_anatomy(nn.Linear(2, 2))


def test_a_model_that_nothing_is_known_of_has_unknown_streams(monkeypatch):
    monkeypatch.setattr("surgery.calls.example_inputs.known_call", lambda _: None)
    model = diffusers.Transformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=8, num_layers=2, norm_num_groups=2
    )
    anatomy = read_anatomy(model)
    (stack,) = anatomy.stacks
    assert (stack.name, stack.num_blocks, stack.streams, anatomy.example) == ("transformer_blocks", 2, None, ())
    assert all(not component.outputs and component.refusal is None for component in stack.kinds[0].components)


class Queries(nn.Module):
    """Weights go through a stack, looked at in another shape."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 4))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(3))

    def forward(self, hidden_states):
        state = self.queries.unsqueeze(0)
        for layer in self.layers:
            state = layer(state)
        return hidden_states + state


def test_weights_that_go_through_a_stack_are_read_as_any_stream(monkeypatch):
    call = ExampleCall({"hidden_states": torch.zeros(1, 3, 4, device="meta")}, {})
    monkeypatch.setattr(from_model, "example_call", lambda _, **__: call)
    (stack,) = read_anatomy(Queries()).stacks
    assert stack.streams == ("input",)


def test_a_unet_has_no_stack_that_is_promised_to_be_editable_and_is_not():
    """Its blocks hand pictures on by lists of skip connections, which no block takes as the one before gave them."""
    sizes = {"block_out_channels": (16, 32, 64), "cross_attention_dim": 16, "norm_num_groups": 8}
    model = diffusers.UNet2DConditionModel(  # of three blocks, none of which can be left out to find a call
        sample_size=8,
        attention_head_dim=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        **sizes,
    )
    stacks = {stack.name: stack for stack in read_anatomy(model).stacks}
    assert stacks["up_blocks"].refusal.startswith("its blocks change the shape of hidden_states, from 2x64x2x2 to ")
    spec = read_spec('surgery: v1\noperations:\n  - skip: "up_blocks[1]"\n')
    with pytest.raises(SpecError, match="up_blocks can't be edited"):
        lower_spec(spec, read_anatomy(model))


def test_a_text_encoder_is_refused_by_name():
    config = transformers.T5Config(vocab_size=9, d_model=8, num_layers=2, d_kv=4, num_heads=2, d_ff=8)
    with pytest.raises(InputError, match="a T5EncoderModel is no transformer of diffusers, and can't be edited"):
        read_anatomy(transformers.T5EncoderModel(config))


def test_a_forward_that_runs_its_stack_backwards_is_said_to():
    class Backwards(nn.ModuleList):
        def __iter__(self):
            return reversed(list(self._modules.values()))

    model = build_tiny_model("pixart")
    model.transformer_blocks = Backwards(model.transformer_blocks.children())
    (stack,) = read_anatomy(model).stacks
    assert stack.refusal == "the forward does not run its blocks in their order"
    assert stack.streams is None


@pytest.mark.parametrize(
    ("config", "num_parameters", "stacks"),
    [
        (FLUX_SCHNELL, 11.89e9, {"transformer_blocks": 19, "single_transformer_blocks": 38}),
        pytest.param(SD3_MEDIUM, 2.03e9, {"transformer_blocks": 24}, marks=pytest.mark.slow),
    ],
    ids=["FLUX.1-schnell", "SD3-medium"],
)
def test_full_size_models_are_read_without_their_memory(config, num_parameters, stacks):
    resource = pytest.importorskip("resource", reason="counts memory the POSIX way")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    anatomy = anatomy_of_source(source_of(config))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert anatomy.num_parameters == pytest.approx(num_parameters, rel=COUNT_TOLERANCE)
    assert {stack.name: stack.num_blocks for stack in anatomy.stacks} == stacks
    assert (anatomy.dtype, anatomy.has_weights) == ("bfloat16", False)
    assert anatomy.size_bytes == 2 * anatomy.num_parameters
    assert grown_kib < 1024 * 1024  # 1 GiB; the weights would take 4 and 24 in bfloat16


def test_a_forward_that_fails_leaves_no_counter_open(monkeypatch):
    """A counter of FLOPs that is left open counts, and slows down, all that torch does from then on."""
    opened = []

    class Counter(FlopCounterMode):
        def __enter__(self):
            opened.append(self)
            return super().__enter__()

        def __exit__(self, *raised):
            opened.remove(self)
            return super().__exit__(*raised)

    monkeypatch.setattr(from_model, "FlopCounterMode", Counter)
    model = build_tiny_model("pixart")
    model.transformer_blocks[2].attn2.to_k = nn.Linear(3, 7)
    assert "can't be traced" in read_anatomy(model).trace_failure
    assert not opened
