"""Configs as people publish them: the verdict is that of a network that LyCORIS builds itself, module by module.

Each has what its author means, by hand: patterns of names, and the parameters of a module. What is trained is counted
on a model with weights, through LyCORIS's own functions; the verdict is compared with both.
"""

import contextlib
import functools
import io
import json
import logging
import re
from dataclasses import dataclass, field

import diffusers
import pytest
import torch

from surgery.export.check_config import judge_config, read_config
from surgery.export.config_faults import KINDS, list_faults
from surgery.export.lycoris_apply import network_class_at_start
from surgery.export.repair_config import repair_config, repaired_text

lycoris = pytest.importorskip("lycoris", reason="LyCORIS is not installed")
ATTENTION = r"transformer_blocks\.\d+\.attn[12]\..*"  # 12 blocks of 8 layers
FEED_FORWARD = r"transformer_blocks\.\d+\.ff\..*"  # 2 layers a block
BLOCKS = r"transformer_blocks\..*"
LINEAR = r"(?!pos_embed).*"  # 126 layers; pos_embed.proj is a convolution
ALL = ".*"
FULL = {"algo": "lokr", "multiplier": 1.0, "linear_dim": 10000, "linear_alpha": 1, "factor": 16, "full_matrix": True}
LAYERS = (torch.nn.Linear, torch.nn.Conv2d)
NONE = {"target_module": ["__none__"]}
STAR = {**NONE, "use_fnmatch": True}
CLAIM = (
    "target_module names the class BasicTransformerBlock, which claims all its children before their names are looked "
    'at: 24 modules that patterns name are taken by it; write a name that no class has, like "target_module": '
    '["__none__"]'
)


LEAK = (
    "the options of the last name that LyCORIS skipped leak into the next module that a class claims, so a block gets "
    "its predecessor's: transformer_blocks.1.attn1.to_q has factor 2 instead of 16 (88 modules)"
)


def blocks(numbers):
    return rf"transformer_blocks\.(?:{'|'.join(map(str, numbers))})\..*"


@dataclass(frozen=True)
class Public:
    """`meant`: a pattern of whole names -> a factor of a full LoKr, or (algorithm, rank); the first one counts."""

    config: object
    meant: dict
    as_asked: int
    built: int
    faults: list = field(default_factory=list)


def preset(top=FULL, /, **given):
    return {**top, "apply_preset": given}


def low_rank(algo, **more):
    return {"algo": algo, "multiplier": 1.0, "linear_dim": 4, "linear_alpha": 2, **more}


