"""What the forwards of diffusers do for a block, by its number, goes with the block: against edits by hand."""

import diffusers
import pytest
import torch

from surgery.errors import RefusedError
from surgery.graph.rewrite import rewrite_graph
from surgery.plan.schedule import Layer, Schedule
from surgery.tracing.arguments import flatten_call, parameters_of
from surgery.tracing.clone import bare_clone
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def seeded(build, **config):
    torch.manual_seed(0)
    model = build(**config).eval()
    for value in model.parameters():
        value.data.add_(random(*value.shape) * 0.1)
    return model


@torch.no_grad()
def by_graph(model, call, **orders):
    """The output of a model whose stacks run these layers, by the rewritten graph."""
    forward = innermost(type(model).forward)
    flat = flatten_call((), call, parameters_of(forward))
    traced = trace_forward(lambda: bare_clone(model), flat, forward, contents_of=model)
    schedules = {
        stack: Schedule(stack, len(model.get_submodule(stack)), tuple(map(Layer, order)))
        for stack, order in orders.items()
    }
    code = rewrite_graph(traced.graph, traced.model, schedules).python_code("self")
    names = dict(code.globals)
    exec(code.src, names)
    return names["forward"](model, *flat.inputs)[0]


@pytest.fixture(scope="module")
def fibo():
    """BriaFibo joins a text of its own to the text that enters each block."""
    model = seeded(
        diffusers.BriaFiboTransformer2DModel,
        **{"patch_size": 1, "in_channels": 4, "num_layers": 4, "num_single_layers": 3, "attention_head_dim": 8},
        **{"num_attention_heads": 2, "joint_attention_dim": 12, "text_encoder_dim": 6, "axes_dims_rope": [2, 2, 4]},
    )
    call = {
        "hidden_states": random(2, 9, 4),
        "encoder_hidden_states": random(2, 7, 12),
        "timestep": torch.tensor([3.0, 500]),
    }
    call |= {
        "text_encoder_layers": [random(2, 7, 6) for _ in range(7)],
        "img_ids": random(9, 3),
        "txt_ids": random(7, 3),
    }
    return model, call | {"return_dict": False}


