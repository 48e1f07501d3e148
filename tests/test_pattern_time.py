"""A pattern that takes too long is told by its name, and costs its seconds and no more."""

import json
import re
import time

import pytest

from surgery.checkpoint.adapter_metadata import PEFT_KEY, remap_metadata
from surgery.errors import InputError
from surgery.export.check_config import judge_config
from surgery.pattern_time import refuse_slow_patterns
from surgery.testing import build_tiny_model

LONG = "a" * 40
SLOW = ["(a+)+$", "(a|a)*$", "(.*a){20}$", r"(a*)*\.b"]
NAMES = [f"transformer_blocks.{index}.attn.to_{part}" for index in range(60) for part in "qkv"]


@pytest.mark.parametrize("pattern", SLOW)
def test_a_slow_pattern_is_named(pattern):
    started = time.monotonic()
    with pytest.raises(InputError, match=re.escape(f'the pattern "{pattern}" takes over 0.2 s')):
        refuse_slow_patterns([r"blocks\.1\..*", pattern, "x"], [f"{LONG}!"], seconds=0.2)
    assert time.monotonic() - started < 30


def test_sane_patterns_of_a_large_config_pass():
    patterns = [rf"transformer_blocks\.{index}\.(attn|ff)\..*" for index in range(200)]
    refuse_slow_patterns([*patterns, ".*to_q$", "(a+)+$", "[", "(?:"], NAMES, seconds=0.2)


def test_no_pattern_is_no_process(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    refuse_slow_patterns([], NAMES)


SLOW_HERE = "(?:[a-z_]+)+!"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("surgery.pattern_time.SECONDS", 0.2)


@pytest.mark.parametrize(
    ("key", "prefix"), [("name_algo_map", "transformer."), ("target_name", ""), ("exclude_name", "")]
)
def test_a_config_with_a_slow_pattern_is_refused(key, prefix, impatient):
    """Also one that is slow only without the prefix that does not belong there."""
    pattern = f"{prefix}{SLOW_HERE}"
    value = {pattern: {"factor": 4}} if key == "name_algo_map" else [pattern]
    config = {"algo": "lokr", "apply_preset": {"target_module": ["__none__"], key: value}}
    with pytest.raises(InputError, match=r"the pattern .* takes over 0.2 s"):
        judge_config(config, build_tiny_model("sd3"))


def test_a_config_of_shell_patterns_is_matched_as_it_is(monkeypatch):
    """`fnmatch` does not go back, however many stars there are."""
    monkeypatch.setattr("subprocess.run", None)
    preset = {"target_module": ["__none__"], "use_fnmatch": True, "name_algo_map": {"*a*" * 30 + "!": {"factor": 4}}}
    judgement = judge_config({"algo": "lokr", "apply_preset": preset}, build_tiny_model("sd3"))
    assert not judgement.asked


@pytest.mark.parametrize("name", ["rank_pattern", "alpha_pattern"])
def test_an_adapter_with_a_slow_pattern_is_refused(name, impatient):
    module = f"transformer_blocks.0.{LONG}"
    config = {"target_modules": [LONG], name: {"to_q": 4, "(a+)+!": 8}}
    with pytest.raises(InputError, match=r"takes over 0.2 s to be matched"):
        remap_metadata({PEFT_KEY: json.dumps(config)}, {module: [module]}, [module])