CONFIGS = {
    "classes with factors of their own": Public(
        preset(
            target_module=["Attention", "FeedForward"],
            module_algo_map={"Attention": {"factor": 4}, "FeedForward": {"factor": 2}},
        ),
        {ATTENTION: 4, FEED_FORWARD: 2},
        *(120, 120),
    ),
    "lora of classes": Public(
        preset(low_rank("lora"), target_module=["Attention"]), {ATTENTION: ("lora", 4)}, *(96, 96)
    ),
    "loha of classes": Public(
        preset(low_rank("loha"), target_module=["Attention", "FeedForward"]),
        {ATTENTION: ("loha", 4), FEED_FORWARD: ("loha", 4)},
        *(120, 120),
    ),
    "full matrices of a class": Public(
        preset(low_rank("full"), target_module=["FeedForward"]), {FEED_FORWARD: ("full", 4)}, *(24, 24)
    ),
    "t-lora, with keys of the trainer": Public(
        preset(
            low_rank("tlora", tlora_min_rank=1, tlora_alpha=1.5),
            **{
                "target_module": ["Attention"],
                "exclude_name": [r".*\.(attn2|to_k|to_v|to_out)", r".*\.[0-24-9]\.", r".*\.1\d"],
            },
        ),
        {r"transformer_blocks\.3\.attn1\.to_q": ("tlora", 4)},
        *(1, 1),
    ),
    "no preset": Public(FULL, {ALL: 16}, *(127, 127)),
    "a scalar and magnitudes": Public(
        preset({**FULL, "use_scalar": True, "dora_wd": True}, target_module=["Attention"]), {ATTENTION: 16}, *(96, 96)
    ),
    "names left out": Public(
        preset(target_module=["BasicTransformerBlock"], exclude_name=[r".*\.attn2\."]),
        {r".*\.attn2\..*": None, BLOCKS: 16},
        *(72, 72),
    ),
    "a container left out": Public(
        preset(
            target_module=["BasicTransformerBlock"], use_fnmatch=True, exclude_name=["*.ff", "transformer_blocks.1?"]
        ),
        {r".*\.ff\..*": None, blocks((10, 11)): None, BLOCKS: 16},
        *(80, 100),
        [
            '"*.ff" in exclude_name leaves transformer_blocks.0.ff out, and not the layers in it, which are trained '
            '(20 modules); write "transformer_blocks.0.ff.*"'
        ],
    ),
    "ranges of characters": Public(
        preset(
            **STAR,
            name_algo_map={
                "transformer_blocks.[0-7]*": {"factor": 4},
                "transformer_blocks.[8-11]*": {"factor": 2},
            },
        ),
        {blocks(range(8)): 4, blocks(range(8, 12)): 2},
        *(80, 100),
        [
            'in "transformer_blocks.[8-11]*" [8-11] is no range of numbers, but stands for one character: the pattern '
            "leaves out the blocks 8 to 9 of transformer_blocks, and takes block 1 of "
            'transformer_blocks; write "transformer_blocks.[8-9].*", "transformer_blocks.1[0-1].*"',
            'in "transformer_blocks.[0-7]*" the star stands for digits too, and takes the blocks 10 to 11 of '
            'transformer_blocks (1 such patterns); write "transformer_blocks.[0-7].*"',
        ],
    ),
    "a range beside single digits": Public(
        preset(
            **STAR,
            name_algo_map={
                "transformer_blocks.[0-9].*": {"factor": 4},
                "transformer_blocks.[10-27].*": {"factor": 8},
            },
        ),
        {blocks(range(10)): 4, blocks((10, 11)): 8},
        *(100, 100),
        [
            'in "transformer_blocks.[10-27].*" [10-27] is no range of numbers, but stands for one character: the '
            "pattern leaves out the blocks 10 to 11 of transformer_blocks, and takes the blocks 0 to 2, 7 of "
            'transformer_blocks; write "transformer_blocks.1[0-9].*", "transformer_blocks.2[0-7].*"'
        ],
    ),
    "names without a target": Public(
        preset(use_fnmatch=True, name_algo_map={"transformer_blocks.*.attn1.*": {"factor": 4}}),
        {r".*\.attn1\..*": 4},
        *(48, 127),
        [
            "79 modules that the config does not name are trained too (first pos_embed.proj), as LyCORIS takes classes "
            'of its own where "target_module" is missing; to train what is named alone, write "target_module": '
            '["__none__"]'
        ],
    ),
    "names within a class": Public(
        preset(
            target_module=["BasicTransformerBlock"],
            use_fnmatch=True,
            name_algo_map={"transformer_blocks.*.ff.*": {"factor": 2}},
        ),
        {FEED_FORWARD: 2, BLOCKS: 16},
        *(30, 120),
        [CLAIM, LEAK],
    ),
    "regular expressions": Public(
        preset(
            **NONE,
            name_algo_map={
                r"transformer_blocks\.[0-9]\..*": {"factor": 4},
                r"transformer_blocks\.1[01]\.(attn1|ff)\..*": {"factor": 2},
            },
        ),
        {blocks(range(10)): 4, r"transformer_blocks\.1[01]\.(attn1|ff)\..*": 2},
        *(112, 112),
    ),
    "plain names as regular expressions": Public(
        preset(**NONE, name_algo_map={"transformer_blocks.1.*": {"factor": 4}}),
        {blocks((1,)): 4},
        *(10, 30),
        [
            'without "use_fnmatch": true patterns are regular expressions, and "transformer_blocks.1.*" takes blocks '
            "of other numbers too (1 such patterns)"
        ],
    ),
    "a range in a regular expression": Public(
        preset(**NONE, name_algo_map={r"transformer_blocks\.[1-11]\..*": {"factor": 4}}),
        {blocks(range(1, 12)): 4},
        *(10, 10),
        [
            r'in "transformer_blocks\.[1-11]\..*" [1-11] is no range of numbers, but stands for one character: the '
            "pattern leaves out the blocks 2 to 11 of transformer_blocks; write "
            r'"transformer_blocks\.(?:[1-9]|1[0-1])(?!\d)\..*"'
        ],
    ),
    "keys of sd-scripts": Public(
        preset(unet_target_module=["BasicTransformerBlock"], unet_target_name=[]),
        {BLOCKS: 16},
        *(120, 127),
        [
            "unet_target_module, unet_target_name: SimpleTuner's loader ignores these keys, and trains 7 modules that "
            "they leave out; it reads target_module and target_name"
        ],
    ),
    "no convolutions": Public(
        preset(enable_conv=False),
        {LINEAR: 16},
        *(126, 127),
        [
            '"enable_conv": false does nothing, as create_lycoris applies its preset "full" afterwards, which sets it '
            'to true: convolutions are trained (1, first pos_embed.proj); name them in "exclude_name": '
            '["pos_embed.proj"]'
        ],
    ),
    "a preset of LyCORIS": Public(
        {**FULL, "preset": "attn-mlp"},
        {LINEAR: 16},
        *(126, 126),
        [
            '"preset": "attn-mlp" is applied after apply_preset, and names classes for sd-scripts alone, which '
            'SimpleTuner\'s loader ignores; name them in apply_preset, as "target_module"'
        ],
    ),
    "the rest before the special": Public(
        preset(
            **STAR,
            name_algo_map={"transformer_blocks.*": {"factor": 8}, "transformer_blocks.*.attn1.*": {"factor": 4}},
        ),
        {r".*\.attn1\..*": 4, BLOCKS: 8},
        *(72, 120),
        [
            '"transformer_blocks.*.attn1.*" is never the first to match, and others say otherwise (1 such patterns); '
            'LyCORIS takes the first, "transformer_blocks.*", so special patterns must come before general ones'
        ],
    ),
    "the special before the rest": Public(
        preset(
            **STAR,
            name_algo_map={"transformer_blocks.*.attn1.*": {"factor": 4}, "transformer_blocks.*": {"factor": 8}},
        ),
        {r".*\.attn1\..*": 4, BLOCKS: 8},
        *(120, 120),
        [
            "SimpleTuner's editor saves keys sorted, which changes the options of 48 modules: "
            'transformer_blocks.0.attn1.to_q is taken by "transformer_blocks.*.attn1.*" now, and then by '
            '"transformer_blocks.*"; write patterns that do not take the same modules'
        ],
    ),
    "a class of another model": Public(
        preset(target_module=["Attention", "FluxAttention"]),
        {ATTENTION: 16},
        *(96, 96),
        [
            "the model has no module of the class FluxAttention, which target_module names; did you mean "
            '"Attention" for FluxAttention?'
        ],
    ),
    "a class within the model's own": Public(
        preset(target_module=["PixArtTransformer2DModel"], module_algo_map={"Attention": {"factor": 4}}),
        {ATTENTION: 4, ALL: 16},
        *(31, 223),
        [
            "96 modules would be wrapped twice, and trained twice (first transformer_blocks.0.attn1.to_q): a class "
            "around the whole model is targeted, and module_algo_map names classes within it (Attention); target the "
            "classes of blocks instead"
        ],
    ),
    "an option of the top level in an entry": Public(
        preset(**STAR, name_algo_map={"transformer_blocks.0.*": {"factor": 4, "linear_dim": 10000}}),
        {blocks((0,)): 4},
        *(10, 10),
        [
            '"linear_dim" in 1 entries (first "transformer_blocks.0.*") is ignored, and refused by SimpleTuner\'s '
            'editor; the key is "dim"'
        ],
    ),
    "a preset of sd-scripts": Public(
        'use_fnmatch = true\nunet_target_module = []\nunet_target_name = ["transformer_blocks.*.ff.*"]\n'
        '[name_algo_map."transformer_blocks.*.ff.*"]\nalgo = "lokr"\nfactor = 4\nfull_matrix = true\n',
        {FEED_FORWARD: 4},
        *(24, 24),
    ),
    "a preset of sd-scripts with a map alone": Public(
        'use_fnmatch = true\nunet_target_module = ["FeedForward"]\n'
        '[name_algo_map."transformer_blocks.*.attn1.*"]\nalgo = "lokr"\nfactor = 4\nfull_matrix = true\n',
        {r".*\.attn1\..*": 4, FEED_FORWARD: ("lora", 4)},
        *(24, 24),
        [
            '"transformer_blocks.*.attn1.*" is not reached, as maps of sd-scripts only give options to what is named '
            "elsewhere (1 such entries); name it in unet_target_name too"
        ],
    ),
    "a training run of sd-scripts": Public(
        'pretrained_model_name_or_path = "x"\n[network]\nnetwork_module = "lycoris.kohya"\nnetwork_dim = 4\n'
        'network_alpha = 1\nnetwork_args = ["algo=loha", "preset=classes.toml"]\n',
        {ATTENTION: ("loha", 4)},
        *(96, 96),
    ),
}


