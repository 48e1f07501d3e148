"""Graph and checkpoint on a shrunken model: what agrees passes, and what the stock forward can't do is found out."""

import dataclasses
from pathlib import Path

import pytest
import torch
from built_once import building_once
from tiny import tiny_model
from torch import nn

from surgery.anatomy.sources import ModelSource, anatomy_of_source, find_source
from surgery.calls.example_inputs import ExampleCall
from surgery.checkpoint import fitted_blocks as fit
from surgery.checkpoint.compile_plan import fields_of_plan
from surgery.checkpoint.unrolled import unroll_plan
from surgery.errors import InputError, RefusedError
from surgery.plan.lower import lower_spec
from surgery.publish.answers import answer
from surgery.spec.load import read_spec
from surgery.testing import tiny_call
from surgery.verify.agreement import compare, relative_difference
from surgery.verify.numeric import build_small, check_numerically, folds_of_plan
from surgery.verify.shrink import build_random, shrink_source


@pytest.fixture(scope="module", autouse=True)
def _models_on_meta_are_built_once():
    with building_once():
        yield


def source_of(name):
    model = tiny_model(name)
    return ModelSource(name, {**model.config, "_class_name": type(model).__name__}, None, None, "float32")


def check(source, operation):
    anatomy = anatomy_of_source(source)
    plan = lower_spec(read_spec(f"surgery: v1\noperations:\n  - {operation}\n"), anatomy)
    layers = unroll_plan(plan, anatomy)
    small = build_small(source)
    fields = fields_of_plan(small.source, layers)
    return check_numerically(small, plan, layers, fields, folds_of_plan(small, plan, layers))


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("sd3", 'skip: "transformer_blocks[4]"'),
        ("flux", 'reverse: "*[1:3]"'),
        ("dit", 'skip: "transformer_blocks[2]"'),
        ("auraflow", 'repeat: {layers: "single_transformer_blocks[1:3]", times: 2}'),
    ],
)
def test_what_the_stock_class_can_say_agrees_to_the_bit(name, operation):
    agreement = check(source_of(name), operation)
    assert agreement.difference == 0.0
    assert type(tiny_model(name)).__name__ in agreement.model


CLASSES = {
    "WanTransformer3DModel": {
        **{"patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4},
        **{"out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 3},
    },
    "SanaTransformer2DModel": {
        **{"in_channels": 4, "out_channels": 4, "num_layers": 3, "attention_head_dim": 4, "num_attention_heads": 2},
        **{"num_cross_attention_heads": 2, "cross_attention_head_dim": 4, "cross_attention_dim": 8},
        **{"caption_channels": 8, "sample_size": 8},
    },
    "Flux2Transformer2DModel": {
        **{"in_channels": 4, "num_layers": 3, "num_single_layers": 3, "attention_head_dim": 16},
        **{"num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 4, 4)},
    },
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name.startswith("Wan") else name for name in CLASSES]
)
def test_other_classes_of_the_table_agree_too(name):
    import diffusers

    import surgery

    model = getattr(diffusers, name)(**CLASSES[name]).eval()
    source = ModelSource(name, {**model.config, "_class_name": name}, None, None, "float32")
    assert check(source, 'skip: "*[1]"').difference == 0.0
    variant, call = surgery.apply(model, read_spec("surgery: v1\noperations: []")), tiny_call(model)
    with torch.no_grad():
        assert torch.equal(variant(**call).sample, model(**call).sample)


def test_the_captions_of_hidream_go_with_its_layers_and_it_is_refused(tmp_path, monkeypatch):
    import diffusers

    monkeypatch.setattr("surgery.calls.example_inputs.find_call", lambda *_: None)  # it takes long, and is not asked
    diffusers.HiDreamImageTransformer2DModel(
        **{"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 3},
        **{"attention_head_dim": 8, "num_attention_heads": 4, "caption_channels": [32, 16], "text_emb_dim": 64},
        **{"num_routed_experts": 4, "num_activated_experts": 2, "axes_dims_rope": (4, 2, 2)},
        **{"max_resolution": (32, 32), "llama_layers": (0, 1, 0, 1, 1)},
    ).save_pretrained(tmp_path)
    source = find_source(str(tmp_path))
    anatomy = anatomy_of_source(source)
    for stack, field in (("double_stream_blocks", "num_layers"), ("single_stream_blocks", "num_single_layers")):
        plan = lower_spec(read_spec(f'surgery: v1\noperations:\n  - skip: "{stack}[1]"\n'), anatomy)
        about = {"source": source_json(source), "plan": plan.to_json(), "variant": None, "verify": "structure"}
        with pytest.raises(RefusedError, match=f"makes caption_projection follow {field} too: it would have 5 members"):
            answer("compile_plan", about)


@pytest.mark.parametrize("layer", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3)), 4])
def test_chroma_is_found_to_depend_on_the_numbers_of_its_blocks(layer):
    with pytest.raises(
        RefusedError, match=r"temb for .*the numbers would shift|makes by a block's number or the length"
    ):
        check(source_of("chroma"), f'skip: "single_transformer_blocks[{layer}]"')


