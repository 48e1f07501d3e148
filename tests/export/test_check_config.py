"""Configs of others: how much of what they ask for is trained, why not, and the repair."""

import copy
import json
import os
import re
from pathlib import Path

import diffusers
import pytest

from surgery.errors import InputError
from surgery.export.check_config import judge_config, read_config
from surgery.export.config_faults import list_faults
from surgery.export.read_config import list_model_modules, read_asked
from surgery.export.repair_config import repair_config
from surgery.export.trainer_classes import say_whose_classes
from surgery.testing import build_tiny_model

pytest.importorskip("lycoris", reason="LyCORIS is not installed")
LOKR = {"algo": "lokr", "factor": 4, "full_matrix": True}


def published_file():
    """The config that the study has published; it is no part of this repository."""
    path = os.environ.get("SURGERY_PUBLISHED_CONFIG")
    beside = Path(__file__).parents[3] / "shared" / "data" / "sd35-large" / "published_peft_config.json"
    found = Path(path) if path else beside
    if not found.is_file():
        pytest.skip("the published peft_config.json is not here: SURGERY_PUBLISHED_CONFIG names it")
    return found


@pytest.fixture(scope="module")
def sd3():
    """Five JointTransformerBlocks, the last without text output."""
    return build_tiny_model("sd3")


def config_of(entries, **preset):
    """A config of these entries, of the shape that works but for what is given."""
    return {
        **{"algo": "lokr", "multiplier": 1.0, "linear_dim": 10000, "linear_alpha": 1, "factor": 1},
        **{"full_matrix": True},
        "apply_preset": {"target_module": ["__none__"], "use_fnmatch": True, **preset, "name_algo_map": entries},
    }


def synthetic():
    """The fault of the published config, small: a factor a block, and a class that claims."""
    entries = {}
    for block, factor in enumerate((1, 2, 4, 2, 4)):
        options = {"algo": "lokr", "linear_dim": 1000000, "linear_alpha": 1, "full_matrix": True}
        entries[f"transformer_blocks.{block}.ff*"] = {**options, "factor": factor}
        entries[f"transformer_blocks.{block}.*"] = {**options, "factor": 2 * factor}
    return config_of(entries, target_module=["JointTransformerBlock"])


def test_the_published_config_trains_64_of_529_modules_as_asked_and_is_repaired_to_529(meta_model):
    model = meta_model("sd3.5-large")
    judgement = judge_config(read_config(published_file()), model)
    assert (judgement.num_as_asked, len(judgement.asked), len(judgement.trained)) == (64, 529, 529)
    assert (judgement.num_parameters, judgement.num_parameters_asked) == (1_123_057_848, 765_636_738)
    claims, leak = list_faults(judgement)[:2]
    assert claims.startswith("target_module names the class JointTransformerBlock, which claims all its children")
    assert "gets its predecessor's" in leak
    critical = [  # blocks of which all modules have factor 1: asked for are 0, 31 and 35
        block
        for block in range(38)
        if {m.factor for name, m in judgement.trained.items() if f"_blocks.{block}." in name} == {1}
    ]
    assert critical == [0, 1, 32, 36]
    repaired = repair_config(judgement, model)
    assert (repaired.num_as_asked, len(repaired.asked)) == (529, 529)
    assert repaired.num_parameters == 765_636_738 and list_faults(repaired) == []


def test_a_small_config_with_the_same_fault_is_judged_and_repaired(sd3):
    judgement = judge_config(synthetic(), sd3)
    assert len(judgement.asked) == len(judgement.trained) and not judgement.as_asked
    assert 0 < judgement.num_as_asked < len(judgement.asked) / 2
    faults = "\n".join(list_faults(judgement))
    assert "target_module names the class JointTransformerBlock" in faults
    assert "gets its predecessor's" in faults and '"linear_dim" in 10 entries' in faults
    repaired = repair_config(judgement, sd3)
    assert repaired.as_asked and repaired.asked.keys() == judgement.asked.keys()
    assert {name: asked.factor for name, asked in repaired.asked.items()} == {
        name: asked.factor for name, asked in judgement.asked.items()
    }
    assert repaired.config["apply_preset"]["target_module"] == ["__none__"]
    assert repaired.config["apply_preset"]["name_algo_map"]["transformer_blocks.0.attn.*"] == {**LOKR, "factor": 2}