def build():
    """A PixArt of 12 blocks: 10 layers a block, 7 around them, of widths that tell the factors up to 16 apart."""
    return diffusers.PixArtTransformer2DModel(
        **{"num_attention_heads": 8, "attention_head_dim": 32, "num_layers": 12, "in_channels": 4, "out_channels": 8},
        **{"sample_size": 16, "patch_size": 2, "cross_attention_dim": 256, "caption_channels": 24},
    )


@pytest.fixture(scope="module")
def model():
    """Without memory, as configs are judged."""
    with torch.device("meta"):
        return build()


@pytest.fixture(scope="module")
def weighty():
    """With weights, as LyCORIS is used."""
    torch.manual_seed(0)
    return build()


@pytest.fixture(scope="module")
def judged(model, tmp_path_factory):
    """The file of a config by its name, and its verdict, given once."""

    @functools.cache
    def judge(name):
        folder, config = tmp_path_factory.mktemp("config"), CONFIGS[name].config
        (folder / "classes.toml").write_text('unet_target_module = ["Attention"]\nunet_target_name = []\n')
        path = folder / ("config.toml" if isinstance(config, str) else "config.json")
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path, judge_config(read_config(path), model)

    return judge


def trained_by_lycoris(path, model):
    """Names of modules, with the class and the parameters that LyCORIS gives them, as often as it wraps them."""
    names = {id(module): name for name, module in model.named_modules()}
    logging.getLogger("LyCORIS").setLevel(logging.CRITICAL)
    with network_class_at_start(), contextlib.redirect_stdout(io.StringIO()):
        if path.suffix == ".toml":
            loras = by_sd_scripts(path, model).unet_loras
        else:
            loras = by_simpletuner(json.loads(path.read_text()), model).loras
    return sorted(
        (names[id(lora.org_module[0])], type(lora).__name__, sum(value.numel() for value in lora.parameters()))
        for lora in loras
    )


