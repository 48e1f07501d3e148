"""`surgery suggest`: the spec says why, is a plan at once, and goes on to check, compile and generate."""

import hashlib
import json

import numpy as np
import pytest

from surgery.anatomy.known import recall_demo
from surgery.commands.suggest import SEARCH
from surgery.plan.lower import lower_spec
from surgery.profiles.profile_file import write_profile
from surgery.spec.load import load_spec, read_spec

STACK, OTHER = "transformer_blocks", "single_transformer_blocks"
NAMES = {"encoder_hidden_states", "hidden_states"}


@pytest.fixture
def profile(made, tmp_path):
    """Of the bundled model."""
    path = tmp_path / "p.safetensors"
    write_profile(made.make_profile([(STACK, 12)], model="demo"), path)
    return path


@pytest.fixture
def suggest(surgery_command, profile):
    def run(*arguments, of=profile, status=0):
        result = surgery_command("suggest", of, *arguments)
        assert result.exit_code == status, result.output
        return result

    return run


def test_the_spec_says_why_and_from_what(suggest, profile):
    result = suggest("--remove", "2")
    digest = hashlib.sha256(profile.read_bytes()).hexdigest()
    lines = result.stdout.splitlines()
    comments = " ".join(line.removeprefix("# ") for line in lines[: lines.index("surgery: v1")])
    made_from = f"p.safetensors, a profile of demo: 2 samples, trajectories; SHA-256 {digest}"
    assert comments.startswith(f"Suggested from {made_from}. Chosen by influence: the layers of {STACK} of least Block")
    assert "(ShortGPT, arXiv 2403.03853), over all timesteps of hidden_states." in comments
    assert f" Left alone: {STACK}[0, 11]. " in comments
    assert "Importance does not predict quality after fine-tuning" in comments
    assert "surgery search MODEL --prompts FILE --budget ... measures damage" in result.stderr
    found = json.loads(suggest("--remove", "2", "--json").stdout)
    for layer in found["layers"]:
        assert f"  # {STACK}[{layer['index']}]".ljust(26) in result.stdout
        assert f"{layer['value']:.6f}  {layer['rank']}\n" in result.stdout
    assert found["text"] == result.stdout and found["forbidden"] == {STACK: [0, 11]}
    spec = read_spec(result.stdout)
    assert (spec.model, spec.title) == ("demo", "2 of 12 layers left out, chosen by influence")
    plan = lower_spec(spec, recall_demo())
    assert sorted(plan.schedules[0].removed) == sorted(layer["index"] for layer in found["layers"])
    assert found["plan"] == plan.to_json() and found["cost"]["parameters"]["after"] == plan_size(result.stderr, found)


def plan_size(text, found):
    """The parameters that are left, where the plan is printed beside the spec."""
    assert "  saves 825 k of 5.24 M parameters" in text and "checkpoint yes" in text
    return found["cost"]["parameters"]["after"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--remove", "3"],
        ["--remove", "4", "--by", "span"],
        ["--remove", "10", "--by", "greedy"],
        ["--keep", "0.6", "--by", "greedy", "--forbid", "none"],
        ["--keep", "0.75", "--stream", "hidden_states", "--stack", STACK],
        ["--repeat", "3"],
        ["--repeat", "2", "--by", "influence"],
        ["--remove", "12", "--forbid", "none"],
    ],
    ids=" ".join,
)
def test_a_suggestion_is_a_plan(suggest, tmp_path, arguments):
    out = tmp_path / "s.yaml"
    printed = suggest(*arguments, "--out", out).stdout
    plan = lower_spec(load_spec(out), recall_demo())
    assert f"plan {plan.hash[:12]}" in printed and printed.endswith(f"written to {out}\n")
    assert bool(plan.schedules[0].removed) == ("--repeat" not in arguments)
    assert not plan.is_identity


def test_layers_that_run_twice_do_so_each_or_as_a_span(suggest):
    span = lower_spec(read_spec(suggest("--repeat", "3").stdout), recall_demo()).text
    each = lower_spec(read_spec(suggest("--repeat", "3", "--by", "influence").stdout), recall_demo()).text
    assert span.count("x2") == 1 and each.count("x2") == 3


def test_a_suggestion_is_checked_compiled_and_drawn(made, pipeline, surgery_command, suggest, draw, tmp_path):
    path = tmp_path / "tiny.safetensors"
    write_profile(made.make_profile([(STACK, 5)], model=str(pipeline)), path)
    out = tmp_path / "tiny.yaml"
    suggest("--keep", "0.8", "--out", out, of=path)
    assert surgery_command("check", out).exit_code == 0
    compiled = surgery_command(
        "compile", out, "--to", "checkpoint", "--out", tmp_path / "pruned", "--verify", "structure"
    )
    assert compiled.exit_code == 0, compiled.output
    assert "config      num_layers: 4" in compiled.stdout
    drawn = draw(tmp_path / "tiny.yaml", "--prompt", "red apple", "--out", tmp_path / "gallery")
    assert [row["name"] for row in drawn["variants"]] == ["baseline", "tiny"]