def test_a_repaired_config_is_left_as_it_is(sd3):
    once = repair_config(judge_config(synthetic(), sd3), sd3)
    assert repair_config(once, sd3).config == once.config


def test_judging_changes_nothing(sd3):
    config = synthetic()
    before = copy.deepcopy(config)
    repair_config(judge_config(config, sd3), sd3)
    assert config == before


def test_the_shape_that_works_has_no_fault(sd3):
    judgement = judge_config(config_of({"transformer_blocks.1.*": LOKR}), sd3)
    assert judgement.as_asked and list_faults(judgement) == []
    assert {name.split(".")[1] for name in judgement.trained} == {"1"}


def test_classes_alone_do_what_they_say(sd3):
    """The default of SimpleTuner's documentation: classes with options of their own."""
    config = {
        **{"algo": "lokr", "multiplier": 1.0, "linear_dim": 10000, "linear_alpha": 1, "factor": 8},
        "apply_preset": {
            "target_module": ["Attention", "FeedForward"],
            "module_algo_map": {"Attention": {"factor": 2}, "FeedForward": {"factor": 4}},
        },
    }
    judgement = judge_config(config, sd3)
    assert judgement.as_asked and list_faults(judgement) == []
    assert judgement.trained["transformer_blocks.1.attn.to_q"].factor == 2
    assert judgement.trained["transformer_blocks.1.ff.net.2"].factor == 4


def test_a_config_without_a_preset_trains_every_linear_layer(sd3):
    judgement = judge_config({"algo": "lokr", "linear_dim": 10000, "factor": 2, "full_matrix": True}, sd3)
    assert judgement.as_asked and len(judgement.trained) == len(list_model_modules(sd3))


def test_what_only_a_class_names_is_still_trained_after_the_repair(sd3):
    config = config_of({"transformer_blocks.1.ff.*": LOKR}, target_module=["JointTransformerBlock"])
    judgement = judge_config(config, sd3)
    repaired = repair_config(judgement, sd3)
    assert repaired.asked.keys() == judgement.asked.keys()
    assert repaired.trained["transformer_blocks.1.ff.net.2"].factor == 4
    assert repaired.trained["transformer_blocks.1.attn.to_q"].factor == 1


