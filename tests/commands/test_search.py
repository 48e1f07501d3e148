"""`surgery search`: it finds what slow ways find, writes what was measured, and a kill costs little."""

import contextlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from lossy_crew import LossyEngine

import surgery
from surgery.errors import InputError
from surgery.experiment.denoising_error import denoising_errors
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.run import RunRequest, open_run, source_with_pipeline
from surgery.experiment.search import run_search as running
from surgery.experiment.search.open_objective import clean_latents
from surgery.experiment.search.request import SearchRequest
from surgery.experiment.search.run_search import run_search
from surgery.experiment.search.store import Shelf
from surgery.graph.apply import Variants
from surgery.plan.planned import plan_spec
from surgery.spec.load import load_spec, read_spec

ROOT = Path(__file__).parents[2]
STACK = "transformer_blocks"
PROMPTS = ("red apple", "blue heart", "apple", "heart", "red heart", "blue apple")
NUM_BLOCKS = 5
NUM_UNITS = (2 + 1) * 2 * 2  # two levels and the half held out, two batches, two bins
CALL = {"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False, "num_inference_steps": 2}
ARGUMENTS = [part for key, value in CALL.items() for part in ("--call", f"{key}={json.dumps(value)}")]
OPTIONS = {"budget": "blocks=3", "call": CALL, "bins": 2, "batch_size": 2}


def search(pipeline, out, **options):
    """From Python, with everything written."""
    return surgery.search(pipeline, PROMPTS, out, **{**OPTIONS, **options})


def find(pipeline, out, damage=None, **options):
    """The search alone; nothing is written but the store."""
    request = SearchRequest(model=str(pipeline), prompts=PROMPTS, out=Path(out), **{**OPTIONS, **options})
    return run_search(request, damage)


@pytest.fixture(scope="module")
def undisturbed(pipeline, tmp_path_factory):
    """The folder of a search that nobody kills."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    search(pipeline, out)
    return out


@pytest.fixture
def command(surgery_command, pipeline, tmp_path):
    """Runs the command on the tiny pipeline."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))

    def run(*arguments):
        given = ("search", pipeline, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out")
        return surgery_command(*given, "--bins", "2", "--batch-size", "2", *ARGUMENTS, *arguments)

    return run


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".surgery.json", "recipe.json", "pictures.json")
    }


# What is found.


def errors_by_hand(folder, pipeline, specs):
    """The denoising errors of specs on the first half: each variant is built, and predicts alone."""
    run = open_run(source_with_pipeline(str(pipeline)), RunRequest(call=CALL), PROMPTS)
    (stored,) = (folder / "store" / "pictures").iterdir()
    recipe = json.loads((stored / "recipe.json").read_text())
    pictures = PictureStore(stored.parent).open(recipe).read(len(PROMPTS))
    clean = clean_latents(type("Bench", (), {"run": run}), pictures)[:3]
    variants = Variants(run.pipe)
    rows = {name: variants.make(plan_spec(spec, variants.first.anatomy)) for name, spec in specs.items()}
    options = {"seeds": range(3), "bins": 2, "batch_size": 2, "call": CALL}
    found = denoising_errors(rows, run.pipe, clean, PROMPTS[::2], **options)
    return {name: float(errors.to_baseline.mean()) for name, errors in found.items()}


def test_exhaustive_finds_what_trying_all_pairs_one_by_one_finds(pipeline, undisturbed, tmp_path):
    pairs = list(itertools.combinations(range(NUM_BLOCKS), 2))
    specs = {pair: read_spec(f"surgery: v1\noperations: [{{skip: '{STACK}{list(pair)}'}}]") for pair in pairs}
    by_hand = errors_by_hand(undisturbed, pipeline, specs)
    found = find(pipeline, shutil.copytree(undisturbed, tmp_path / "out"), method="exhaustive")
    assert tuple(sorted(edit.index for edit in found.chosen.candidate)) == min(pairs, key=by_hand.get)
    measured = [damage for _, amount, damage in found.measured if amount == 3]
    assert sorted(measured) == pytest.approx(sorted(by_hand.values()), rel=1e-5)


