"""Training configs: those of the repository are whole, and every fault of one is told with its place."""

from pathlib import Path

import pytest
import torch

from surgery.dit import DiT, study_config
from surgery.errors import InputError, SpecError
from surgery.training.dit.config import SIDES
from surgery.training.dit.read_config import load_config, read_config

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
STUDY = {
    "in_context": 39_951_376,
    "cross_attention": 55_723_024,
    "adaln_zero_12": 58_862_608,
    "adaln_zero_14": 68_582_416,
    "freq_gate": 68_318_224,
}
WHOLE = """train: v1
model: {conditioning: freq_gate, hidden_size: 64, num_layers: 4, num_attention_heads: 4}
data: {pictures: digits}
training: {steps: 100}
"""


def faults_of(text):
    with pytest.raises(SpecError, match=r"train\.yaml:") as error:
        read_config(text)
    return [fault.removeprefix("train.yaml:") for fault in error.value.faults]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_of_the_repository_is_whole_and_has_a_title(path):
    config = load_config(path)
    assert config.title and config.model["conditioning"] in path.stem
    assert (config.data.pictures in SIDES) == (path.parent.name in SIDES)
    is_gated = config.model["conditioning"] == "freq_gate" and not path.stem.endswith("plain")
    assert bool(config.settings.weights) == is_gated


def test_all_conditionings_are_compared_on_each_kind_of_picture():
    stems = {kind: {path.stem for path in CONFIGS if path.parent.name == kind} for kind in ("afhq", "digits", "emoji")}
    assert stems["afhq"] == STUDY.keys()
    assert all(
        kinds >= {"in_context", "cross_attention", "adaln_zero", "freq_gate"}
        for kinds in (stems["digits"], stems["emoji"])
    )


@pytest.mark.parametrize("name", STUDY)
def test_a_config_of_the_study_builds_its_model_to_the_digit(name):
    model = load_config(ROOT / "configs" / "afhq" / f"{name}.yaml").model
    with torch.device("meta"):
        built = DiT(sample_size=16, in_channels=4, pooled_projection_dim=256, **model)
    assert sum(value.numel() for value in built.parameters()) == STUDY[name]
    wanted = study_config(model["conditioning"], num_layers=model["num_layers"])
    assert {field: built.config[field] for field in wanted} == wanted


def test_all_faults_are_told_at_once_with_their_places():
    text = """train: v2
data: {pictures: digits, sizes: 9, crop: maybe}
model: {conditionin: freq_gate, hidden_size: 66, affine_norms: 3}
training: {learning_rate: -1, ema: 2, warmup: x}
losses: {spectral: -0.1}
sampling: {every: 7}
validaton: 3
autoencoder: demo
"""
    found = faults_of(text)
    assert [fault.partition(": ")[0] for fault in found] == [
        *("1:8", "2:26", "2:42", "3:9", "3:64", "4:1", "4:27", "4:36", "4:47", "5:20", "6:19", "7:1", "7:12", "8:14"),
    ]
    assert found[1].endswith('did you mean "size"?') and found[3].endswith('did you mean "conditioning"?')
    assert found[5].endswith("training has no steps; write how many, like steps: 10000")
    assert found[6].endswith("the learning rate is -1.0; write more than 0")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("digits", "digits, size: 9", "3:32: a sample_size of 9 can't be cut into patches of 2"),
        ("heads: 4", "heads: 5", "2:47: 5 heads do not divide a hidden_size of 64; write a number of heads that does"),
        ("freq_gate", "freq_gat", '2:23: there is no conditioning "freq_gat" of a DiT; .*did you mean "freq_gate"?'),
        (
            "freq_gate",
            "freq_gate, unused_layers: true",
            "2:49: unused_layers are of encoded texts; write a text_encoder",
        ),
        ("digits", "somewhere", "3:1: data has no size; write the side of the pictures in pixels"),
        ("digits", "digits, caption: 'a {class}'", "3:35: a caption is read by a text_encoder, and there is none"),
        (
            "digits",
            "digits, caption: 'a class'}\ntext_encoder: demo\nlosses: {",
            "the caption has no {class}; write it",
        ),
        (
            "digits",
            "digits}\ntext_encoder: demo\nlosses: {",
            '3:1: digits have no captions; write one, like caption: "the',
        ),
        ("steps: 100", "steps: 0", "4:19: steps is 0; write an integer of at least 1"),
        ("steps: 100", "steps: 100, ema: 2", "4:29: the ema is 2.0; write a number between 0 and 1"),
        ("steps: 100", "steps: 9, precision: fp8", '4:33: there is no precision "fp8"; there are no, bf16, fp16'),
        ("digits", "digits}\nvalidation: {share: 1.5", "share is 1.5; write a number from 0 to below 1"),
        ("train: v1", "", "2:1: the version is missing; write train: v1"),
        ("train: v1", "surgery: v1", "1:1: this is a spec; a training config begins with `train: v1`"),
        (WHOLE, " \n", "1:1: the file is empty; a training config begins with `train: v1`"),
        (WHOLE, "- 3", "1:1: the config is a list; write a mapping that begins with train: v1"),
        ("train: v1", "train: v1\n\tx: 3", "a tab is used for indentation"),
    ],
    ids=lambda value: value[:30].strip(),
)
def test_a_fault_says_where_and_what_to_write(old, new, said):
    (found,) = faults_of(WHOLE.replace(old, new))
    assert said.split(".*")[0] in found and said.split(".*")[-1] in found


def test_the_command_line_overrides_steps_and_seed_and_nothing_else():
    config = read_config(WHOLE)
    other = config.overridden(steps=7, seed=3)
    assert (other.settings.steps, other.settings.seed) == (7, 3)
    assert config.overridden() == config


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml can't be read: No such file"):
        load_config(tmp_path / "nowhere.yaml")
