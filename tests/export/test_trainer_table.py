"""Every pair of a target and a class that it knows: the text trains what is said, at the scale that is said."""

import datetime
import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from few_blocks import FEW_BLOCKS, WITHOUT_ADD_ADAPTER, build_few_blocks, request_for
from peft.tuners.lora import LoraLayer
from trainer_rules import (
    ai_toolkit,
    arguments,
    diffusers_script,
    musubi,
    musubi_by_itself,
    onetrainer,
    peft,
    sd_scripts,
    simpletuner,
)

from surgery.errors import InputError
from surgery.export import trainer_table
from surgery.export.targets import TARGETS
from surgery.export.trainers import Trainer
from surgery.tracing.steps import find_stack_names

TRAINERS = [value for value in vars(trainer_table).values() if isinstance(value, Trainer)]
IMAGE_AND_TEXT = [f"{stream}_{part}" for stream in ("img", "txt") for part in ("mod.lin", "attn.qkv", "mlp.0", "mlp.2")]
HUNYUAN = [
    f"{stream}_{part}" for stream in ("img", "txt") for part in ("mod.linear", "attn_qkv", "attn_proj", "mlp.fc1")
]
ATTENTION = [f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
KANDINSKY = [f"self_attention.{name}" for name in ("to_query", "to_key", "to_value", "out_layer")]
FLUX = {"double_blocks": IMAGE_AND_TEXT, "single_blocks": ["linear1", "linear2", "modulation.lin"]}
OWN_CLASSES = {  # of trainers that do not take diffusers' classes: by network module, linear layers of a block by stack
    "networks.lora_flux": FLUX,
    "networks.lora_flux_2": FLUX,
    "networks.lora_sd3": {"joint_blocks": ["x_block.attn.qkv", "x_block.mlp.fc1", "context_block.attn.qkv"]},
    "networks.lora_wan": {"blocks": ["self_attn.q", "cross_attn.k", "cross_attn.k_img", "ffn.0"]},
    "networks.lora_qwen_image": {"transformer_blocks": ["img_mod.1", "img_mlp.net.2", *ATTENTION]},
    "networks.lora_zimage": {
        "layers": ["attention.to_q", "attention.to_out.0", "feed_forward.w1", "adaLN_modulation.0"]
    },
    "networks.lora": {"double_blocks": HUNYUAN, "single_blocks": ["linear1", "linear2", "modulation.linear"]},
    "networks.lora_hunyuan_image": {"double_blocks": HUNYUAN, "single_blocks": ["linear1", "modulation.linear"]},
    "networks.lora_hv_1_5": {"double_blocks": ["img_mod.linear", "img_attn_q", "txt_mlp.fc2"]},
    "networks.lora_framepack": {
        "transformer_blocks": ["norm1.linear", "ff.net.2", "ff_context.net.0.proj", *ATTENTION],
        "single_transformer_blocks": ["norm.linear", "proj_mlp", "proj_out", "attn.to_q"],
    },
    "networks.lora_kandinsky": {
        "text_transformer_blocks": ["text_modulation.out_layer", "feed_forward.in_layer", *KANDINSKY],
        "visual_transformer_blocks": ["visual_modulation.out_layer", "cross_attention.to_key", *KANDINSKY],
    },
}


TWO_STACKS = ("transformer_blocks", "single_transformer_blocks")
AI_TOOLKIT_OWN = {  # stacks of ai-toolkit's own classes, 0.12.26
    "Flux2Transformer2DModel": {"double_blocks", "single_blocks"},
    "ChromaTransformer2DModel": {"double_blocks", "single_blocks"},
}


def pairs(*names):
    """The targets of these names with each class that they know."""
    return [(name, class_name) for name in names for class_name in TARGETS[name].classes]


model_of = functools.cache(build_few_blocks)


@functools.cache
def request_of(class_name):
    return request_for(model_of(class_name))


def linear_names(class_name, kinds=(torch.nn.Linear,)):
    return [name for name, module in model_of(class_name).named_modules() if isinstance(module, kinds)]


def own_names(family, lengths):
    """The linear layers of a trainer's own class, which has as many blocks as that of diffusers."""
    return [
        f"{name}.{n}.{inside}"
        for stack, name in family.stacks.items()
        for n in range(lengths[stack])
        for inside in OWN_CLASSES[family.module][name]
    ]


def of_layers(names, request, family, blocks=None):
    """The names that lie in the layers that are switched on (or in all of the stacks that are trained)."""
    starts = [
        f"{family.stacks[stack]}.{n}."
        for stack in request.layers.stacks
        if stack in family.stacks
        for n in (request.kept(stack) if blocks is None else range(request.layers.lengths[stack]))
    ]
    return {name for name in names if name.startswith(tuple(starts))}


@pytest.mark.parametrize(
    ("target", "class_name"), pairs("simpletuner-peft", "simpletuner-blocks", "diffusers", "onetrainer")
)
def test_trainers_of_diffusers_classes_train_the_linear_layers_that_are_switched_on(target, class_name):
    request, family = request_of(class_name), TARGETS[target].find(class_name)
    text = TARGETS[target].write(request).text
    names = linear_names(class_name)
    expected = dict.fromkeys(of_layers(names, request, family), 1.0)
    if target == "onetrainer":
        with_convolutions = linear_names(class_name, (torch.nn.Linear, torch.nn.Conv2d))
        assert onetrainer(text, with_convolutions) == expected
    elif target == "diffusers":
        assert diffusers_script(text, names, "alpha" in family.has) == expected
    else:
        assert simpletuner(text, names) == expected
    assert expected


@pytest.mark.parametrize(("target", "class_name"), pairs("ai-toolkit", "ai-toolkit-full"))
def test_ai_toolkit_trains_the_layers_that_are_switched_on(target, class_name):
    request, family = request_of(class_name), TARGETS[target].find(class_name)
    stack = request.layers.stacks[-1]
    request = replace(request, layers=replace(request.layers, critical={stack: frozenset({1})}))
    own = class_name in AI_TOOLKIT_OWN
    if own:
        assert {family.stacks[stack] for stack in TWO_STACKS} == AI_TOOLKIT_OWN[class_name]
    names = linear_names(class_name) if not own else []
    names += [
        f"{name}.{n}.linear" for stack, name in family.stacks.items() for n in range(request.layers.lengths[stack])
    ]
    expected = dict.fromkeys(of_layers(names, request, family), 1.0)
    if target == "ai-toolkit-full":
        expected |= {name: "full" for name in expected if name.startswith(f"{family.stacks[stack]}.1.")}
        assert "full" in expected.values()
    assert ai_toolkit(TARGETS[target].write(request).text, names) == expected


@pytest.mark.parametrize("class_name", TARGETS["musubi-tuner"].classes)
def test_musubi_trains_of_the_layers_what_it_trains_by_itself(class_name):
    request, family = request_of(class_name), TARGETS["musubi-tuner"].find(class_name)
    names = own_names(family, request.layers.lengths)
    text = TARGETS["musubi-tuner"].write(request).text
    expected = of_layers(musubi_by_itself(family.module, names), request, family)
    assert musubi(text, names) == dict.fromkeys(expected, 1.0) and expected
    assert "!" not in text  # a shell would take it for one of its own


@pytest.mark.parametrize("chosen", [None, ("transformer_blocks",)], ids=["all", "one stack"])
@pytest.mark.parametrize(
    ("target", "class_name"), pairs("sd-scripts-reg-dims", "sd-scripts-reg-lrs", "sd-scripts-blocks")
)
def test_sd_scripts_trains_the_chosen_stacks_at_the_rank_and_scale_that_are_said(target, class_name, chosen):
    request = request_for(model_of(class_name), chosen)
    family, written = TARGETS[target].find(class_name), TARGETS[target].write(request)
    names = own_names(family, request.layers.lengths)
    found = sd_scripts(written.text, names)
    blocks = None if target == "sd-scripts-blocks" else "all"
    assert found.keys() == of_layers(names, request, family, blocks)
    said = {f"{layer.name}.": layer for layer in written.layers}
    for name, (rank, scale, rate) in found.items():
        layer = next(layer for start, layer in said.items() if name.startswith(start))
        assert (layer.trained, layer.scale) == (f"rank {rank}", scale)
        assert rate == (None if layer.learning_rate is None else pytest.approx(layer.learning_rate, rel=1e-5))
    if target == "sd-scripts-reg-dims":  # what alpha / rank adds, the learning rate takes away
        assert len({scale for _, scale, _ in found.values()}) > 2
        assert {round(scale * rate * 1e7) for _, scale, rate in found.values()} == {1000}
    assert "network_train_unet_only" in arguments(written.text)


@pytest.mark.parametrize("class_name", FEW_BLOCKS)
def test_peft_trains_every_linear_layer_at_its_rank_and_scale_1(class_name):
    request = request_of(class_name)
    text, _, last = TARGETS["peft"].write(request).text.strip().rpartition("\n")
    namespace = {}
    exec(text, namespace)
    names = [name for name, _ in model_of(class_name).named_modules()]  # lists among them, which PEFT can't train
    expected = {
        module.name: request.rank(module.stack, module.block)
        for module in request.layers.modules
        if len(module.shape) == 2
    }
    ranks = peft(namespace["config"], names)
    assert ranks == {name: (rank, 1.0) for name, rank in expected.items()}
    has_method = hasattr(model_of(class_name), "add_adapter")
    assert last == ("transformer.add_adapter(config)" if has_method else "inject_adapter_in_model(config, transformer)")


@pytest.mark.parametrize("class_name", [*WITHOUT_ADD_ADAPTER, "Flux2Transformer2DModel"])
def test_what_is_printed_for_peft_runs_on_classes_with_and_without_add_adapter(class_name):
    model = build_few_blocks(class_name)
    request = request_for(model)
    exec(TARGETS["peft"].write(request).text, {"transformer": model})
    found = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert found == {module.name for module in request.layers.modules if len(module.shape) == 2}


def test_routes_of_tread_lead_tokens_around_runs_of_layers_that_do_little():
    request = request_of("FluxTransformer2DModel")
    shares = [1, 1, 1, *(0.9, 0.1, 0.2, 0.8, 0.3, 0.1, 0.1, 0.9, 0.2, 0.9, 0.1, 0.9)]  # 3 double, 12 single
    parts = [
        replace(part, shares=tuple(shares[start:end]))
        for part, start, end in zip(request.layers.contributions, (0, 3), (3, 15), strict=True)
    ]
    request = replace(request, layers=replace(request.layers, contributions=tuple(parts)))
    written = TARGETS["simpletuner-tread"].write(request)
    routes = json.loads(written.text)["tread_config"]["routes"]
    assert [(route["start_layer_idx"], route["end_layer_idx"]) for route in routes] == [(4, 5), (7, 9)]
    assert [layer.name for layer in written.layers if layer.trained == "half of the tokens"] == [
        f"single_transformer_blocks.{n}" for n in (1, 2, 4, 5, 6)
    ]
    with pytest.raises(InputError, match=re.escape("no two layers in a row have a share below 0.05")):
        TARGETS["simpletuner-tread"].write(replace(request, threshold=0.05))


def test_blocks_to_train_are_counted_through_both_stacks():
    request = request_of("FluxTransformer2DModel")
    config = json.loads(TARGETS["simpletuner-blocks"].write(request).text)["diffusion_blocks_config"]
    assert config["block_paths"] == ["transformer_blocks", "single_transformer_blocks"]
    kept = [*request.kept("transformer_blocks"), *(3 + n for n in request.kept("single_transformer_blocks"))]
    assert (config["layers_per_block"], config["blocks_to_train"]) == (1, kept)


def test_full_weights_want_critical_layers():
    with pytest.raises(InputError, match=re.escape("no layer is critical, so none is trained in full")):
        TARGETS["ai-toolkit-full"].write(request_of("FluxTransformer2DModel"))


def test_indices_beyond_what_the_script_takes_are_refused():
    request = request_of("FluxTransformer2DModel")
    longer = {**request.layers.lengths, "transformer_blocks": 20}
    with pytest.raises(InputError, match="sd-scripts takes indices of 19 transformer_blocks at most, and there are 20"):
        TARGETS["sd-scripts-blocks"].write(replace(request, layers=replace(request.layers, lengths=longer)))


@pytest.mark.parametrize("trainer", TRAINERS, ids=[trainer.title for trainer in TRAINERS])
def test_every_row_says_what_it_was_compared_with_and_names_stacks_that_the_class_has(trainer):
    assert trainer.version and datetime.date.fromisoformat(trainer.compared)
    for class_name, family in (trainer.families or {}).items():
        assert family.called and set(family.stacks) <= set(find_stack_names(model_of(class_name)))
        assert set(family.counted) <= set(family.stacks)


def test_the_page_counts_the_families():
    page = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    counts = {"simpletuner-peft": 17, "diffusers": 8, "onetrainer": 10, "musubi-tuner": 9}
    for name, count in counts.items():
        assert len(TARGETS[name].classes) == count and re.search(rf"^\| `{name}` \|.*\| {count}\b", page, re.MULTILINE)
    assert "`ai-toolkit-full` | on or off; all weights of `--critical` layers | 13 |" in page
    assert len(TARGETS["ai-toolkit"].classes) == 13
    assert {name for name in TARGETS if f"`{name}`" not in page} == set()


def test_the_large_trainers_know_eight_families_or_more():
    for name in ("simpletuner", "ai-toolkit", "onetrainer", "musubi-tuner"):
        assert len(TARGETS[name].classes) >= 8, name


@pytest.mark.parametrize(
    ("name", "class_name"),
    [(n, c) for n in TARGETS for c in FEW_BLOCKS if TARGETS[n].trainer.families and not TARGETS[n].find(c)],
)
def test_a_class_that_a_trainer_does_not_know_is_refused_with_those_that_do(name, class_name):
    request = replace(
        request_of("FluxTransformer2DModel"),
        layers=replace(request_of("FluxTransformer2DModel").layers, class_name=class_name),
    )
    with pytest.raises(InputError, match=f"does not train {class_name} by names that are known here") as caught:
        TARGETS[name].write(request)
    others = str(caught.value).split("can be exported --for ")[1].split(", ")
    assert set(others) == {other for other, target in TARGETS.items() if target.find(class_name)}


def test_stacks_that_a_trainer_leaves_out_are_lost_or_refused():
    model = model_of("ZImageTransformer2DModel")
    written = TARGETS["musubi-tuner"].write(request_for(model))
    assert written.lost.endswith("; noise_refiner, context_refiner: not trained by musubi-tuner")
    assert {layer.name.split(".")[0] for layer in written.layers} == {"layers"}
    with pytest.raises(
        InputError, match="musubi-tuner does not train noise_refiner of ZImageTransformer2DModel; it trains layers"
    ):
        TARGETS["musubi-tuner"].write(request_for(model, ("noise_refiner",)))