def by_simpletuner(config, model):
    if config.get("apply_preset"):
        lycoris.LycorisNetwork.apply_preset(config["apply_preset"])
    first = [config.pop("multiplier"), config.pop("linear_dim"), config.pop("linear_alpha")]
    for key in ("tlora_min_rank", "tlora_alpha"):
        config.pop(key, None)
    return lycoris.create_lycoris(model, *first, **config)


def by_sd_scripts(path, model):
    from lycoris.kohya import create_network

    if "network_module" in path.read_text():
        return create_network(1.0, 4, 1, None, None, model, algo="loha", preset=str(path.parent / "classes.toml"))
    return create_network(1.0, 4, 1, None, None, model, preset=str(path))


CLASSES = {"LokrModule": "lokr", "LoConModule": "lora", "LohaModule": "loha", "FullModule": "full"}
CLASSES |= {"TLoraModule": "tlora"}


def num_parameters(module, meant, config):
    """Of a module as it is meant, by hand but for the widths that a factor gives, which are LyCORIS's own."""
    from lycoris.functional import factorization

    shape = module.weight.shape
    out, into, kernel = shape[0], shape[1], shape[2:].numel()
    if isinstance(meant, int):
        (first, rest), (second, others) = factorization(out, meant), factorization(into, meant)
        extra = out + 1 if isinstance(config, dict) and config.get("dora_wd") else 0
        return first * second + rest * others * kernel + extra
    algo, rank = meant
    rank_one = {"lora": out + into, "loha": 2 * (out + into), "tlora": out + into + 1}
    return out * into + out if algo == "full" else rank * rank_one[algo]


