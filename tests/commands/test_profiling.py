"""`surgery profile`: what it writes, how it goes on after an interruption, joins, and what it refuses."""

import json
import shutil
from random import Random

import numpy as np
import pytest
from lossy_crew import LossyEngine
from PIL import Image
from typer.testing import CliRunner

from surgery.activations import trajectories
from surgery.commands.main import app
from surgery.experiment import profile_units, profiling
from surgery.outputs import unfinished_runs
from surgery.profiles.profile_file import ARRAYS, read_profile

PROMPTS = ["red apple", "hamburger", "dog face", "rocket"]
PARTIAL = ".p.safetensors.partial"
STEPS = ["--steps", "3", "--batch-size", "2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path


def profile(*arguments, status=0):
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def sums_of(path):
    found = read_profile(path)
    arrays = {(*key, name): getattr(sums, name) for key, sums in found.streams.items() for name in ARRAYS}
    return arrays | {(*key, "mean"): moments.mean for key, moments in found.components.items()}


def test_a_table_for_people_and_a_document_for_programs(here):
    text = profile("demo", "--prompts", "prompts.txt", "--out", "p.safetensors", *STEPS).stdout
    assert "4 samples, 10 timestep bins" in text and "no sample in bins" in text
    assert "transformer_blocks: angular distance (in units of pi) and block influence" in text
    found = profile("demo", "--prompts", "prompts.txt", "--out", "q.safetensors", *STEPS, "--bins", "2", "--json")
    document = json.loads(found.stdout)
    stack = document["stacks"]["transformer_blocks"]["hidden_states"]
    assert (document["samples"], document["bins"], document["empty_bins"]) == (4, 2, [])
    assert len(stack["angular_distance"]) == len(stack["block_influence"]) == 12
    assert {path.name for path in here.iterdir()} == {"prompts.txt", "p.safetensors", "q.safetensors"}
    recipe = read_profile("p.safetensors").recipe
    assert recipe["model"] == "demo" and recipe["identity"]["class_name"] == "PixArtTransformer2DModel"
    assert recipe["call"]["num_inference_steps"] == 3 and len(recipe["samples"]) == 4


def test_disjoint_prompts_join_to_the_profile_of_all(here):
    (here / "one.txt").write_text("\n".join(PROMPTS[:2]))
    (here / "two.txt").write_text("\n".join(PROMPTS[2:]))
    profile("demo", "--prompts", "prompts.txt", "--out", "all.safetensors", *STEPS)
    profile("demo", "--prompts", "one.txt", "--out", "one.safetensors", *STEPS)
    profile("demo", "--prompts", "two.txt", "--out", "two.safetensors", *STEPS, "--seed", "2")
    profile("--merge", "one.safetensors", "two.safetensors", "--out", "joined.safetensors")
    profile("--merge", "two.safetensors", "one.safetensors", "--out", "turned.safetensors")
    whole, joined, turned = (sums_of(f"{name}.safetensors") for name in ("all", "joined", "turned"))
    assert whole.keys() == joined.keys() == turned.keys()
    for key, value in whole.items():
        assert np.allclose(joined[key], value, rtol=1e-12, atol=1e-12), key
        assert np.allclose(turned[key], value, rtol=1e-12, atol=1e-12), key
    assert read_profile("joined.safetensors").recipe == read_profile("all.safetensors").recipe
    again = profile("--merge", "one.safetensors", "joined.safetensors", "--out", "x.safetensors", status=1)
    assert "2 samples are in two of the profiles" in again.stderr


def interrupt(monkeypatch, arguments):
    """Run a command that ends before its second batch."""
    measure, calls = trajectories.measure_trajectories, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        measure(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(profile_units, "measure_trajectories", interrupted)
        return profile(*arguments, status=130).stderr


@pytest.mark.parametrize("options", [(), ("--mean-states",)])
def test_an_interrupted_run_goes_on_and_ends_the_same_to_the_bit(here, monkeypatch, options):
    arguments = ["demo", "--prompts", "prompts.txt", *STEPS, *options]
    profile(*arguments, "--out", "whole.safetensors")
    said = interrupt(monkeypatch, [*arguments, "--out", "p.safetensors"])
    assert "stopped: 2 of 4 samples are kept in" in said and "to go on, give the same command\n" in said
    assert not (here / "p.safetensors").exists() and len(list((here / PARTIAL).iterdir())) == 1
    result = profile(*arguments, "--out", "p.safetensors")
    assert "going on after 2 samples of an interrupted run" in result.stderr
    assert (here / "p.safetensors").read_bytes() == (here / "whole.safetensors").read_bytes()
    assert not (here / PARTIAL).exists()


def test_the_profile_is_that_of_one_process_whatever_is_lost(here, monkeypatch):
    """A batch is lost twice, others come before their turn, and every worker opens the model for itself."""
    arguments = ["demo", "--prompts", "prompts.txt", "--steps", "2", "--batch-size", "1", "--mean-states"]
    profile(*arguments, "--out", "alone.safetensors")
    engine = LossyEngine(Random(4), 2, "the batch that begins with hamburger")
    with monkeypatch.context() as patched:
        patched.setattr(profiling, "open_engine", engine.opened)
        profile(*arguments, "--out", "shared.safetensors")
    assert engine.order != sorted(engine.order) and list(engine.lost.values()) == [3]
    assert (here / "shared.safetensors").read_bytes() == (here / "alone.safetensors").read_bytes()


def test_a_run_goes_on_with_batches_of_another_size_and_no_sample_counts_twice(here, monkeypatch):
    arguments = ["demo", "--prompts", "prompts.txt", "--steps", "2", "--out", "p.safetensors"]
    interrupt(monkeypatch, [*arguments, "--batch-size", "1"])
    result = profile(*arguments, "--batch-size", "3")
    assert "going on after 1 samples of an interrupted run" in result.stderr
    found = read_profile("p.safetensors")
    assert len(set(found.recipe["samples"])) == len(found.recipe["samples"]) == len(PROMPTS)
    assert found.sums("transformer_blocks", "hidden_states").samples.sum() == 2 * 2 * len(PROMPTS)  # steps, branches


@pytest.mark.parametrize("changed", [["-p", "another"], ["--prompts", "prompts.txt", "--seed", "7"]])
def test_samples_that_are_not_asked_for_are_not_taken_up(here, monkeypatch, changed):
    options = ["--steps", "2", "--batch-size", "1", "--out", "p.safetensors"]
    interrupt(monkeypatch, ["demo", "--prompts", "prompts.txt", *options])
    result = profile("demo", *changed, *options)
    assert "is of another request, and is left as it is" in result.stderr
    assert len(read_profile("p.safetensors").recipe["samples"]) == (1 if "-p" in changed else len(PROMPTS))
    shutil.move(here / "p.safetensors", here / "changed.safetensors")
    assert "going on after 1 samples" in profile("demo", "--prompts", "prompts.txt", *options).stderr
    assert not (here / PARTIAL).exists()


def test_what_can_not_be_read_of_an_interrupted_run_is_measured_again(here, monkeypatch):
    arguments = ["demo", "--prompts", "prompts.txt", *STEPS, "--out", "p.safetensors"]
    interrupt(monkeypatch, arguments)
    (kept,) = (here / PARTIAL).iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    assert "going on" not in profile(*arguments).stderr
    assert len(read_profile("p.safetensors").recipe["samples"]) == len(PROMPTS)


def test_force_starts_afresh(here, monkeypatch):
    arguments = ["demo", "--prompts", "prompts.txt", *STEPS, "--out", "p.safetensors"]
    interrupt(monkeypatch, arguments)
    assert "going on" not in profile(*arguments, "--force").stderr
    assert not (here / PARTIAL).exists()


def test_two_runs_that_would_write_one_profile_are_refused(here):
    with unfinished_runs(here / "p.safetensors"):
        said = profile("demo", "-p", "x", *STEPS, "--out", "p.safetensors", status=1).stderr
    assert "another run is writing" in said and not (here / "p.safetensors").exists()


def test_pictures_are_measured_noised_at_times_drawn_uniformly(here):
    (here / "pictures").mkdir()
    for number, prompt in enumerate(PROMPTS[:2]):
        Image.effect_noise((70, 90), 60).save(here / "pictures" / f"{number}.png")
        (here / "pictures" / f"{number}.txt").write_text(prompt)
    arguments = ["demo", "--pictures", "pictures", "--samples", 9, "--bins", "2"]
    profile(*arguments, "--out", "p.safetensors")
    found = read_profile("p.safetensors")
    sums = found.sums("transformer_blocks", "hidden_states")
    assert sums.samples.sum() == 9 and (sums.samples > 0).all()
    assert found.parts("transformer_blocks", "hidden_states") == ("conditional",)
    (here / "pictures" / "1.png").write_bytes(b"no picture")
    assert "1.png can't be read" in profile(*arguments, "--out", "q.safetensors", status=1).stderr


def test_the_mean_states_are_compared_on_request_and_their_size_is_said(here):
    result = profile("demo", "-p", "red apple", *STEPS, "--mean-states", "--out", "p.safetensors")
    assert "the mean states of one batch take 0.5 MB" in result.stderr  # 2 rows x 13 states x 16 x 160 in float64
    found = read_profile("p.safetensors")
    similarity = found.similarity("transformer_blocks", "hidden_states", kind="means")
    assert np.allclose(similarity.diagonal(), 1) and similarity[0, -1] < 1


def test_components_are_chosen_by_name(here):
    profile("demo", "-p", "x", *STEPS, "--component", "ff", "--component", "attn2.to_q", "--out", "p.safetensors")
    names = {name.split(".", 2)[2] for name, _, _ in read_profile("p.safetensors").components}
    assert names == {"ff", "attn2.to_q"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--out", "p.safetensors"], "there is no prompt"),
        (["demo", "-p", "x", "--out", "p.bin"], "p.bin must be named .safetensors"),
        (["demo", "-p", "x", "--out", "prompts.txt/p.safetensors"], "prompts.txt is no folder that can be written to"),
        (["demo", "demo", "-p", "x", "--out", "p.safetensors"], "there are 2 models; give one"),
        (["demo", "--pictures", "absent", "--out", "p.safetensors"], "absent is no folder"),
        (["demo", "-p", "x", "--component", "attn9", "--out", "p.safetensors"], "no block has a component attn9"),
        (["demo", "-p", "x", "--call", "nosuch=1", "--out", "p.safetensors"], "takes no argument nosuch"),
        (["demo", "-p", "x", "--height", "63", "--out", "p.safetensors"], "PixArtAlphaPipeline refuses the call"),
        (["absent", "-p", "x", "--out", "p.safetensors"], "there is no folder absent"),
        (["--merge", "absent.safetensors", "--out", "p.safetensors"], "can't be read"),
    ],
)
def test_bad_input_is_said_and_nothing_is_written(here, arguments, message):
    assert message in profile(*arguments, status=1).stderr
    assert [path.name for path in here.iterdir()] == ["prompts.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "-p", "x", "--pictures", "."], "for --prompt: pictures have captions; leave it out"),
        (["demo", "--pictures", ".", "--steps", "3", "--mean-states"], "for --steps, --mean-states: with --pictures"),
        (["demo", "-p", "x", "--samples", "3"], "for --samples: that is for --pictures; leave it out"),
        (["--merge", "a", "b", "--bins", "4"], "for --bins: --merge joins what was measured; leave it out"),
        (["demo", "-p", "x", "--guidance-scale", "inf"], "inf is no finite number"),
        (["demo", "-p", "x", "--guidance-scale", "-1"], "greater than or equal to 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(here, arguments, message):
    said = profile(*arguments, "--out", "p.safetensors", status=2).stderr
    assert message in " ".join(said.replace("│", " ").split())
    assert [path.name for path in here.iterdir()] == ["prompts.txt"]


def test_the_folder_of_a_profile_is_made(here):
    profile("demo", "-p", "x", *STEPS, "--out", "made/here/p.safetensors")
    assert read_profile("made/here/p.safetensors").recipe["dtype"] == "float32"


def test_a_profile_that_is_there_is_not_written_over(here):
    (here / "p.safetensors").write_text("mine")
    assert "is there already" in profile("demo", "-p", "x", "--out", "p.safetensors", status=1).stderr
    assert (here / "p.safetensors").read_text() == "mine"
    profile("demo", "-p", "x", *STEPS, "--out", "p.safetensors", "--force")
    read_profile("p.safetensors")