def test_dit_is_found_to_read_its_first_block():
    with pytest.raises(RefusedError) as caught:
        check(source_of("dit"), 'skip: "transformer_blocks[0]"')
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("the checkpoint's output differs from the graph's by 0.")
    assert first.endswith("(relative), on a DiTTransformer2DModel shrunken to 0.0481 M random parameters")
    assert second == (
        "the forward of DiTTransformer2DModel reads a block's number, the length of a stack, or weights of one block; "
        "if the real weights make up for it (the same in all blocks, say), --verify full finds that out"
    )
    assert third == "the graph backend runs it: surgery compile SPEC --to graph"


def test_rows_in_the_wrong_order_are_seen(monkeypatch):
    """The saboteur: without the exchange of scale and shift, dropping SD3's last block is not exact."""
    wrong = {("AdaLayerNormZero", "AdaLayerNormContinuous"): ((0, 1), 6)}
    monkeypatch.setattr(fit, "NORM_CHUNKS", wrong)
    with pytest.raises(RefusedError, match="the checkpoint's output differs from the graph's"):
        check(source_of("sd3"), 'skip: "transformer_blocks[4]"')


@pytest.mark.parametrize(
    "name",
    [
        "flux.1-schnell",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("auraflow-v0.2", "sd3-medium", "pixart-alpha")),
    ],
)
def test_models_of_real_size_are_shrunken_to_few_channels_and_all_their_blocks(name):
    source = find_source(str(Path(__file__).parents[1] / "configs" / name))
    small = shrink_source(source)
    model = build_random(small)
    anatomy = anatomy_of_source(source)
    assert sum(value.numel() for value in model.parameters()) < 2_000_000
    assert [stack.num_blocks for stack in anatomy.stacks] == [
        len(list(model.get_submodule(stack.name).children())) for stack in anatomy.stacks
    ]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_what_is_as_large_as_a_stack_is_long_by_chance_is_left_as_it_is():
    """PriorTransformer has four additional embeddings, and here as many layers: its forward counts them."""
    config = {"_class_name": "PriorTransformer", "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8}
    small = shrink_source(dataclasses.replace(source_of("flux"), config=config))
    assert small.config["additional_embeddings"] == small.config["num_layers"] == 4


def test_a_class_without_example_inputs_is_checked_by_structure_only(tmp_path, monkeypatch):
    import diffusers

    monkeypatch.setattr("surgery.calls.example_inputs.known_call", lambda _: None)

    model = diffusers.LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=3, caption_channels=8,
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    source = find_source(str(tmp_path))
    anatomy = anatomy_of_source(source)
    plan = lower_spec(read_spec('surgery: v1\noperations:\n  - skip: "transformer_blocks[1]"\n'), anatomy)
    about = {"source": source_json(source), "plan": plan.to_json(), "variant": None}
    with pytest.raises(RefusedError, match="there are no example inputs for LTXVideoTransformer3DModel; with --verify"):
        answer("compile_plan", {**about, "verify": "numeric"})
    found = answer("compile_plan", {**about, "verify": "structure"})
    assert found["new"]["config"]["num_layers"] == 2 and found["agreement"] is None


def source_json(source):
    from surgery.anatomy.sources import source_to_json

    return source_to_json(source)


def test_an_unknown_class_is_not_shrunken(monkeypatch):
    monkeypatch.setattr("surgery.verify.shrink.known_call", lambda _: None)
    source = dataclasses.replace(
        source_of("flux"), config={"_class_name": "LTXVideoTransformer3DModel", "num_layers": 2}
    )
    with pytest.raises(InputError, match="there are no example inputs for LTXVideoTransformer3DModel"):
        build_small(source)


def test_a_difference_is_relative_and_infinite_for_other_shapes():
    ones = torch.ones(4)
    assert relative_difference(ones, ones) == 0.0
    assert relative_difference(ones * 1.5, ones) == pytest.approx(0.5)
    assert relative_difference(torch.ones(3), ones) == float("inf")


class Several(nn.Module):
    """Returns a list of tensors, and takes no `return_dict`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))

    def forward(self, x):
        return [x, x * self.factor]


def test_all_tensors_that_a_model_returns_are_compared(monkeypatch):
    call = ExampleCall({"x": torch.ones(2)}, {})
    monkeypatch.setattr("surgery.verify.agreement.example_call", lambda *_, **__: call)
    assert compare(Several(2.0), Several(2.0), sizes={}, what="a toy").difference == 0.0
    with pytest.raises(RefusedError, match=r"differs from the graph's by 0\.5 \(relative\), on a toy"):
        compare(Several(2.0), Several(3.0), sizes={}, what="a toy")
