"""A folder with two transformers is inspected, checked, compiled and drawn with both."""

import ast
import json
import re

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from two_transformers import CALL, draw, wan_pipeline

import surgery
from surgery.errors import InputError
from surgery.experiment.own_model import find_own_model
from surgery.plan.paired import model_plan_from_json
from surgery.profiles.profile_file import read_profile, write_profile

SPEC = """surgery: v1
model: {model}
operations:
  - skip: "*/blocks[1]"
  - skip: transformer_2/blocks[0]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a saved pipeline."""
    folder = tmp_path_factory.mktemp("models") / "wan"
    wan_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def spec(tmp_path, model):
    """A spec that edits both."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(model=model))
    return path


def test_both_are_inspected(model, surgery_command):
    assert surgery_command("inspect", model, "--names").stdout.splitlines()[0] == "blocks[0:4]"
    assert "transformer_2/blocks[0:3]" in surgery_command("inspect", model, "--names").stdout.splitlines()
    shown = surgery_command("inspect", model).stdout
    assert "transformer/: WanTransformer3DModel" in shown and "transformer_2/: WanTransformer3DModel" in shown
    document = json.loads(surgery_command("inspect", model, "--json").stdout)
    assert [len(each["stacks"][0]["kind_of"]) for each in (document, document["transformer_2"])] == [4, 3]
    assert surgery.inspect(model, part="transformer_2").stacks[0].num_blocks == 3


def test_both_are_checked_with_what_each_saves(spec, surgery_command):
    shown = surgery_command("check", spec).stdout
    assert "transformer:\n" in shown and "transformer_2:\n" in shown and "both: saves " in shown
    document = json.loads(surgery_command("check", spec, "--json").stdout)
    assert document["plan"]["transformers"]["transformer_2"]["schedules"][0]["removed"] == [0, 1]
    first, second = (document["transformers"][part]["cost"]["block_executions"] for part in document["transformers"])
    verdicts = [each["backends"]["checkpoint"]["answer"] for each in document["transformers"].values()]
    assert verdicts == ["yes", "yes"]
    assert (first, second) == ({"before": 4, "after": 3}, {"before": 3, "after": 1})


def test_what_runs_is_counted_in_the_steps_that_each_runs(model, tmp_path, surgery_command):
    """Of six steps two are at or above 0.7, and run the first; its window [0.9, 1] holds one of these two."""
    spec = tmp_path / "spec.yaml"
    text = "skip: '*/blocks[0]', when: {timesteps: [0.9, 1]}}\n  - {skip: 'transformer_2/blocks[1]'"
    spec.write_text(f"surgery: v1\nmodel: {model}\noperations:\n  - {{{text}}}\n")

    def counted(*options):
        document = json.loads(surgery_command("check", spec, "--json", *options).stdout)
        parts = document["transformers"].values()
        return [each["cost"]["block_executions"]["after"] for each in parts], document["cost"]

    parts, both = counted("--steps", "6")
    assert parts == [3.5, 2]
    assert both["share_of_run"] == {"transformer": 2 / 6, "transformer_2": 4 / 6}
    assert both["block_executions"] == {"before": pytest.approx(20 / 6), "after": pytest.approx(15 / 6)}
    parts, both = counted()
    assert parts == [pytest.approx(4 - 1 / 3), 2], "0.9 to 1 is a third of 0.7 to 1"
    assert both["share_of_run"] == {"transformer": pytest.approx(0.3), "transformer_2": pytest.approx(0.7)}
    assert "in its 2 of 6 steps" in surgery_command("check", spec, "--steps", "6").stdout
    assert "over its part of the noise range, 0.7 to 1" in surgery_command("check", spec).stdout
    index = model / "model_index.json"
    kept = index.read_text()
    try:
        index.write_text(kept.replace('"boundary_ratio": 0.7', '"boundary_ratio": null'))
        assert counted()[1]["share_of_run"] == {"transformer": 1, "transformer_2": 0}
        index.write_text(kept.replace('"boundary_ratio": 0.7,', ""))
        assert counted()[1]["share_of_run"] == {}
    finally:
        index.write_text(kept)


def test_both_are_drawn_and_compared(spec, model, tmp_path, surgery_command):
    svg, other = tmp_path / "both.svg", tmp_path / "other.yaml"
    shown = surgery_command("check", spec, "--svg", svg, "--show", "graph").stdout
    assert "transformer:\n" in shown and "transformer_2:\n" in shown
    assert ">transformer/blocks<" in svg.read_text() and ">transformer_2/blocks<" in svg.read_text()
    code = surgery_command("check", spec, "--show", "code").stdout
    assert [node.name for node in ast.parse(code).body] == ["forward", "forward"]
    assert code.startswith("# transformer\n") and "\n# transformer_2\n" in code
    other.write_text(f"surgery: v1\nmodel: {model}\noperations: [skip: 'blocks[1]']\n")
    facts = json.loads(surgery_command("diff", spec, other, "--json").stdout)["facts"]
    assert facts["transformer: blocks"] == {"a": "0 2:4", "b": "0 2:4", "differs": False}
    assert facts["transformer_2: blocks"] == {"a": "2", "b": "0:3", "differs": True}
    other.write_text("surgery: v1\nmodel: demo\noperations: [skip: 'transformer_blocks[1]']\n")
    refused = surgery_command("diff", spec, other)
    assert refused.exit_code == 1 and "of which one has two transformers" in refused.stderr


def test_videos_of_one_frame_are_drawn_of_both(spec, tmp_path, surgery_command):
    size = ("--steps", "2", "--height", "16", "--width", "16", "--call", "max_sequence_length=20")
    command = ("generate", spec, "--prompt", "a red apple", "--out", tmp_path / "drawn", *size)
    refused = surgery_command(*command)
    assert refused.exit_code == 1 and "WanPipeline draws videos of 81 frames" in refused.stderr
    assert surgery_command(*command, "--call", "num_frames=1").exit_code == 0
    first, second = (tmp_path / "drawn" / name / "0000.png" for name in ("baseline", "spec"))
    assert first.read_bytes() != second.read_bytes()


def test_a_checkpoint_of_both_is_a_row_beside_its_spec(spec, model, pruned, tmp_path, surgery_command):
    """Both transformers are the folder's own; it is known again by the weights of either."""
    size = ("--steps", "1", "--height", "16", "--width", "16", "--call", "max_sequence_length=20")
    given = (spec, pruned, "--model", model, "--prompt", "a red apple", "--call", "num_frames=1")
    drawn = surgery_command("generate", *given, *size, "--out", tmp_path / "drawn")
    assert drawn.exit_code == 0 and "wan-pruned  transformer: blocks[4]: 0 2:4" in drawn.stdout, drawn.output
    own = unmapped(find_own_model(str(pruned)).open_in(wan_pipeline()))
    assert torch.equal(draw(own), draw(unmapped(DiffusionPipeline.from_pretrained(pruned))))
    checked = json.loads(surgery_command("check", pruned, "--model", model, "--json").stdout)
    spec_alone = json.loads(surgery_command("check", spec, "--json").stdout)
    assert checked["plan"] == spec_alone["plan"] and checked["recipe"]["state"] == "as compiled"
    file = pruned / "transformer_2" / "diffusion_pytorch_model.safetensors"
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:-4] + bytes(4))
        checked = json.loads(surgery_command("check", pruned, "--model", model, "--json").stdout)
        assert checked["recipe"]["state"] == "retrained"
    finally:
        file.write_bytes(kept)


