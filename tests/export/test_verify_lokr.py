"""Configs as LyCORIS builds them, for public models of the real size (no memory) and tiny ones (saved and loaded)."""

import copy
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch

from surgery.anatomy.sources import build_on_meta, find_source
from surgery.bundled import demo_folder
from surgery.dit.blocks import CONDITIONINGS
from surgery.errors import InputError
from surgery.export.factors import TrainableModule, list_grouped, list_trainable
from surgery.export.lokr_config import LokrPlan, lokr_config, plan_lokr
from surgery.export.lycoris_apply import (
    PRESET_AT_START,
    apply_config,
    create_as_simpletuner,
    lycoris_version,
    network_class_at_start,
    refuse_invalid_preset,
)
from surgery.export.verify_lokr import compare, unloadable, verify_lokr
from surgery.testing import build_tiny_model, tiny_call
from surgery.tracing.steps import find_stack_names

lycoris = pytest.importorskip("lycoris", reason="LyCORIS is not installed")
CONFIGS = Path(__file__).parents[1] / "configs"

MODELS = {  # -> stacks, and how many modules are trained
    "pixart-alpha": (["transformer_blocks"], 280),
    "sd3-medium": (["transformer_blocks"], 333),
    "sd3.5-medium": (["transformer_blocks"], 385),
    "sd3.5-large": (["transformer_blocks"], 529),
    "flux.1-schnell": (["transformer_blocks", "single_transformer_blocks"], 494),
    "auraflow-v0.2": (["joint_transformer_blocks", "single_transformer_blocks"], 320),
    "dit-xl-2": (["transformer_blocks"], 252),
    "sana-1.6b": (["transformer_blocks"], 200),
    "lumina2": (["noise_refiner", "context_refiner", "layers"], 238),
    "qwen-image": (["transformer_blocks"], 840),
    "wan2.1-1.3b": (["blocks"], 300),
    "z-image": (["noise_refiner", "context_refiner", "layers"], 270),
}
FACTORS = (1, 2, 3, 4, 7, 8, 11, 16, 24, 32)


def plan_of(model, *, choices=FACTORS, of_1_10_11=(2, 8, 32), multipliers=None):
    """A plan with another factor for each block, and its config. Blocks 1, 10 and 11 differ."""
    stacks = find_stack_names(model)
    rng = random.Random(0)
    factors = {}
    for stack in stacks:
        chosen = [rng.choice(choices) for _ in model.get_submodule(stack).children()]
        if len(chosen) > 11:
            chosen[1], chosen[10], chosen[11] = of_1_10_11
        factors[stack] = chosen
    plan = plan_lokr(factors, list_trainable(model, stacks), multipliers)
    return plan, lokr_config(plan.rules, list_grouped(model, stacks))


SLOWER = {"sd3-medium", "sd3.5-large", "sd3.5-medium", "lumina2", "qwen-image", "auraflow-v0.2"}  # others are like them


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOWER)) for n in MODELS])
def test_lycoris_builds_what_was_planned(meta_model, name):
    model = meta_model(name)
    plan, config = plan_of(model)
    verified = verify_lokr(plan, config, model)
    stacks, num_modules = MODELS[name]
    assert list(find_stack_names(model)) == stacks and len({module.name for module in plan.asked}) == num_modules
    assert (verified.num_modules, verified.num_parameters) == (num_modules, plan.num_parameters)
    assert verified.lycoris == lycoris_version()
    for stack in (stack for stack in stacks if len(list(model.get_submodule(stack).children())) > 11):
        factors = {block: f for m, f in plan.asked.items() if m.stack == stack for block in [m.block]}
        assert (factors[1], factors[10], factors[11]) == (2, 8, 32)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_lycoris_trains_every_linear_layer_of_the_blocks_of_a_reference_dit(conditioning):
    model = build_tiny_model(conditioning)
    plan, config = plan_of(model, choices=(1, 2, 4), multipliers={"attn1": 2})
    linears = [m for m in model.transformer_blocks.modules() if isinstance(m, torch.nn.Linear)]
    assert verify_lokr(plan, config, model).num_modules == len(linears)


