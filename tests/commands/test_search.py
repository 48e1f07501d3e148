"""`surgery search`: it finds what slow ways find, writes what was measured, and a kill costs little."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from lossy_crew import LossyEngine

import surgery
from surgery.errors import InputError
from surgery.experiment.denoising_error import denoising_errors
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.search import run_search
from surgery.experiment.search.halves import split_prompts
from surgery.experiment.search.open_objective import clean_latents
from surgery.experiment.search.store import Shelf
from surgery.graph.apply import Variants
from surgery.plan.planned import plan_spec
from surgery.spec.load import load_spec, read_spec

ROOT = Path(__file__).parents[2]
PROMPTS = ("red apple", "blue heart", "apple", "heart", "red heart", "blue apple")
NUM_BLOCKS = 5
NUM_UNITS = (2 + 1) * 2 * 2  # two levels and the half held out, two batches, two bins
CALL = {"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False, "num_inference_steps": 2}
ARGUMENTS = [part for pair in CALL.items() for part in ("--call", f"{pair[0]}={json.dumps(pair[1])}")]


@pytest.fixture
def search(surgery_command, pipeline, tmp_path):
    """Runs the command on the tiny pipeline; its document, and its folder."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def run(*arguments, out="out", model=pipeline, status=0):
        given = ("search", model, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / out, "--json")
        result = surgery_command(*given, "--bins", "2", "--batch-size", "2", *ARGUMENTS, *arguments)
        assert result.exit_code == status, result.output
        return (json.loads(result.stdout), tmp_path / out) if not status else result.stderr

    return run


def python_search(pipeline, out, **options):
    return surgery.search(
        pipeline, PROMPTS, out, **{"budget": "blocks=3", "call": CALL, "bins": 2, "batch_size": 2, **options}
    )


@pytest.fixture(scope="module")
def undisturbed(pipeline, tmp_path_factory):
    """The folder of a search that nobody kills."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    python_search(pipeline, out)
    return out


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".surgery.json", "recipe.json", "pictures.json")
    }


def amounts_of(document):
    return [point["amount"] for point in document["front"]]


def damages_of(document):
    return [point["chosen"]["value"] for point in document["front"]]


# Two roads.


def errors_by_hand(folder, specs, pipeline, bins):
    """The denoising errors of specs: each variant is built, and predicts alone."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(pipeline)
    pipe.set_progress_bar_config(disable=True)
    prompts, choosing, _ = split_prompts(PROMPTS)
    bench = type(
        "Bench", (), {"run": type("Run", (), {"pipe": pipe, "call": CALL, "request": type("R", (), {"seed": 0})})}
    )
    (stored,) = (folder / "store" / "pictures").iterdir()
    recipe = json.loads((stored / "recipe.json").read_text())
    clean = clean_latents(bench, PictureStore(stored.parent).open(recipe).read(len(prompts)))
    variants = Variants(pipe)
    rows = {name: variants.make(plan_spec(spec, variants.first.anatomy)) for name, spec in specs.items()}
    found = denoising_errors(
        rows,
        pipe,
        clean[: len(choosing)],
        prompts[: len(choosing)],
        seeds=range(len(choosing)),
        bins=bins,
        batch_size=2,
        call=CALL,
    )
    return {name: float(errors.to_baseline.mean()) for name, errors in found.items()}


def test_exhaustive_finds_what_trying_all_pairs_finds_and_so_does_the_widest_beam(search, pipeline):
    pairs = [frozenset(pair) for pair in itertools.combinations(range(NUM_BLOCKS), 2)]
    document, folder = search("--budget", "blocks=3", "--method", "exhaustive")
    specs = {
        pair: read_spec(f"surgery: v1\noperations: [{{skip: 'transformer_blocks{sorted(pair)}'}}]") for pair in pairs
    }
    by_hand = errors_by_hand(folder, specs, pipeline, bins=2)
    best = min(pairs, key=by_hand.get)
    (removed,) = (schedule.removed for schedule in surgery.check(folder / "chosen.yaml", str(pipeline)).schedules)
    assert frozenset(removed) == best
    assert document["front"][-1]["chosen"]["value"] == pytest.approx(by_hand[best], rel=1e-6)
    measured = {each["edits"]: each["damage"] for each in document["measured"] if each["amount"] == 3}
    assert sorted(measured.values()) == pytest.approx(sorted(by_hand.values()), rel=1e-6)
    beam, _ = search("--budget", "blocks=3", "--method", "beam:10", out="beam")
    assert damages_of(beam)[-1] == pytest.approx(by_hand[best], rel=1e-6)