def test_a_graph_carries_both(spec, model, tmp_path, surgery_command):
    out = tmp_path / "graph"
    result = surgery_command("compile", spec, "--to", "graph", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in out.iterdir()} >= {"forward.py", "forward_2.py", "plan.json", "surgery.json"}
    loaded = surgery.load_variant(out)
    assert torch.equal(draw(loaded), draw(surgery.apply(wan_pipeline(), spec)))
    weights = model / "transformer_2" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(InputError, match="its transformer_2 is another one: its weights are others"):
            surgery.load_variant(out)
    finally:
        weights.write_bytes(kept)


def unmapped(pipe):
    """The pipeline with weights of its own: where they lie in a file decides which kernel runs, and so the last bit."""
    for model in (pipe.transformer, pipe.transformer_2):
        for value in model.parameters():
            value.data = value.data.clone()
    return pipe


@pytest.fixture(scope="module")
def pruned(model, tmp_path_factory):
    """The folder of the spec's checkpoint."""
    folder = tmp_path_factory.mktemp("pruned")
    (folder / "spec.yaml").write_text(SPEC.format(model=model))
    return surgery.compile_checkpoint(folder / "spec.yaml", folder / "wan-pruned", verify="full")


def test_stock_diffusers_loads_a_checkpoint_of_both_that_draws_as_the_graph_to_the_bit(pruned, model):
    loaded = unmapped(DiffusionPipeline.from_pretrained(pruned))
    assert [len(each.blocks) for each in (loaded.transformer, loaded.transformer_2)] == [3, 1]
    assert loaded.config.boundary_ratio == 0.7
    assert torch.equal(draw(loaded), draw(surgery.apply(wan_pipeline(), pruned.parent / "spec.yaml")))
    index = "model_index.json"
    assert json.loads((pruned / index).read_text()) == json.loads((model / index).read_text())