FAULTS = {
    "prefix": (
        config_of({"transformer.transformer_blocks.1.*": LOKR}),
        '"transformer.transformer_blocks.1.*" matches nothing; write "transformer_blocks.1.*"',
    ),
    "container": (
        config_of({"transformer_blocks.1": LOKR}),
        '"transformer_blocks.1" matches nothing; write "transformer_blocks.1.*"',
    ),
    "regex": (
        config_of({"transformer_blocks.1.*": LOKR}, use_fnmatch=False),
        None,
    ),
    "dropout": (
        config_of({"transformer_blocks.1.*": {**LOKR, "dropout": 0.1}}),
        '"dropout" in 1 entries (first "transformer_blocks.1.*") makes LyCORIS fail with a TypeError',
    ),
    "low rank": (
        {**config_of({"transformer_blocks.1.*": {"algo": "lokr", "factor": 2, "linear_dim": 2}}), "full_matrix": False},
        '"linear_dim" in 1 entries (first "transformer_blocks.1.*") is ignored',
    ),
    "multiplier": (
        {**config_of({"transformer_blocks.1.*": LOKR}), "multiplier": 0.5},
        "multiplier is 0.5; SimpleTuner takes the integer of it, and then nothing is trained",
    ),
    "order": (
        config_of({"transformer_blocks.1.*": LOKR, "transformer_blocks.1.ff.*": {**LOKR, "factor": 2}}),
        '"transformer_blocks.1.ff.*" is never the first to match, and others say otherwise (1 such patterns)',
    ),
    "empty list": (
        config_of({"transformer_blocks.1.*": LOKR}, target_module=[]),
        "target_module is an empty list, which SimpleTuner's editor deletes",
    ),
    "unknown class": (
        config_of({"transformer_blocks.1.*": LOKR}, target_module=["FluxTransformerBlock"]),
        "the model has no module of the class FluxTransformerBlock, which target_module names",
    ),
    "unknown key": (
        config_of({"transformer_blocks.1.*": {**LOKR, "fctor": 2}}),
        '"fctor" in 1 entries (first "transformer_blocks.1.*") is ignored, and refused by SimpleTuner\'s editor',
    ),
    "large factor": (
        config_of({"transformer_blocks.1.*": {**LOKR, "factor": 64}}),
        "factor 64 is above 32; some layers can't be loaded again with it",
    ),
    "zero multiplier": (
        {**config_of({"transformer_blocks.1.*": LOKR}), "multiplier": 0},
        "multiplier is 0; SimpleTuner takes the integer of it, and then nothing is trained",
    ),
    "nothing": (
        config_of({"blocks.1.*": LOKR}),
        "no pattern, name or class of the config is in the model: nothing would be trained",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_and_repaired(sd3, name):
    config, message = FAULTS[name]
    judgement = judge_config(config, sd3)
    faults = list_faults(judgement)
    assert message is None or any(fault.startswith(message) for fault in faults), faults
    if name == "nothing":
        with pytest.raises(InputError, match="can't be repaired: nothing that it names is in the model"):
            repair_config(judgement, sd3)
        return
    repaired = repair_config(judgement, sd3)
    assert repaired.as_asked and {name.split(".")[1] for name in repaired.asked} == {"1"}
    assert not list_faults(repaired) or name in ("order", "large factor")  # which only their author can decide


@pytest.mark.parametrize(
    ("changes", "entry", "message"),
    [
        ({}, {"factor": 0}, 'the entry "transformer_blocks.1.*" has the factor 0, which LyCORIS turns into another'),
        ({}, {"factor": -3}, 'the entry "transformer_blocks.1.*" has the factor -3, which LyCORIS turns into'),
        ({}, {"factor": "4"}, "has the factor '4'; write an integer"),
        ({}, {"factor": True}, "has the factor True; write an integer"),
        ({"factor": 2.5}, {}, "the top level has the factor 2.5; write an integer"),
        ({"algo": "zzz"}, {}, "the top level asks for the algorithm 'zzz', which LyCORIS does not have"),
        ({"fator": 4}, {}, 'LyCORIS has no option "fator", and drops it; did you mean "factor"?'),
    ],
)
def test_values_that_say_something_else_are_told(sd3, changes, entry, message):
    config = {**config_of({"transformer_blocks.1.*": {**LOKR, **entry}}), **changes}
    judgement = judge_config(config, sd3)
    assert not judgement.as_asked
    assert any(message in fault for fault in list_faults(judgement)), list_faults(judgement)
    if "fator" in changes:
        assert "fator" not in repair_config(judgement, sd3).config
    else:  # only the author can say which was meant
        with pytest.raises(InputError, match=r"can't be repaired: .*(factor|algorithm)"):
            repair_config(judgement, sd3)


def test_norms_that_are_trained_too_are_counted(sd3):
    plain = judge_config(config_of({"transformer_blocks.1.*": LOKR}), sd3)
    judgement = judge_config(
        {**config_of({"transformer_blocks.1.*": LOKR}, target_module=["RMSNorm"]), "train_norm": True}, sd3
    )
    norms = {name: item for name, item in judgement.trained.items() if item.algo == "norm"}
    assert norms and judgement.num_parameters == plain.num_parameters + sum(n.num_parameters for n in norms.values())


def test_a_failure_of_lycoris_is_told(sd3):
    judgement = judge_config(FAULTS["dropout"][0], sd3)
    assert judgement.failure is not None and "TypeError" in judgement.failure
    assert (judgement.num_as_asked, judgement.as_asked) == (0, False)


def test_regular_expressions_that_take_other_blocks_are_noticed_and_repaired(meta_model):
    model = meta_model("dit-xl-2")
    judgement = judge_config(config_of({"transformer_blocks.1.*": LOKR}, use_fnmatch=False), model)
    assert {name.split(".")[1] for name in judgement.trained} == {"1", *map(str, range(10, 20))}
    (fault,) = list_faults(judgement)
    assert fault.startswith(
        'without "use_fnmatch": true patterns are regular expressions, and "transformer_blocks.1.*"'
    )
    repaired = repair_config(judgement, model)
    assert {name.split(".")[1] for name in repaired.trained} == {"1"}


def test_an_exact_name_wins_over_a_pattern_before_it(sd3):
    name = "transformer_blocks.1.ff.net.2"
    config = config_of({"transformer_blocks.1.*": LOKR, name: {**LOKR, "factor": 2}})
    asked = read_asked(config, list_model_modules(sd3))
    assert (asked[name].factor, asked[name].by) == (2, name)
    assert judge_config(config, sd3).as_asked


def test_excluded_names_are_not_trained(sd3):
    config = config_of({"transformer_blocks.1.*": LOKR}, exclude_name=["*.ff.*"])
    judgement = judge_config(config, sd3)
    assert judgement.as_asked and not any(".ff." in name for name in judgement.trained)


@pytest.mark.parametrize(
    ("classes", "own"),
    [
        (
            ["Attention"],
            "SimpleTuner 4.10.1 has a FluxTransformer2DModel of its own, in which FluxAttention is called Attention",
        ),
        (["Linear"], None),
        (["__none__"], None),
    ],
)
def test_whose_classes_were_judged_is_said_where_classes_are_named(classes, own):
    """SimpleTuner's own Flux has the class that diffusers' lacks: it is named, and is a fault by diffusers' classes."""
    judgement = judge_config({**config_of({}), "apply_preset": {"target_module": classes}}, build_tiny_model("flux"))
    judged = f"judged by the classes of diffusers {diffusers.__version__}; {own}"
    assert say_whose_classes(judgement) == (judged if own else None)
    absent = [fault for fault in list_faults(judgement) if "no module of the class Attention" in fault]
    assert len(absent) == (own is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no JSON object"),
        ('{"algo": "lokr", "algo": "lora"}', 'the key "algo" is there twice in one object'),
        ('{"algo": "lokr", "factor": NaN}', "NaN is no JSON; write a number"),
        ('{"algo": "lokr"', "is no JSON"),
        (
            '{"model_type": "lora", "lycoris_config": "l.json"}',
            'has neither "algo" nor "apply_preset"; it names one: l.json',
        ),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path, text, message):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_config(file)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ([], "apply_preset is no JSON object"),
        ("x", "apply_preset is no JSON object"),
        ({"target_module": "Attention"}, "apply_preset.target_module is no list of names"),
        ({"name_algo_map": {"a": 4}}, "apply_preset.name_algo_map does not map names to options"),
        ({"name_algo_map": {"(": {}}}, 'the pattern "(" is no regular expression'),
        ({"name_algo_map": {"t.*": {"factor": "four"}}}, 'the entry "t.*" has a factor or dim that is no number'),
    ],
)
def test_presets_of_the_wrong_kind_are_refused(sd3, preset, message):
    config = {"algo": "lokr", "linear_dim": 4, "apply_preset": preset}
    with pytest.raises(InputError, match=re.escape(message)):
        judge_config(json.loads(json.dumps(config)), sd3)
