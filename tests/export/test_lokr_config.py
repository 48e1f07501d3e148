"""Factors -> the JSON: the shape that works, the published file to the byte, and both built by LyCORIS."""

import json
import os
import re
from fnmatch import fnmatch, translate
from pathlib import Path

import pytest

from surgery.errors import InputError
from surgery.export.factors import list_trainable
from surgery.export.lokr_config import config_text, lokr_config, plan_lokr, published_config
from surgery.export.name_patterns import cover_names

MULTIPLIERS = {"norm1": 1, "norm1_context": 1, "ff": 1, "ff_context": 1, "*": 2}


def published_file():
    """The config that the study has published; it is no part of this repository."""
    path = os.environ.get("SURGERY_PUBLISHED_CONFIG")
    beside = Path(__file__).parents[3] / "shared" / "data" / "sd35-large" / "published_peft_config.json"
    found = Path(path) if path else beside
    if not found.is_file():
        pytest.skip("the published peft_config.json is not here: SURGERY_PUBLISHED_CONFIG names it")
    return found


@pytest.fixture(scope="module")
def sd35(meta_model):
    return meta_model("sd3.5-large")


@pytest.fixture(scope="module")
def plan(study, sd35):
    return plan_lokr({study.STACK: study.FACTORS}, list_trainable(sd35, [study.STACK]), MULTIPLIERS)


def test_the_published_layout_is_the_published_file(study):
    text = config_text(published_config({study.STACK: study.FACTORS}, ["JointTransformerBlock"]), "published")
    assert text == published_file().read_text()


def test_the_published_layout_has_four_rules_a_block_and_no_line_break_at_its_end(study):
    config = published_config({study.STACK: study.FACTORS}, ["JointTransformerBlock"])
    rules = config["apply_preset"]["name_algo_map"]
    assert len(rules) == 152 and not config_text(config, "published").endswith("\n")
    assert [rules[f"transformer_blocks.4.{name}"]["factor"] for name in ("norm1*", "norm1_context*", "ff*", "*")] == [
        *(9, 9, 9, 18)
    ]


def test_a_block_of_two_factors_has_a_rule_for_each_component(plan):
    patterns = [rule.pattern for rule in plan.rules if rule.pattern.startswith("transformer_blocks.1.")]
    assert patterns == [
        f"transformer_blocks.1.{name}.*" for name in ("norm1", "norm1_context", "ff", "ff_context", "attn")
    ]


def test_no_module_is_taken_by_two_rules(meta_model):
    """Whatever is multiplied: a component, a layer of one, a layer that is a component, or components in each other.

    All rules, against the modules of the last block and of three whose numbers are in one another.
    """
    for name, stack, multipliers in (
        ("sd3.5-medium", "transformer_blocks", {"attn": 2, "attn.to_out": 3, "norm1": 5, "*": 4}),
        ("flux.1-schnell", "single_transformer_blocks", {"proj_mlp": 2, "attn.to_q": 3}),
    ):
        modules = list_trainable(meta_model(name), [stack])
        plan = plan_lokr({stack: [2] * 38}, modules, multipliers)
        rules = [(re.compile(translate(rule.pattern)), rule.factor) for rule in plan.rules]  # fnmatch keeps 256
        looked_at = {1, 2, 12, max(module.block for module in modules)}
        for module in (module for module in modules if module.block in looked_at):
            factor = plan.asked[module]
            taken = [of for pattern, of in rules if pattern.match(module.name)]
            assert taken == [factor], (module.name, taken)


def test_patterns_and_plain_names_cover_what_is_wanted_and_nothing_else():
    names = ["b.0.attn", "b.0.attn.q", "b.0.attn_two.q", "b.0.ff", "b.10.ff"]
    assert cover_names(names[:2], names, "b.0") == ["b.0.attn", "b.0.attn.*"]
    assert cover_names([names[0]], names, "b.0") == ["b.0.attn"]
    assert cover_names(names[:4], names, "b.0") == ["b.0.*"]
    assert cover_names(names[:4], names) == ["b.0.*"]
    for number in range(2 ** len(names)):
        wanted = [name for place, name in enumerate(names) if number >> place & 1]
        patterns = cover_names(wanted, names)
        assert [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)] == wanted


def test_patterns_that_would_match_nothing_are_not_written(plan):
    """The last block has no ff_context."""
    assert "transformer_blocks.37.ff.*" in {rule.pattern for rule in plan.rules}
    assert "transformer_blocks.37.ff_context.*" not in {rule.pattern for rule in plan.rules}


def test_every_module_of_every_block_is_planned(plan):
    assert len(plan.asked) == 529
    assert {module.block for module in plan.asked} == set(range(38))


def test_a_component_that_is_a_layer_itself_goes_by_its_plain_name(meta_model):
    modules = list_trainable(meta_model("flux.1-schnell"), ["single_transformer_blocks"])
    plan = plan_lokr({"single_transformer_blocks": [4] * 38}, modules, {"proj_mlp": 2})
    patterns = [
        rule.pattern.removeprefix("single_transformer_blocks.1.") for rule in plan.rules if ".1." in rule.pattern
    ]
    assert patterns == ["norm.*", "proj_out", "attn.*", "proj_mlp"]


def test_factors_above_32_are_capped_and_named(study, sd35):
    modules = list_trainable(sd35, [study.STACK])
    plan = plan_lokr({study.STACK: [20] * 38}, modules, {"*": 2})
    assert {rule.factor for rule in plan.rules} == {32}
    assert plan.capped == tuple(f"transformer_blocks.{block}.*" for block in range(38))


def test_a_multiplier_of_nothing_is_refused(study, sd35):
    message = 'no block has linear layers in "mlp"; blocks have norm1, norm1_context, attn, ff, ff_context'
    with pytest.raises(InputError, match=re.escape(message)):
        plan_lokr({study.STACK: study.FACTORS}, list_trainable(sd35, [study.STACK]), {"mlp": 2})


def test_the_shape_that_works(plan):
    config = lokr_config(plan.rules)
    preset = config["apply_preset"]
    assert list(config) == [
        *("algo", "multiplier", "linear_dim", "linear_alpha", "factor", "full_matrix", "apply_preset")
    ]
    assert (preset["target_module"], preset["use_fnmatch"]) == (["__none__"], True)
    assert preset["name_algo_map"]["transformer_blocks.0.attn.*"] == {"algo": "lokr", "factor": 2, "full_matrix": True}
    assert json.loads(config_text(config)) == config and config_text(config).endswith("}\n")