def test_a_checkpoint_of_both_tells_of_both(pruned):
    manifest = json.loads((pruned / "surgery.json").read_text())
    plan = model_plan_from_json(json.loads((pruned / "plan.json").read_text()))
    assert manifest["plan"] == plan.hash == surgery.check(pruned.parent / "spec.yaml").hash
    second = manifest["transformer_2"]
    assert [each["config_changes"] for each in (manifest, second)] == [{"num_layers": 3}, {"num_layers": 1}]
    assert [each["checks"]["full"]["difference"] < 1e-6 for each in (manifest, second)] == [True, True]
    assert [each["checks"]["structure"]["num_tensors"] for each in (manifest, second)] == [96, 42]
    assert manifest["base_2"]["weights"] != manifest["base"]["weights"]
    for part in ("transformer", "transformer_2"):
        with safe_open(pruned / part / "diffusion_pytorch_model.safetensors", "pt") as file:
            recipe = json.loads(file.metadata()["surgery"])
        assert (recipe["transformer"], recipe["plan_hash"]) == (part, plan.hash)
    card = (pruned / "README.md").read_text()
    assert "a `transformer` with 3 of its 4 layers and a `transformer_2` with 1 of its 3 layers" in card
    assert "`transformer_2`: `blocks` (3 layers): removed layers 0 and 1" in card


def test_a_checkpoint_of_both_is_pruned_again(pruned, tmp_path):
    (tmp_path / "spec.yaml").write_text(f"surgery: v1\nmodel: {pruned}\noperations: [skip: 'transformer/blocks[0]']\n")
    again = surgery.compile_checkpoint(tmp_path / "spec.yaml", tmp_path / "again", verify="structure")
    first, second = (folder / "transformer_2/diffusion_pytorch_model.safetensors" for folder in (pruned, again))
    assert first.read_bytes() == second.read_bytes(), "the other is taken along"
    assert json.loads((again / "transformer/config.json").read_text())["num_layers"] == 2


def test_what_a_checkpoint_of_both_refuses_is_said_of_the_one(model, tmp_path, surgery_command):
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"surgery: v1\nmodel: {model}\noperations: [parallel: 'transformer_2/blocks[0:2]']\n")
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.startswith("transformer_2: no stock checkpoint can express")
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_renumbered_for_the_transformer_that_it_is_of(spec, model, tmp_path, surgery_command):
    lora, out = tmp_path / "lora.safetensors", tmp_path / "out.safetensors"
    halves = {"lora_A": torch.ones(2, 24), "lora_B": torch.ones(24, 2)}
    save_file({f"transformer.blocks.2.attn1.to_q.{half}.weight": value for half, value in halves.items()}, lora)

    def remap(*options, spec=spec):
        return surgery_command("remap", lora, "--spec", spec, "--out", out, "--force", *options)

    refused = remap()
    assert refused.exit_code == 1 and "say of which: --transformer transformer or --transformer" in refused.stderr
    for part, place in (("transformer", 1), ("transformer_2", 0)):
        assert remap("--transformer", part).exit_code == 0
        assert {name.split(".")[2] for name in load_file(out)} == {str(place)}
    one = tmp_path / "one.yaml"
    one.write_text(f"surgery: v1\nmodel: {model}\noperations: [skip: 'blocks[1]']\n")
    assert remap(spec=one).exit_code == 0
    refused = remap("--transformer", "transformer_2", spec=one)
    assert refused.exit_code == 1 and "the spec leaves transformer_2 as it is" in refused.stderr
    one.write_text("surgery: v1\nmodel: demo\noperations: [skip: 'transformer_blocks[1]']\n")
    refused = remap("--transformer", "transformer_2", spec=one)
    assert refused.exit_code == 1 and "demo has one transformer; leave --transformer out" in refused.stderr