@pytest.mark.slow
def test_components_may_have_factors_of_their_own(meta_model):
    model = meta_model("sd3.5-medium")
    plan, config = plan_of(model, multipliers={"attn": 2, "attn2": 3, "ff": 1})
    assert verify_lokr(plan, config, model).num_modules == 385


EXPORTS = Path(__file__).parents[2] / "exports"
SHIPPED = {path.parent.name: path for path in EXPORTS.glob("*/*.json")}
SHIPPED_MODELS = {"sd35-large": CONFIGS / "sd3.5-large" / "transformer", "demo": demo_folder()}
MULTIPLIED = {  # -> components with factors of their own, some within others
    "pixart": {"attn1": 2, "ff": 3},
    "sd3": {"attn": 2, "attn.to_out": 3, "*": 4},
    "flux": {"proj_mlp": 2, "attn": 2, "norm1": 4},
    "auraflow": {"attn": 2, "ff": 2},
    "dit": {"norm1": 4},
}


def reordered(config):
    """As SimpleTuner's editor saves it, with all keys sorted, and the rules shuffled."""
    yield json.loads(json.dumps(config, sort_keys=True))
    shuffled = copy.deepcopy(config)
    rules = list(shuffled["apply_preset"]["name_algo_map"].items())
    random.Random(0).shuffle(rules)
    shuffled["apply_preset"]["name_algo_map"] = dict(rules)
    yield shuffled


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_trains_the_same_whatever_the_order_of_its_keys(name):
    config = json.loads(SHIPPED[name].read_text())
    model = build_on_meta(find_source(str(SHIPPED_MODELS[name])))
    trained = apply_config(config, model)
    assert len({item.factor for item in trained}) > 1
    for other in reordered(config):
        assert apply_config(other, model) == trained


@pytest.mark.parametrize("name", MULTIPLIED)
def test_an_exported_config_trains_the_same_whatever_the_order_of_its_keys(name):
    model = build_tiny_model(name)
    plan, config = plan_of(model, choices=(1, 2, 4), of_1_10_11=(2, 4, 1), multipliers=MULTIPLIED[name])
    trained = apply_config(config, model)
    assert compare(plan, trained) == []
    for other in reordered(config):
        assert apply_config(other, model) == trained


def test_a_rule_for_the_rest_of_a_block_depends_on_the_order():
    """The saboteur of the two tests above."""
    model = build_tiny_model("sd3")
    _, config = plan_of(model, multipliers={"norm1": 2})
    entry = {"algo": "lokr", "factor": 16, "full_matrix": True}
    config["apply_preset"]["name_algo_map"]["transformer_blocks.*"] = entry
    assert apply_config(next(reordered(config)), model) != apply_config(config, model)


def faulty(plan, config, how):
    """A config that does not do what the plan says."""
    preset = config["apply_preset"]
    entries = preset["name_algo_map"]
    if how == "a class claims":
        preset["target_module"] = ["BasicTransformerBlock"]
    elif how == "no fnmatch":
        preset["use_fnmatch"] = False
    elif how == "a block is missing":
        del entries["transformer_blocks.10.*"]
    elif how == "another factor":
        entries["transformer_blocks.11.*"]["factor"] = 16
    elif how == "low rank":
        config["linear_dim"] = entries["transformer_blocks.3.*"]["dim"] = 4
        entries["transformer_blocks.3.*"]["full_matrix"] = False
    elif how == "unbalanced":
        config["unbalanced_factorization"] = True
    elif how == "more modules":
        preset["target_name"] = ["proj_out"]
    return config


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a class claims", "has lokr with factor 16, not a full LoKr with"),
        ("no fnmatch", "with factor 2, not a full LoKr with"),
        ("a block is missing", "transformer_blocks.10.attn1.to_q is not trained"),
        ("another factor", "has lokr with factor 16, not a full LoKr with 32"),
        ("low rank", "has lokr with factor"),
        ("unbalanced", "has w1 of shape"),
        ("more modules", "proj_out is trained and was not planned"),
    ],
)
def test_a_config_that_does_something_else_is_noticed(meta_model, how, message):
    """The saboteurs of the tests above."""
    model = meta_model("pixart-alpha")
    plan, config = plan_of(model)
    with pytest.raises(InputError, match="trains something else than was planned") as caught:
        verify_lokr(plan, faulty(plan, config, how), model)
    assert message in str(caught.value)