@pytest.mark.slow
def test_windows_are_no_worse_for_as_many_executions_and_check_says_as_many(
    pipeline, undisturbed, tmp_path, surgery_command
):
    """Both by trying all sets: what is left out always is one of the sets with windows."""
    out = shutil.copytree(undisturbed, tmp_path / "out")
    whole = find(pipeline, out, budget="executions=4", method="exhaustive")
    found = find(pipeline, out, budget="executions=4", method="exhaustive", windows=2)
    assert found.chosen.choosing.mean() <= whole.chosen.choosing.mean() + 1e-12
    assert {point.is_met for point in found.front[1:]} == {True}
    (tmp_path / "chosen.yaml").write_text(found.chosen.spec_text)
    said = surgery_command("check", tmp_path / "chosen.yaml", "--steps", "2", "--json")
    assert said.exit_code == 0
    cost = json.loads(said.stdout)["cost"]
    assert cost["block_executions"]["after"] == pytest.approx(found.chosen.amount) == 4


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"budget": "parameters=60%", "units": "both", "forbid": (f"{STACK}[0]",)}, marks=pytest.mark.slow),
        {"budget": "latency=80%", "method": "beam:2", "weights": "0,1"},
        {"budget": "blocks=4", "objective": "trajectory-error"},
        {"budget": "blocks=4", "objective": "ssim"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_the_front_is_monotone_and_each_of_its_specs_plans_to_what_it_claims(pipeline, tmp_path, options):
    found = find(pipeline, tmp_path / "out", **options)
    amounts = [point.amount for point in found.front]
    damages = [point.chosen_interval.value for point in found.front]
    assert amounts == sorted(set(amounts), reverse=True) and damages == sorted(set(damages))
    assert found.front[0].text == "nothing" and damages[0] == 0
    assert found.chosen.is_met and found.chosen.amount <= found.limit * (1 + 1e-9)
    assert found.chosen is next(point for point in found.front if point.is_met)
    assert not any(f"{STACK}[0" in point.text for point in found.front if "forbid" in options)
    for point in found.front[1:]:
        planned = plan_spec(read_spec(point.spec_text), point.planned.anatomy)
        assert planned.plan.hash == point.planned.plan.hash
        kind = options["budget"].partition("=")[0]
        claimed = {"parameters": planned.cost.parameters_after, "blocks": planned.cost.executions_after}
        assert point.amount == claimed.get(kind, point.amount)
        assert len(point.choosing) == len(point.held_out) == 3
        assert point.gap.value == pytest.approx(point.held_out.mean() - point.choosing.mean())


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


# What is written, and gone on with.


def test_the_folder_holds_specs_that_say_why_a_table_a_figure_and_a_page(undisturbed, pipeline):
    names = {"chosen.yaml", "front_01.yaml", "search.json", "front.csv", "search.png", "search.svg", "search.html"}
    assert {path.name for path in undisturbed.iterdir() if path.is_file()} == {*names, ".surgery.json"}
    document = json.loads((undisturbed / "search.json").read_text())
    for point in document["front"][1:]:
        assert surgery.check(load_spec(undisturbed / point["spec"]), str(pipeline)).hash == point["plan"]
    text = (undisturbed / "chosen.yaml").read_text()
    assert text.startswith(
        "# Found by `surgery search`: blocks, by denoising-error, greedy, for the budget blocks=3.\n"
    )
    for said in ("within the budget", "has not seen", "without it", "next best, as cheap: ", "of the model"):
        assert said in text
    page = (undisturbed / "search.html").read_text()
    assert "<script" not in page and page.count("<details") == 2
    assert all(point["edits"] in page for point in document["front"][1:])
    assert len((undisturbed / "front.csv").read_text().splitlines()) == 1 + len(document["front"])


def test_the_command_tells_the_front_as_it_finds_it_and_then_as_a_table(command):
    told = command("--budget", "blocks=4")
    assert told.exit_code == 0
    assert re.search(r"^4 blocks: damage 0\.\d{4}: transformer_blocks\[\d\]$", told.stderr, re.MULTILINE)
    assert "the budget is blocks=4: at most 4 of 5 blocks" in told.stdout
    assert re.search(r"^chosen\.yaml +4 ", told.stdout, re.MULTILINE)
    assert "\nit took: choosing 5 sets on 3 prompts, 114 block runs: 3.8 of the model" in told.stdout
    again = command("--budget", "blocks=4", "--json")
    assert json.loads(again.stdout)["front"][1]["spec"] == "chosen.yaml" and again.stderr.count("measuring") == 0


def test_another_request_takes_force_and_finds_what_was_measured(pipeline, undisturbed, tmp_path, monkeypatch):
    folder = shutil.copytree(undisturbed, tmp_path / "out")
    with pytest.raises(InputError, match="holds the results of another request"):
        search(pipeline, folder, budget="blocks=4")
    monkeypatch.setattr(Shelf, "add", lambda *_: pytest.fail("measured again"))
    again = search(pipeline, folder, budget="blocks=4", force=True)
    first = json.loads((undisturbed / "search.json").read_text())["front"]
    assert [point.chosen_interval.value for point in again.front] == [each["chosen"]["value"] for each in first[:2]]
    assert not (folder / "front_01.yaml").exists()


def test_what_was_measured_on_other_prompts_is_not_taken_for_ones_own(undisturbed):
    """A shelf is told from others by all that its numbers depend on: prompts, call, seed, batches, model, versions."""
    recipes = [json.loads(path.read_text())["recipe"] for path in (undisturbed / "store" / "sets").iterdir()]
    for recipe in recipes:
        assert recipe["prompts"] == [*PROMPTS[::2], *PROMPTS[1::2]]
        assert recipe.keys() >= {"model", "components", "call", "seed", "batch_size", "dtype", "device", "versions"}
    assert len({json.dumps([recipe["part"], recipe["numbers"]]) for recipe in recipes}) == len(recipes)


def test_a_killed_search_goes_on_and_writes_the_same_to_the_byte(pipeline, undisturbed, tmp_path, monkeypatch):
    """What is killed in the middle of a measurement loses that one: all that were done are found again."""
    keep, kept = Shelf.add, []

    def count(shelf, found):
        if len(kept) == limit:
            raise KeyboardInterrupt("killed")
        kept.append(found)
        keep(shelf, found)

    monkeypatch.setattr(Shelf, "add", count)
    limit = 6
    with pytest.raises(KeyboardInterrupt, match="killed"):
        search(pipeline, tmp_path / "out")
    limit = None
    search(pipeline, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert len(kept) == NUM_UNITS


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_moment_is_made_good(pipeline, undisturbed, tmp_path, command):
    given = [pipeline, "--prompts", tmp_path / "prompts.txt", "--out", tmp_path / "out", "--budget", "blocks=3"]
    options = ["--bins", "2", "--batch-size", "2", *ARGUMENTS]
    for seconds in (8, 10, 12, 14, 16):
        process = subprocess.Popen([sys.executable, "cli.py", "search", *map(str, given), *options], cwd=ROOT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert command("--budget", "blocks=3").exit_code == 0
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_workers_that_are_lost_find_the_same(pipeline, undisturbed, tmp_path, monkeypatch):
    """Each unit is lost once, and units are done in any order, on benches of the workers' own."""

    @contextlib.contextmanager
    def open_lossy(choice, device):
        yield engine

    engine, lost = LossyEngine(Random(0), 2), set()
    engine.loses = lambda label: label not in lost and not lost.add(label)
    monkeypatch.setattr(running, "open_engine", open_lossy)
    found = find(pipeline, tmp_path / "out")
    expected = json.loads((undisturbed / "search.json").read_text())
    assert json.loads(json.dumps([point.to_json() for point in found.front])) == [
        {key: value for key, value in point.items() if key != "spec"} for point in expected["front"]
    ]
    assert len(lost) > NUM_UNITS // 2


# A function as the objective.


def removed_by(spec, pipeline):
    (schedule,) = surgery.check(spec, str(pipeline)).schedules
    return schedule.removed


def test_a_function_is_an_objective(pipeline, tmp_path):
    """It is asked of each set once a half, and not again by the next run; what is no number is never chosen."""
    asked = []

    def odd(spec, prompts):
        removed = removed_by(spec, pipeline)
        asked.append((tuple(removed), prompts))
        return [float("nan") if 0 in removed else 1.0 + sum(1 + 10 * (i % 2) for i in removed)] * len(prompts)

    found = search(pipeline, tmp_path / "out", objective=odd, name="odd")
    assert {edit.index for edit in found.chosen.candidate} == {2, 4}
    assert len(set(asked)) == len(asked) and {len(prompts) for _, prompts in asked} == {3}
    assert found.front[0].chosen_interval.value == 1 and found.spent["choosing"].runs is None
    assert np.array_equal(found.chosen.held_out, [3.0, 3.0, 3.0])
    before = len(asked)
    find(pipeline, tmp_path / "out", odd, objective="odd")
    assert len(asked) == before
    document = json.loads((tmp_path / "out" / "search.json").read_text(), parse_constant=pytest.fail)
    assert set(document["not_finite"].values()) == {"Infinity"}
    assert any(one["damage"] is None and STACK + "[0]" in one["edits"] for one in document["measured"])


# What is wrong.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("blocks=3 --units layers", 'there is no unit "layers"; there are blocks, components, both'),
        ("blocks=3 --method greed", 'no method "greed".*did you mean "greedy"'),
        ("blocks=3 --objective denoising", 'no objective "denoising".*did you mean "denoising-error"'),
        ("blocks=-1", "blocks=-1 leaves nothing; write one like blocks=9"),
        ("blocks=6", "blocks=6 leaves the model as it is, which has 5 blocks"),
        ("block=3", 'no budget of "block".*did you mean "blocks"'),
        (f"blocks=3 --forbid {STACK}[9]", "there is no layer 9; transformer_blocks has layers 0"),
        (f"blocks=1 --forbid {STACK}[:2]", "can't be met: .* 2 are left .*write blocks=2"),
        ("blocks=3 --weights 1", "there are 1 weights and 2 bins; write 2 numbers"),
        ("blocks=3 --weights 1,1 --objective ssim", "--weights are of the timestep bins of"),
        ("executions=3 --windows 3", "2 timestep bins do not fall into 3 windows; give --bins 3"),
        ("blocks=3 --windows 2", "stays there; give a budget of executions"),
        ("blocks=3 --method exhaustive --max-sets 9", "10 sets in up to 60 runs of the model, 6 a set, and at most 9"),
        ("blocks=3 --workers 2", "--workers would do nothing with --engine serial"),
        ("blocks=3 --sample 3", "3 different prompts are too few to split; give 4 or more"),
        ("blocks=3 --sample 99", "holds 6 prompts, and 99 are to be drawn"),
    ],
)
def test_what_is_wrong_is_said_and_no_result_is_left(command, tmp_path, arguments, message):
    said = command("--budget", *arguments.split())
    assert said.exit_code == 1 and re.search(message, said.stderr), said.stderr
    assert "Traceback" not in said.stderr and not (tmp_path / "out" / "search.json").exists()


def test_a_missing_file_of_prompts_and_a_bare_transformer_are_refused(surgery_command, pipeline, tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    for model, prompts, message in (
        (pipeline, "none.txt", "none.txt"),
        (Path(pipeline) / "transformer", "p.txt", "is a bare transformer"),
    ):
        given = ("--prompts", tmp_path / prompts, "--budget", "blocks=3", "--out", tmp_path / "out")
        said = surgery_command("search", model, *given)
        assert said.exit_code == 1 and message in said.stderr and not (tmp_path / "out").exists()


# On the bundled pipeline.


@pytest.mark.slow
def test_for_three_blocks_of_the_bundled_pipeline_greedy_is_exhaustive_and_six_take_less_than_57_runs(tmp_path):
    prompts = (ROOT / "exports" / "demo" / "prompts.txt").read_text().splitlines()[:16]
    options = {"bins": 5, "call": {"num_inference_steps": 10}, "force": True}
    best = {
        method: surgery.search("demo", prompts, tmp_path / "out", budget="blocks=9", method=method, **options)
        for method in ("exhaustive", "beam:8", "greedy")
    }
    assert len({found.chosen.candidate for found in best.values()}) == 1
    six = surgery.search("demo", prompts, tmp_path / "out", budget="blocks=6", **options)
    assert six.spent["choosing"].sets == 57 and six.model_runs(six.halves[0]) <= 57