@torch.no_grad()
def fibo_by_hand(model, call, order, single_order):
    image, timestep = model.x_embedder(call["hidden_states"]), call["timestep"]
    text = model.context_embedder(call["encoder_hidden_states"])
    own = [project(one) for project, one in zip(model.caption_projection, call["text_encoder_layers"], strict=True)]
    rotary = model.pos_embed(torch.cat((call["txt_ids"], call["img_ids"]), dim=0))
    context = {"temb": model.time_embed(timestep, dtype=image.dtype), "image_rotary_emb": rotary}
    for index in order:
        text = torch.cat([text[:, :, : model.inner_dim // 2], own[index]], dim=-1)
        text, image = model.transformer_blocks[index](image, text, **context)
    for index in single_order:
        text = torch.cat([text[:, :, : model.inner_dim // 2], own[4 + index]], dim=-1)
        both = model.single_transformer_blocks[index](torch.cat([text, image], dim=1), **context)
        text, image = both[:, :7], both[:, 7:]
    return model.proj_out(model.norm_out(image, context["temb"]))


FIBO_ORDERS = [((2, 1, 0, 3), (0, 1, 2)), ((0, 1, 2), (2, 1, 0)), ((1, 2, 3), (1, 1)), ((3, 0, 0), (1, 2)), ((), (2,))]


@pytest.mark.parametrize(("order", "single_order"), FIBO_ORDERS)
def test_each_block_of_bria_fibo_gets_the_text_of_its_own_number(fibo, order, single_order):
    edited = by_graph(*fibo, transformer_blocks=order, single_transformer_blocks=single_order)
    assert torch.equal(edited, fibo_by_hand(*fibo, order, single_order))


VACE_LAYERS = (0, 3)


@pytest.fixture(scope="module")
def vace():
    """WanVACE adds a hint behind some of its blocks."""
    model = seeded(
        diffusers.WanVACETransformer3DModel,
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 12,
            "freq_dim": 8,
        },
        **{"ffn_dim": 16, "num_layers": 5, "vace_layers": list(VACE_LAYERS), "vace_in_channels": 6},
    )
    call = {
        "hidden_states": random(1, 4, 1, 4, 4),
        "timestep": torch.tensor([500]),
        "control_hidden_states_scale": random(2),
    }
    call |= {"encoder_hidden_states": random(1, 7, 12), "control_hidden_states": random(1, 6, 1, 4, 4)}
    return model, call | {"return_dict": False}


@torch.no_grad()
def vace_by_hand(model, call, order):
    """A run of the model whose first block does the work of all, each with the hint that it has in the model."""
    hints, given, originals = [], {}, [block.forward for block in model.blocks]
    handles = [block.register_forward_hook(lambda *args: hints.append(args[2][0])) for block in model.vace_blocks]
    handles.append(model.blocks[0].register_forward_pre_hook(lambda _, args: given.update(args=args)))
    handles.append(model.norm_out.register_forward_pre_hook(lambda *_: (run().float(),)))

    def run():
        image, *context = given["args"]
        own = dict(zip(VACE_LAYERS, zip(hints, call["control_hidden_states_scale"], strict=True), strict=True))
        for index in order:
            image = originals[index](image, *context)
            if index in own:
                image = image + own[index][0] * own[index][1]
        return image

    try:
        return model(**call)[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("order", [(0, 1, 2, 4), (0, 1, 2, 3), (3, 1, 2, 0, 4), (0, 3, 3), (1, 2, 4)])
def test_a_hint_of_wan_vace_goes_with_the_layer_it_follows(vace, order):
    assert torch.equal(by_graph(*vace, blocks=order), vace_by_hand(*vace, order))


PARTNERS = {4: 1, 5: 0}  # of HunyuanDiT's layers, the one whose output each takes by a long skip


@pytest.fixture(scope="module")
def hunyuan():
    """The layers of the second half of HunyuanDiT take what their partners of the first half left."""
    model = seeded(
        diffusers.HunyuanDiT2DModel,
        **{
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 8,
            "hidden_size": 16,
        },
        **{"num_layers": 6, "cross_attention_dim": 12, "cross_attention_dim_t5": 16, "pooled_projection_dim": 6},
        **{"text_len": 5, "text_len_t5": 6},
    )
    call = {
        "hidden_states": random(2, 4, 8, 8),
        "timestep": torch.tensor([5.0, 5]),
        "image_meta_size": torch.ones(2, 6),
    }
    call |= {"encoder_hidden_states": random(2, 5, 12), "text_embedding_mask": torch.ones(2, 5)}
    call |= {"encoder_hidden_states_t5": random(2, 6, 16), "text_embedding_mask_t5": torch.ones(2, 6)}
    call |= {"style": torch.zeros(2, dtype=torch.long), "image_rotary_emb": [random(16, 8), random(16, 8)]}
    return model, call | {"return_dict": False}


@torch.no_grad()
def hunyuan_by_hand(model, call, order):
    originals, left = [block.forward for block in model.blocks], {}

    def work(image, **context):
        for index in order:
            skip = left[PARTNERS[index]] if index in PARTNERS else None
            image = left[index] = originals[index](image, **{**context, "skip": skip})
        return image

    try:
        for block in model.blocks:
            block.forward = work if block is model.blocks[0] else lambda image, **_: image
        return model(**call)[0]
    finally:
        for block in model.blocks:
            del block.forward


@pytest.mark.parametrize("order", [(2, 1, 0, 3, 4, 5), (0, 1, 3, 5, 4), (0, 1, 4), (1, 0, 5, 2, 5, 4, 4), (3, 2, 2)])
def test_a_layer_of_hunyuan_dit_takes_what_its_partner_left_wherever_the_two_stand(hunyuan, order):
    assert torch.equal(by_graph(*hunyuan, blocks=order), hunyuan_by_hand(*hunyuan, order))


@pytest.mark.parametrize("order", [(0, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (0, 1, 1, 2, 3, 4, 5)])
def test_a_layer_of_hunyuan_dit_whose_partner_did_not_run_once_before_it_is_refused(hunyuan, order):
    with pytest.raises(RefusedError, match=r"blocks\[[01]\] feeds more than the next block \(a long skip connection"):
        by_graph(*hunyuan, blocks=order)


def hidream(double, single):
    """HiDream gives each block a layer of a text model's states, projected by a layer of its own, both by number."""
    llama_layers, num_layers = list(range(8)), 4
    model = seeded(
        diffusers.HiDreamImageTransformer2DModel,
        **{"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": num_layers, "num_single_layers": 4},
        **{"attention_head_dim": 8, "num_attention_heads": 2, "caption_channels": [6, 5], "text_emb_dim": 7},
        **{
            "num_routed_experts": 2,
            "num_activated_experts": 2,
            "axes_dims_rope": [4, 2, 2],
            "max_resolution": [32, 32],
        },
        **{"llama_layers": llama_layers, "force_inference_output": True},
    )
    order = [*double, *(num_layers + layer for layer in single)]
    for name, kept in (("double_stream_blocks", double), ("single_stream_blocks", single)):
        setattr(model, name, torch.nn.ModuleList(getattr(model, name)[layer] for layer in kept))
    model.caption_projection = torch.nn.ModuleList(model.caption_projection[layer] for layer in (*order, 8))
    model.register_to_config(llama_layers=[llama_layers[layer] for layer in order])
    return model


HIDREAM_ORDERS = [
    ((0, 2, 3), range(4)),
    ((2, 1, 0, 3, 3), range(4)),
    (range(4), (0, 3)),
    (range(4), (2, 0, 0, 1, 3)),
    ((3, 1), (1, 0, 3)),
]


@pytest.mark.parametrize(("double", "single"), HIDREAM_ORDERS)
@torch.no_grad()
def test_a_block_of_hidream_keeps_its_text_and_that_which_projects_it(double, single):
    generator = torch.Generator().manual_seed(5)
    call = {
        "hidden_states": torch.randn(2, 4, 8, 8, generator=generator),
        "encoder_hidden_states_t5": torch.randn(2, 4, 6, generator=generator),
        "encoder_hidden_states_llama3": torch.randn(8, 2, 4, 5, generator=generator),
        "pooled_embeds": torch.randn(2, 7, generator=generator),
        "timesteps": torch.tensor([44, 239]),
    }
    GENERATOR.manual_seed(0)
    model = hidream(range(4), range(4))
    GENERATOR.manual_seed(0)
    expected = hidream(double, single)(**call).sample
    assert not torch.equal(expected, model(**call).sample)
    edited = by_graph(model, call, double_stream_blocks=double, single_stream_blocks=single)
    assert torch.equal(edited, expected)