def test_a_wrong_closed_form_is_noticed(meta_model):
    model = meta_model("dit-xl-2")
    plan, config = plan_of(model)
    trained = apply_config(config, model)
    assert compare(plan, trained) == []
    more = (replace(trained[0], num_parameters=trained[0].num_parameters + 1), *trained[1:])
    assert compare(plan, more) == [
        f"{trained[0].name} has {trained[0].num_parameters + 1:,} parameters, not {trained[0].num_parameters:,}"
    ]


def test_a_layer_that_can_not_be_loaded_again_is_named():
    model = torch.nn.Module()
    model.proj = torch.nn.Linear(1152, 4608, device="meta")
    module = TrainableModule("proj", "proj", 0, (4608, 1152))
    assert unloadable(LokrPlan((), {module: 32}), model) == []
    assert unloadable(LokrPlan((), {module: 50}), model) == [
        "proj with factor 50 can't be loaded again by LyCORIS; choose a smaller factor"
    ]


def test_the_strict_validator_rejects_the_keys_of_the_top_level_in_an_entry(meta_model):
    _, config = plan_of(meta_model("pixart-alpha"))
    refuse_invalid_preset(config)
    config["apply_preset"]["name_algo_map"]["transformer_blocks.0.*"]["linear_dim"] = 4
    with pytest.raises(InputError, match="rejects the preset: Unsupported option 'linear_dim'"):
        refuse_invalid_preset(config)


def test_a_config_leaves_nothing_in_the_class(meta_model):
    """What a preset sets is kept on the class; the next config must not see it."""
    model = meta_model("dit-xl-2")
    before = {name: getattr(lycoris.LycorisNetwork, name) for name in PRESET_AT_START}
    _, config = plan_of(model)
    first = apply_config(config, model)
    everything = apply_config({"algo": "lokr", "linear_dim": 4, "factor": 4}, model)
    assert len(everything) > len(first) and apply_config(config, model) == first
    assert before == {name: getattr(lycoris.LycorisNetwork, name) for name in PRESET_AT_START}


def test_what_another_has_set_on_the_class_does_not_count(meta_model, monkeypatch):
    model = meta_model("dit-xl-2")
    config = {"algo": "lokr", "linear_dim": 4, "factor": 4}
    clean = apply_config(config, model)
    monkeypatch.setattr(lycoris.LycorisNetwork, "TARGET_REPLACE_MODULE", ["Attention"])
    assert apply_config(config, model) == clean
    assert lycoris.LycorisNetwork.TARGET_REPLACE_MODULE == ["Attention"]