def test_windows_are_never_worse_for_as_many_executions_and_every_spec_leaves_what_it_says(
    search, pipeline, surgery_command
):
    """And `check` passes, with the executions of the sampler's steps."""
    whole, _ = search("--budget", "executions=4", "--method", "exhaustive", out="whole")
    document, folder = search("--budget", "executions=4", "--windows", "2", "--method", "exhaustive")
    assert damages_of(document)[-1] <= damages_of(whole)[-1] + 1e-9
    assert "when: {timesteps: [" in (folder / "chosen.yaml").read_text() or damages_of(document) == damages_of(whole)
    for point in document["front"]:
        if point["spec"] is not None:
            result = surgery_command("check", folder / point["spec"], "--steps", "2", "--json")
            found = json.loads(result.stdout)[0] if result.stdout.startswith("[") else json.loads(result.stdout)
            found = found.get("specs", [found])[0]
            assert found["cost"]["block_executions"]["after"] == pytest.approx(point["amount"])
            assert found["plan"]["hash"] == point["plan"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--budget", "blocks=3", "--forbid", "transformer_blocks[0]"),
        ("--budget", "parameters=70%", "--units", "both"),
        ("--budget", "flops=80%", "--units", "components", "--method", "beam:2"),
        ("--budget", "latency=80%", "--weights", "0,1"),
        ("--budget", "blocks=4", "--objective", "trajectory-error"),
        ("--budget", "blocks=4", "--objective", "ssim"),
    ],
    ids=lambda arguments: " ".join(arguments[1::2]),
)
def test_the_front_is_monotone_and_each_of_its_specs_plans_to_the_amount_it_claims(search, pipeline, arguments):
    document, folder = search(*arguments)
    amounts, damages = amounts_of(document), damages_of(document)
    assert amounts == sorted(amounts, reverse=True) and damages == sorted(damages)
    assert len(set(amounts)) == len(amounts) and len(set(damages)) == len(damages)
    assert damages[0] == 0 and document["front"][0]["edits"] == "nothing"
    within = [point for point in document["front"] if point["is_within_budget"]]
    assert (
        within
        and within[0]["spec"] == "chosen.yaml"
        and within[0]["amount"] <= document["budget"]["limit"] * (1 + 1e-9)
    )
    for point in document["front"][1:]:
        spec = load_spec(folder / point["spec"])
        plan = surgery.check(spec, str(pipeline))
        assert plan.hash == point["plan"]
        anatomy = surgery.inspect(str(pipeline))
        cost = plan_spec(spec, anatomy).cost
        expected = {"parameters": cost.parameters_after, "flops": cost.flops_after, "blocks": cost.executions_after}
        kind = document["budget"]["kind"]
        assert point["amount"] == pytest.approx(expected.get(kind, point["amount"]))
        assert point["held_out"]["num"] == point["chosen"]["num"] == 3
        assert point["gap"]["value"] == pytest.approx(point["held_out"]["value"] - point["chosen"]["value"])
    assert not any("transformer_blocks[0]" in point["edits"] for point in document["front"] if "--forbid" in arguments)


def test_what_a_search_took_is_counted_in_runs_of_blocks(undisturbed):
    """Of the tiny model greedy measures 5 + 4 sets; those of a level share their beginnings, and a level its baseline.

    Sets of 4 blocks of 5: 4 + 4 + 3 + 2 + 1 = 14 runs of blocks that are not shared with another set.
    """
    document = json.loads((undisturbed / "search.json").read_text())
    cost = document["cost"]["choosing"]
    gone = int(re.search(r"\d+", document["front"][1]["edits"])[0])
    rest = [index for index in range(NUM_BLOCKS) if index != gone]
    paths = [tuple(index for index in rest if index != other) for other in rest]
    second = {path[:end] for path in paths for end in range(1, len(path) + 1)}
    assert (cost["sets"], cost["prompts"]) == (9, 3)
    assert cost["block_runs"] == (14 + 5 + len(second) + 5) * 2 * 3
    assert cost["model_runs"] == cost["block_runs"] / (NUM_BLOCKS * 2 * 3) < 9


# What is written.