def profile_of(model, out, surgery_command, *options):
    """The command's result over one prompt."""
    size = [argument for name in ("height", "width") for argument in (f"--{name}", "16")]
    call = ["--call", "num_frames=1", "--call", "max_sequence_length=20"]
    return surgery_command("profile", model, "--out", out, "--prompt", "a red apple", *size, *call, *options)


@pytest.mark.parametrize(
    ("options", "part", "num_blocks", "bins"),
    [((), "transformer", 4, {8, 9}), (("--transformer", "transformer_2"), "transformer_2", 3, {0, 2, 4, 6})],
)
def test_either_is_profiled_at_its_own_steps(model, tmp_path, surgery_command, options, part, num_blocks, bins):
    out = tmp_path / "p.safetensors"
    result = profile_of(model, out, surgery_command, "--steps", "6", *options)
    assert result.exit_code == 0, result.stderr
    assert f"has two transformers: {part} is measured" in result.stderr
    profile = read_profile(out)
    assert (profile.transformer, profile.find_stack("blocks").num_blocks) == (part, num_blocks)
    assert set(range(10)) - set(profile.empty_bins()) == bins
    branches = {name.partition(":")[0] for name in profile.parts("blocks", "hidden_states")}
    assert branches == {"conditional", "unconditional"}
    mine = surgery.profile(wan_pipeline(), ["a red apple"], call={**CALL, "guidance_scale": 5.0}, part=part)
    assert np.array_equal(mine.influence("blocks", "hidden_states"), profile.influence("blocks", "hidden_states"))


def test_a_transformer_that_never_runs_is_not_profiled(tmp_path, surgery_command):
    pipe = wan_pipeline(boundary_ratio=None)
    with pytest.raises(InputError, match="never ran its transformer_2 in these calls"):
        surgery.profile(pipe, ["a red apple"], call={**CALL, "num_inference_steps": 1}, part="transformer_2")
    pipe.register_modules(transformer_2=None)
    with pytest.raises(InputError, match="WanPipeline has no transformer_2 here; it has transformer"):
        surgery.profile(pipe, ["a red apple"], call=CALL, part="transformer_2")
    options = ("--prompt", "x", "--transformer", "transformer_2")
    result = surgery_command("profile", "demo", "--out", tmp_path / "p.safetensors", *options)
    assert result.exit_code == 1 and "demo has one transformer; leave --transformer out" in result.stderr


def test_a_profile_of_the_second_is_not_taken_for_one_of_the_first(model, tmp_path, surgery_command):
    out, spec = tmp_path / "second.safetensors", tmp_path / "spec.yaml"
    assert profile_of(model, out, surgery_command, "--steps", "3", "--transformer", "transformer_2").exit_code == 0
    suggested = surgery_command("suggest", out, "--remove", "1", "--forbid", "none").stdout
    comment = " ".join(suggested.replace("#", " ").split())  # wrapped by how long the path is
    assert '- skip: "transformer_2/blocks[' in suggested and "wan, transformer_2: 1 sample" in comment
    assert "saves" in surgery_command("suggest", out, "--remove", "1", "--forbid", "none", "--out", spec).stdout
    first, second = surgery.check(spec).by_part.values()
    assert first.is_identity and len(second.schedules[0].removed) == 1
    for name, text in (
        ("means", "operations: [{replace: {component: 'blocks[1].attn1', with: mean}}]"),
        ("profile", "groups: {few: 'second.safetensors#blocks.middle'}\noperations: [skip: few]"),
    ):
        spec.write_text(f"surgery: v1\nmodel: {model}\nprofile: second.safetensors\n{text}\n")
        refused = surgery_command("check", spec)
        assert refused.exit_code == 1 and f"{name}" in refused.stderr and "of transformer_2" in refused.stderr


def test_what_is_of_one_transformer_says_so(spec, tmp_path, surgery_command):
    result = surgery_command("compile", spec, "--to", "graph", "--format", "pt2", "--out", tmp_path / "program")
    assert result.exit_code == 1 and "is of one transformer, and the spec edits two" in result.stderr
    result = surgery_command("compile", spec, "--to", "checkpoint", "--out", tmp_path / "one", "--transformer-only")
    assert (
        result.exit_code == 1 and "--transformer-only leaves one transformer, and the spec edits two" in result.stderr
    )
    assert not (tmp_path / "one").exists()