@pytest.mark.slow
def test_lycoris_starts_with_what_we_take_it_to_start_with():
    code = (
        "from lycoris import LycorisNetwork\nfrom lycoris.kohya import LycorisNetworkKohya\n"
        "from surgery.export.lycoris_apply import PRESET_AT_START, SD_SCRIPTS_AT_START\n"
        "for owner, values in ((LycorisNetwork, PRESET_AT_START), (LycorisNetworkKohya, SD_SCRIPTS_AT_START)):\n"
        "    found = {name: getattr(owner, name) for name in values}\n"
        "    assert found == values, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def text_and_picture(rows=2, *, channels=4):
    """Random inputs of a forward: 7 text tokens, a picture of 8 x 8."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(rows, 7, 12, generator=generator)
    return text, torch.randn(rows, channels, 8, 8, generator=generator)


def build_sana():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_cross_attention_heads": 2}
    widths = {"cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12}
    model = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=12, sample_size=8, patch_size=1, **sizes, **widths
    )
    text, picture = text_and_picture()
    return model, {"hidden_states": picture, "encoder_hidden_states": text, "timestep": torch.tensor([7.0, 500.0])}


def build_lumina2():
    model = diffusers.Lumina2Transformer2DModel(
        **{"sample_size": 8, "in_channels": 4, "hidden_size": 24, "num_layers": 12, "num_refiner_layers": 2},
        **{"num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 16, "cap_feat_dim": 12},
        **{"axes_dim_rope": (4, 2, 2), "axes_lens": (64, 64, 64)},
    )
    text, picture = text_and_picture()
    call = {"hidden_states": picture, "timestep": torch.tensor([0.1, 0.7]), "encoder_hidden_states": text}
    return model, {**call, "encoder_attention_mask": torch.ones(2, 7, dtype=torch.bool)}


def build_qwen_image():
    model = diffusers.QwenImageTransformer2DModel(
        **{"in_channels": 16, "out_channels": 4, "num_layers": 12, "attention_head_dim": 16, "num_attention_heads": 2},
        **{"joint_attention_dim": 12, "axes_dims_rope": (8, 4, 4)},
    )
    text, picture = text_and_picture(channels=16)
    mask = torch.ones(2, 7, dtype=torch.bool)
    call = {"hidden_states": picture.flatten(2)[:, :, :16].mT.contiguous(), "encoder_hidden_states": text}
    call |= {"encoder_hidden_states_mask": mask, "timestep": torch.tensor([0.1, 0.7])}
    return model, {**call, "img_shapes": [[(1, 4, 4)]] * 2}


def build_wan():
    model = diffusers.WanTransformer3DModel(
        **{"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 12},
        **{"freq_dim": 16, "ffn_dim": 32, "num_layers": 12, "rope_max_seq_len": 32},
    )
    text, picture = text_and_picture()
    video = picture[:, :, None].expand(-1, -1, 2, -1, -1).contiguous()
    return model, {"hidden_states": video, "timestep": torch.tensor([7, 500]), "encoder_hidden_states": text}


def build_z_image():
    model = diffusers.ZImageTransformer2DModel(
        **{"in_channels": 4, "dim": 32, "n_layers": 12, "n_refiner_layers": 2, "n_heads": 2, "n_kv_heads": 2},
        **{"cap_feat_dim": 12, "axes_dims": [8, 4, 4], "axes_lens": [256, 32, 32]},
    )
    text, picture = text_and_picture()
    return model, {"x": list(picture[:, :, None]), "t": torch.tensor([0.1, 0.7]), "cap_feats": list(text)}


OTHERS = {
    "sana": build_sana,
    "lumina2": build_lumina2,
    "qwen-image": build_qwen_image,
    "wan": build_wan,
    "z-image": build_z_image,
}  # families that the graph backend has no example inputs for, of twelve blocks


def build(name):
    """A tiny model with seeded random weights that make every layer matter, and the arguments of a forward."""
    if name not in OTHERS:
        model = build_tiny_model(name)
        return model, tiny_call(model)
    torch.manual_seed(0)
    model, call = OTHERS[name]()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    return model.eval(), call


def run(model, call):
    with torch.no_grad():
        found = model(**call, return_dict=False)[0]
    return torch.stack(found) if isinstance(found, list) else found


@pytest.mark.parametrize("name", ["pixart", "sd3", "sd3-dual", "flux", "auraflow", "dit", *OTHERS])
def test_a_trained_network_saved_and_loaded_again_differs_by_nothing(tmp_path, name):
    (model, call), (again, _) = build(name), build(name)
    plan, config = plan_of(model, choices=(1, 2, 4), of_1_10_11=(2, 4, 1))
    assert unloadable(plan, model) == []
    assert name not in OTHERS or {module.block for module in plan.asked} >= {1, 10, 11}
    plain = run(model, call)
    with network_class_at_start():
        network = create_as_simpletuner(config, model)
        network.apply_to()
    assert len(network.loras) == len(plan.asked)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    trained = run(model, call)
    file = tmp_path / "lokr.safetensors"
    network.save_weights(str(file), torch.float32, {})
    with network_class_at_start(), torch.no_grad():
        loaded, _ = lycoris.create_lycoris_from_weights(1.0, str(file), again)
        loaded.apply_to()
    assert len(loaded.loras) == len(network.loras)
    assert float((run(again, call) - trained).abs().max()) == 0
    assert float((plain - trained).abs().max()) > 1e-3