def test_the_folder_holds_specs_that_say_why_a_table_a_figure_and_a_page(search, surgery_command, tmp_path):
    document, folder = search("--budget", "blocks=3")
    names = {"chosen.yaml", "front_01.yaml", "search.json", "front.csv", "search.png", "search.svg", "search.html"}
    assert {path.name for path in folder.iterdir() if path.is_file()} == {*names, ".surgery.json"}
    assert {Path(name).name for name in document.pop("files")} == names
    assert json.loads((folder / "search.json").read_text()) == document
    text = (folder / "chosen.yaml").read_text()
    assert text.startswith(
        "# Found by `surgery search`: blocks, by denoising-error, greedy, for the budget blocks=3.\n"
    )
    for said in (
        "within the budget",
        "that the search has not seen",
        "without it",
        "next best, as cheap: ",
        "of the model",
    ):
        assert said in text
    page = (folder / "search.html").read_text()
    assert "<script" not in page and "http-equiv" in page and page.count("<details") == 2
    assert all(point["edits"] in page for point in document["front"][1:])
    table = (folder / "front.csv").read_text().splitlines()
    assert len(table) == 1 + len(document["front"])
    told = surgery_command("search", document["model"], *said_again(tmp_path, "--budget", "blocks=3"))
    assert "chosen.yaml" in told.stdout and "the budget is blocks=3: at most 3 of 5 blocks" in told.stdout


def said_again(tmp_path, *arguments):
    """The arguments of `search`, for people."""
    given = ("--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out", "--bins", "2", "--batch-size", "2")
    return (*given, *ARGUMENTS, *arguments)


def test_a_search_of_another_request_takes_force_and_finds_what_was_measured(
    pipeline, undisturbed, tmp_path, monkeypatch
):
    folder = shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(InputError, match="holds the results of another request"):
        python_search(pipeline, folder, budget="blocks=4")
    monkeypatch.setattr(Shelf, "add", lambda *_: pytest.fail("measured again"))
    again = python_search(pipeline, folder, budget="blocks=4", force=True)
    first = json.loads((undisturbed / "search.json").read_text())["front"]
    assert [point.chosen_interval.value for point in again.front] == [each["chosen"]["value"] for each in first[:2]]
    assert not (folder / "front_01.yaml").exists()


