"""One recorded call teaches what a row teaches: of that model alone, and only from the user's own, sound file."""

import json

import diffusers
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

import surgery
from surgery.anatomy.from_model import read_anatomy
from surgery.calls.example_inputs import SHAPES, SMALL_SIZES, call_key, example_call, known_call
from surgery.calls.kept_calls import SHELF
from surgery.errors import InputError
from surgery.pipelines.learn import learn_call, learn_unless_known


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ff = nn.Linear(width, width)

    def forward(self, hidden_states):
        return hidden_states + self.ff(hidden_states)


class OwnTransformer(ModelMixin, ConfigMixin):
    """A class that nobody knows: one of its arguments is a dict of a kind of its own."""

    @register_to_config
    def __init__(self, in_channels: int = 6, width: int = 10, num_layers: int = 3):
        super().__init__()
        self.embed = nn.Linear(in_channels, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(num_layers))

    def forward(self, hidden_states, packed, return_dict=True):
        hidden_states = self.embed(hidden_states) + packed["shift"][:, None]
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return (hidden_states,)


class OwnPipeline:
    """What a pipeline does, as far as its transformer is concerned."""

    def __init__(self, transformer, most=2):
        self.transformer, self.most = transformer, most

    def __call__(self, prompt, generator, output_type, tokens=5):
        if len(prompt) > self.most:
            raise ValueError("one prompt at a time")
        batch, width = len(prompt), self.transformer.config.width
        return self.transformer(torch.zeros(batch, tokens, 6), packed={"shift": torch.zeros(batch, width)})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "cache"))
    for known in ("_FOUND", "_TRIED", "_LENT"):
        monkeypatch.setattr(f"surgery.calls.example_inputs.{known}", {})
    return tmp_path / "cache"


@pytest.fixture
def own():
    torch.manual_seed(0)
    return OwnTransformer().eval()


def test_a_model_that_nothing_is_known_of_is_known_after_one_call(cache, own):
    before = read_anatomy(own)
    assert (before.stacks[0].streams, before.has_example_inputs) == (None, False)
    learn_call(OwnPipeline(own), {})
    after = read_anatomy(own)
    assert after.stacks[0].streams == ("hidden_states",) and after.known_from.startswith("call 20")
    assert after.stacks[0].kinds[0].find_component("ff").refusal is None
    assert dict(after.example) == {"batch": 2, "image": 5}


def test_a_call_is_of_one_class_config_and_version(cache, own, monkeypatch):
    learn_call(OwnPipeline(own), {})
    assert known_call(OwnTransformer(num_layers=4)).row is None
    monkeypatch.setattr("surgery.calls.kept_calls.diffusers_version", lambda: "99")
    assert known_call(own).row is None


def test_a_pipeline_that_takes_one_prompt_is_given_one(cache, own):
    assert learn_call(OwnPipeline(own, most=1), {}).sizes["batch"] == 1


def test_a_pipeline_that_refuses_is_told(cache, own):
    with pytest.raises(InputError, match="OwnPipeline refuses the call: one prompt at a time"):
        learn_call(OwnPipeline(own, most=0), {})
    learn_unless_known(OwnPipeline(own, most=0), {})  # the run itself will say it


def test_a_pipeline_that_never_runs_its_transformer_is_told(cache, own):
    pipe = OwnPipeline(own)
    pipe_class = type("Idle", (OwnPipeline,), {"__call__": lambda _self, prompt, **_: None})
    pipe.__class__ = pipe_class
    with pytest.raises(InputError, match="Idle never runs its transformer"):
        learn_call(pipe, {})


def test_what_is_recorded_is_recorded_once_by_runs(cache, own, monkeypatch):
    learn_unless_known(OwnPipeline(own), {})
    monkeypatch.setattr("surgery.pipelines.learn.learn_call", None)
    learn_unless_known(OwnPipeline(own), {})
    assert known_call(own).is_recorded


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"row": 3, "sizes": {}, "known_from": "call x"}', "\x00"])
def test_a_damaged_file_is_as_if_it_were_not_there(cache, own, damage):
    learn_call(OwnPipeline(own), {})
    (cache / SHELF / f"{call_key(own)}.json").write_text(damage)
    assert not known_call(own).is_recorded


def test_what_others_may_have_written_is_not_believed(cache, own):
    learn_call(OwnPipeline(own), {})
    assert known_call(own).is_recorded
    (cache / SHELF / f"{call_key(own)}.json").chmod(0o666)
    assert not known_call(own).is_recorded


def test_a_row_that_makes_no_sense_is_told_and_makes_no_graph(cache, own):
    learn_call(OwnPipeline(own), {})
    file = cache / SHELF / f"{call_key(own)}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "row": {"hidden_states": "batch nonsense"}}))
    with pytest.raises(InputError, match="no example inputs can be made for the OwnTransformer of this config"):
        example_call(own)


def test_a_call_that_differs_from_the_recorded_one_runs_right(cache, own, tmp_path):
    """The recorded call only says what is known beforehand: the graph is the real call's own."""
    spec = tmp_path / "spec.yaml"
    spec.write_text("surgery: v1\noperations:\n  - skip: blocks[1]\n")
    learn_call(OwnPipeline(own), {})
    variant = surgery.apply(own, spec)
    given = torch.randn(3, 8, 6), {"shift": torch.randn(3, 10)}
    edited = OwnTransformer().eval()
    edited.load_state_dict(own.state_dict())
    edited.blocks = nn.ModuleList([edited.blocks[0], edited.blocks[2]])
    with torch.no_grad():
        assert torch.equal(variant(*given)[0], edited(*given)[0])


def test_a_row_by_hand_that_does_not_run_comes_after_a_recorded_call(cache, monkeypatch):
    monkeypatch.setitem(SHAPES, "OwnTransformer", {"hidden_states": "batch image in_channels", "packed": "batch width"})
    own = OwnTransformer().eval()
    said = "the example inputs that ship for OwnTransformer do not fit this config: IndexError"
    before = read_anatomy(own)
    assert not known_call(own).works and before.trace_failure.startswith(said) and said in before.why_no_inputs
    learn_unless_known(OwnPipeline(own), {})
    assert known_call(own).is_recorded
    assert read_anatomy(own).stacks[0].streams == ("hidden_states",)


def test_a_row_by_hand_that_runs_comes_first_at_small_sizes_where_large_ones_do_not_fit(cache):
    config = {"num_attention_heads": 1, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "text_dim": 8}
    wan = diffusers.WanTransformer3DModel(**config, freq_dim=8, ffn_dim=8, num_layers=2, rope_max_seq_len=32).eval()
    assert (known_call(wan).known_from, known_call(wan).sizes) == ("row", SMALL_SIZES)
    assert read_anatomy(wan).stacks[0].streams == ("hidden_states",)