@pytest.fixture(scope="module")
def profiles(model, tmp_path_factory):
    """Profiles of both transformers, in one folder."""
    folder = tmp_path_factory.mktemp("profiles")
    for part, name in (("transformer", "first"), ("transformer_2", "second")):
        measured = surgery.profile(wan_pipeline(), ["a red apple"], call={**CALL, "guidance_scale": 5.0}, part=part)
        write_profile(measured, folder / f"{name}.safetensors")
    return folder


class Mean(torch.nn.Module):
    """The mean of a component in its place."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, hidden_states, *_args, **_kwargs):
        return self.values.expand(hidden_states.shape).contiguous()


MEANS = """surgery: v1
model: {model}
profile: second.safetensors
groups: {{few: "second.safetensors#blocks.middle", last: "first.safetensors#blocks.last"}}
operations:
  - skip: [last, transformer_2/few]
  - replace: {{component: "transformer_2/blocks[2].attn1", with: mean}}
"""


def test_means_and_groups_are_of_the_transformer_that_their_file_is_of(model, profiles, tmp_path, surgery_command):
    """The graph is the edit by hand to the bit, from the spec and from its folder; so is the checkpoint, but for
    rounding: it holds the means as a bias."""
    spec = profiles / "means.yaml"
    spec.write_text(MEANS.format(model=model))
    by_hand = wan_pipeline()
    values = read_profile(profiles / "second.safetensors")
    first, second = by_hand.transformer.blocks, by_hand.transformer_2.blocks
    shown = surgery_command("check", spec).stdout
    assert "few = blocks[1], from second.safetensors" in shown and "last = blocks[3], from first.safetensors" in shown
    by_hand.transformer.blocks = torch.nn.ModuleList([first[0], first[1], first[2]])
    by_hand.transformer_2.blocks = torch.nn.ModuleList([second[0], second[2]])
    means = load_file(profiles / "second.safetensors")["mean/blocks.2.attn1/hidden_states"]
    second[2].attn1 = Mean(means)
    expected = draw(by_hand)
    assert values.transformer == "transformer_2" and not torch.equal(expected, draw(wan_pipeline()))
    assert torch.equal(draw(surgery.apply(wan_pipeline(), spec)), expected)
    for target in ("graph", "checkpoint"):
        out = tmp_path / target
        result = surgery_command("compile", spec, "--to", target, "--out", out)
        assert result.exit_code == 0, result.output
        loaded = surgery.load_variant(out) if target == "graph" else DiffusionPipeline.from_pretrained(out)
        assert torch.allclose(draw(loaded), expected, rtol=1e-4, atol=1e-5), target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r":7:\d+: in transformer_2: blocks\[2\].attn1 takes its means from a profile; write profile: FILE"),
        ("profile: first.safetensors", r"of its own transformer, and first.safetensors is of transformer; give that"),
    ],
)
def test_means_of_the_other_transformer_are_none_of_its_own(model, profiles, surgery_command, text, message):
    spec = profiles / "other.yaml"
    spec.write_text(MEANS.format(model=model).replace("profile: second.safetensors", text))
    result = surgery_command("check", spec)
    assert result.exit_code == 1 and re.search(message, result.stdout + result.stderr)


def test_a_group_of_the_other_transformer_is_refused(model, profiles, surgery_command):
    spec = profiles / "other.yaml"
    spec.write_text(MEANS.format(model=model).replace("[last, ", "[transformer_2/last, "))
    result = surgery_command("check", spec)
    assert result.exit_code == 1
    assert "in transformer_2: the profile is of transformer, and this is transformer_2" in result.stdout + result.stderr


def test_a_training_config_is_of_the_transformer_that_was_profiled(profiles, model, tmp_path, surgery_command):
    """The second has three layers, where the first has four."""
    out = tmp_path / "lokr.json"
    profile = profiles / "second.safetensors"
    command = ("export", "lokr", profile, "--model", model, "--for", "simpletuner", "--out", out, "--no-verify")
    result = surgery_command(*command)
    assert result.exit_code == 1 and "of two transformers, each runs in a part of the noise range" in result.stderr
    result = surgery_command(*command, "--ignore-empty-bins")
    assert result.exit_code == 0, result.output
    names = json.loads(out.read_text())["apply_preset"]["name_algo_map"]
    assert {name.split(".")[1] for name in names} == {"0", "1", "2"}