@pytest.mark.parametrize("number", [1, 6])
def test_a_search_that_is_killed_goes_on_where_it_was_and_writes_the_same_to_the_byte(
    pipeline, undisturbed, tmp_path, monkeypatch, number
):
    """What is killed in the middle of a measurement loses that one: all that were done are found again."""
    keep, kept = Shelf.add, []

    def die(shelf, found):
        if len(kept) == number:
            raise KeyboardInterrupt("killed")
        kept.append(found)
        keep(shelf, found)

    def count(shelf, found):
        kept.append(found)
        keep(shelf, found)

    monkeypatch.setattr(Shelf, "add", die)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        python_search(pipeline, tmp_path / "out")
    monkeypatch.setattr(Shelf, "add", count)
    python_search(pipeline, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert len(kept) == NUM_UNITS


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_is_made_good(search, pipeline, tmp_path):
    _, undisturbed = search("--budget", "blocks=3", out="undisturbed")
    command = [sys.executable, "cli.py", "search", pipeline, *said_again(tmp_path, "--budget", "blocks=3")]
    for seconds in (6, 9, 11, 12, 13, 14):
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    _, folder = search("--budget", "blocks=3")
    assert contents(folder) == contents(undisturbed)


def test_workers_that_are_lost_and_done_again_in_any_order_find_the_same(pipeline, undisturbed, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def open_lossy(choice, device):
        yield engine

    engine = LossyEngine(Random(0), 2)
    engine.loses = lambda label: label not in engine.order and not engine.order.append(label)  # each unit once
    monkeypatch.setattr(run_search, "open_engine", open_lossy)
    python_search(pipeline, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(undisturbed)


# From Python.


def test_a_function_is_an_objective(pipeline, tmp_path):
    """It is given specs and prompts, each set once a half, and its least damage is what is found."""
    asked = []

    def parity(spec, prompts):
        (schedule,) = surgery.check(spec, str(pipeline)).schedules
        asked.append((tuple(sorted(schedule.removed)), len(prompts)))
        return [1 + sum(1 + 10 * (index % 2) for index in schedule.removed)] * len(prompts)

    found = python_search(pipeline, tmp_path / "out", objective=parity, name="parity")
    removed = {edit.index for edit in found.chosen.candidate}
    assert len(removed) == 2 and all(index % 2 == 0 for index in removed)
    assert len(set(asked)) == len(asked) and all(number == 3 for _, number in asked)
    assert found.front[0].chosen_interval.value == 1 and found.spent["choosing"].runs is None
    assert np.array_equal(found.chosen.held_out, [3.0, 3.0, 3.0])
    before = len(asked)
    python_search(pipeline, tmp_path / "out", objective=parity, name="parity")
    assert len(asked) == before


@pytest.mark.parametrize("answer", [1.0, [1.0], [1.0] * 4, ["x"] * 3, None])
def test_a_function_that_gives_no_number_a_prompt_is_refused(pipeline, tmp_path, answer):
    with pytest.raises(InputError, match="the objective odd was given 3 prompts, and did not return as many numbers"):
        python_search(pipeline, tmp_path / "out", objective=lambda spec, prompts: answer, name="odd")


def test_damage_that_is_no_number_is_never_chosen(pipeline, tmp_path):
    def broken(spec, prompts):
        (schedule,) = surgery.check(spec, str(pipeline)).schedules
        return [float("nan") if 1 in schedule.removed else float(len(schedule.removed))] * len(prompts)

    found = python_search(pipeline, tmp_path / "out", objective=broken, name="broken")
    assert all(1 not in {edit.index for edit in point.candidate} for point in found.front)


# What is wrong.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--budget", "blocks=3", "--units", "layers"),
            'there is no unit "layers"; there are blocks, components, both',
        ),
        (("--budget", "blocks=3", "--method", "greed"), 'no method "greed".*did you mean "greedy"'),
        (
            ("--budget", "blocks=3", "--objective", "denoising"),
            'no objective "denoising".*did you mean "denoising-error"',
        ),
        (("--budget", "blocks=-1"), "blocks=-1 leaves nothing; write one like blocks=9"),
        (("--budget", "blocks=6"), "blocks=6 leaves the model as it is, which has 5 blocks"),
        (("--budget", "block=3"), 'no budget of "block".*did you mean "blocks"'),
        (
            ("--budget", "blocks=3", "--forbid", "transformer_blocks[9]"),
            "there is no layer 9; transformer_blocks has layers 0",
        ),
        (
            ("--budget", "blocks=1", "--forbid", "transformer_blocks[:2]"),
            "can't be met: .* 2 are left .*write blocks=2",
        ),
        (("--budget", "blocks=3", "--weights", "1"), "there are 1 weights and 2 bins; write 2 numbers"),
        (("--budget", "blocks=3", "--weights", "1,1", "--objective", "ssim"), "--weights are of the timestep bins of"),
        (("--budget", "executions=3", "--windows", "3"), "2 timestep bins do not fall into 3 windows; give --bins 3"),
        (("--budget", "blocks=3", "--windows", "2"), "stays there; give a budget of executions"),
        (
            ("--budget", "blocks=3", "--method", "exhaustive", "--max-sets", "9"),
            "10 sets in up to 60 runs of the model, 6 a set, and at most 9",
        ),
        (("--budget", "blocks=3", "--workers", "2"), "--workers would do nothing with --engine serial"),
        (("--budget", "blocks=3", "--sample", "3"), "3 different prompts are too few to split; give 4 or more"),
        (("--budget", "blocks=3", "--sample", "99"), "holds 6 prompts, and 99 are to be drawn"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_is_wrong_is_said_and_nothing_is_left(search, tmp_path, arguments, message):
    said = search(*arguments, status=1)
    assert re.search(message, said), said
    assert "Traceback" not in said and not (tmp_path / "out" / "search.json").exists()


def test_a_missing_file_of_prompts_and_a_bare_transformer_are_refused(surgery_command, pipeline, tmp_path):
    given = ("--budget", "blocks=3", "--out", tmp_path / "out")
    missing = surgery_command("search", pipeline, "--prompts", tmp_path / "none.txt", *given)
    assert missing.exit_code == 1 and "the prompts" in missing.stderr and not (tmp_path / "out").exists()
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    bare = surgery_command("search", Path(pipeline) / "transformer", "--prompts", tmp_path / "p.txt", *given)
    assert bare.exit_code == 1 and "is a bare transformer" in bare.stderr and not (tmp_path / "out").exists()


# On the bundled pipeline.


@pytest.mark.slow
def test_on_the_bundled_pipeline_greedy_equals_exhaustive_for_three_blocks_and_six_cost_less_than_57_runs(tmp_path):
    prompts = (ROOT / "exports" / "demo" / "prompts.txt").read_text().splitlines()[:16]
    options = {"bins": 5, "call": {"num_inference_steps": 10}, "force": True}
    found = {
        method: surgery.search("demo", prompts, tmp_path / "out", budget="blocks=9", method=method, **options)
        for method in ("exhaustive", "beam:8", "greedy")
    }
    best = found["exhaustive"].chosen.choosing.mean()
    assert [each.chosen.choosing.mean() for each in found.values()] == [best] * 3
    six = surgery.search("demo", prompts, tmp_path / "out", budget="blocks=6", **options)
    assert six.model_runs(six.halves[0]) <= 57 and six.spent["choosing"].sets == 57
    assert torch.get_num_threads() >= 1