def test_several_stacks_are_pruned_together(made, suggest, tmp_path, anatomies):
    flux = made.make_profile([(STACK, 19), (OTHER, 38)], streams=sorted(NAMES), model="/nowhere/flux")
    write_profile(flux, tmp_path / "flux.safetensors")
    result = suggest("--remove", "9", of=tmp_path / "flux.safetensors")
    assert result.stderr.startswith("not planned, since the model is not at hand: ")
    spec = read_spec(result.stdout)
    assert spec.model == "/nowhere/flux" and spec.title.startswith("9 of 57 layers left out")
    plan = lower_spec(spec, anatomies["flux"])
    assert sum(len(schedule.removed) for schedule in plan.schedules) == 9
    document = json.loads(suggest("--remove", "9", "--json", of=tmp_path / "flux.safetensors").stdout)
    assert "not at hand" in document["not_planned"] and "plan" not in document
    one = suggest("--remove", "9", "--by", "span", status=1, of=tmp_path / "flux.safetensors")
    assert one.stderr == f"span takes the layers of one stack, and there are {STACK}, {OTHER}; give --stack\n"
    assert (
        "9 of 38" in suggest("--remove", "9", "--by", "span", "--stack", OTHER, of=tmp_path / "flux.safetensors").stdout
    )


def test_a_profile_that_names_no_model_needs_one_to_be_planned(made, suggest, tmp_path):
    path = tmp_path / "nameless.safetensors"
    write_profile(made.make_profile([(STACK, 12)]), path)
    result = suggest("--remove", "1", of=path)
    assert read_spec(result.stdout).model is None
    assert result.stderr == f"the profile does not say of which model it is; give --model to plan the spec\n{SEARCH}\n"
    assert "saves 413 k of 5.24 M" in suggest("--remove", "1", "--model", "demo", of=path).stderr


def test_a_profile_of_another_model_is_refused_and_nothing_is_written(made, suggest, pipeline, tmp_path):
    out = tmp_path / "s.yaml"
    result = suggest("--remove", "1", "--model", pipeline, "--out", out, status=1)
    assert result.stderr == (
        f"the profile is of another model: it has 12 blocks of {STACK}, and this PixArtTransformer2DModel has 5; "
        "measure a profile of this model\n"
    )
    absent = suggest("--remove", "1", "--model", "/nowhere/at/all", "--out", out, status=1)
    assert "there is no folder /nowhere/at/all" in absent.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--remove", "11"], "11 layers can't be chosen: 10 may be (left alone: transformer_blocks[0, 11])"),
        (["--remove", "1", "--forbid", f"{STACK}[:]"], "0 may be (left alone: transformer_blocks[0:12])"),
        (["--remove", "1", "--stack", "blocks"], "the profile has no stack blocks; it has transformer_blocks"),
        (["--remove", "1", "--stream", "text"], "the profile has no stream text; it has hidden_states"),
        (["--keep", "1"], "1 is no share of layers to keep"),
        (["--remove", "1", "--out", "s.txt"], "s.txt must be named .yaml"),
        (["--remove", "1", "--out", "/dev/null/s.yaml"], "/dev/null is no folder that can be written to"),
    ],
)
def test_bad_input_is_told(suggest, arguments, message):
    assert message in suggest(*arguments, status=1).stderr


def test_files_are_not_overwritten_and_profiles_must_be_whole(suggest, profile, tmp_path):
    (tmp_path / "s.yaml").write_text("mine")
    assert "is there already" in suggest("--remove", "1", "--out", tmp_path / "s.yaml", status=1).stderr
    suggest("--remove", "1", "--out", tmp_path / "s.yaml", "--force")
    assert load_spec(tmp_path / "s.yaml").operations
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(profile.read_bytes()[:-10])
    assert "cut.safetensors can't be read" in suggest("--remove", "1", of=cut, status=1).stderr
    absent = suggest("--remove", "1", of=tmp_path / "absent.safetensors", status=1)
    assert "absent.safetensors can't be read" in absent.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--remove", "1", "--repeat", "1"],
        ["--remove", "0"],
        ["--repeat", "1", "--by", "greedy"],
        ["--remove", "1", "--by", "x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_two(suggest, arguments):
    suggest(*arguments, status=2)


def test_a_part_is_judged_by_itself(made, suggest, tmp_path):
    """The branches' layers of least influence differ."""
    found = {}
    both = made.make_profile([(STACK, 12)], branches=("conditional", "unconditional"), model="demo", seed=3)
    write_profile(both, tmp_path / "both.safetensors")
    for part in ("conditional", "unconditional"):
        text = suggest("--remove", "1", "--part", part, of=tmp_path / "both.safetensors").stdout
        assert f"trajectories, part {part}; SHA-256" in " ".join(text.replace("#", " ").split())
        influence = both.influence(STACK, "hidden_states", part)
        found[part] = int(np.argmin(influence[1:-1])) + 1
        assert f"{STACK}[{found[part]}]" in text
    assert found["conditional"] != found["unconditional"]
    wrong = suggest("--remove", "1", "--part", "text", of=tmp_path / "both.safetensors", status=1)
    assert wrong.stderr == "the profile has no part text; it has conditional, unconditional\n"