def meant_for(name, meant):
    return next((value for pattern, value in meant.items() if re.fullmatch(pattern, name)), None)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_verdict_is_that_of_the_network_that_lycoris_builds(weighty, judged, name):
    case, (path, judgement) = CONFIGS[name], judged(name)
    real = trained_by_lycoris(path, weighty)
    assert sorted((item.name, item.num_parameters) for item in judgement.built) == [(n, count) for n, _, count in real]
    modules = {name: module for name, module in weighty.named_modules() if isinstance(module, LAYERS)}
    meant = {name: meant_for(name, case.meant) for name in modules if meant_for(name, case.meant) is not None}
    right = [
        name
        for name, what in meant.items()
        if [item[1:] for item in real if item[0] == name] == [real_of(modules[name], what, case.config)]
    ]
    assert judgement.asked.keys() == meant.keys()
    assert judgement.num_as_asked == len(right) == case.as_asked
    assert len(real) == case.built
    is_counted = all(isinstance(what, int) for what in meant.values())
    by_hand = sum(num_parameters(modules[name], what, case.config) for name, what in meant.items())
    assert judgement.num_parameters_asked == (by_hand if is_counted else None)
    wrong = {*meant, *(item[0] for item in real)} - set(right)
    assert {item.module.name for item in judgement.differences} == wrong
    assert all(judgement.cause_of(name) is not None for name in wrong)
    assert list_faults(judgement) == case.faults
    assert judgement.as_asked is (not case.faults or name == "the special before the rest")


def real_of(module, meant, config):
    algo = "lokr" if isinstance(meant, int) else meant[0]
    return next(key for key, value in CLASSES.items() if value == algo), num_parameters(module, meant, config)


@pytest.mark.parametrize("name", [name for name, case in CONFIGS.items() if case.faults])
def test_a_repaired_config_trains_what_was_meant(model, weighty, judged, name):
    case = CONFIGS[name]
    before, judgement = judged(name)
    repaired = repair_config(judgement, model)
    path = before.with_stem("repaired")
    path.write_text(repaired_text(repaired.config))
    again = judge_config(read_config(path), model)
    assert again.as_asked and list_faults(again) == []
    real = trained_by_lycoris(path, weighty)
    modules = dict(weighty.named_modules())
    assert real == sorted(
        (name, *real_of(module, meant_for(name, case.meant), case.config))
        for name, module in modules.items()
        if isinstance(module, LAYERS) and meant_for(name, case.meant) is not None
    )


def test_each_kind_of_fault_has_a_name_of_its_own():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
