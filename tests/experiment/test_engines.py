"""Engines: whoever does the work, in whatever order, and however often a worker is lost, the table is the same."""

import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from lossy_crew import LossyCrew, LossyEngine, Square
from typer.testing import CliRunner

import surgery.errors
from surgery.anatomy.sources import find_source
from surgery.bundled import DEMO_CALL
from surgery.commands.main import app
from surgery.errors import InputError, RefusedError, SpecError, SurgeryError, WorkerError
from surgery.experiment import evaluation
from surgery.experiment.bench import Bench
from surgery.experiment.dispatch import Dispatcher
from surgery.experiment.engine_choice import EngineChoice, computing_threads, open_engine
from surgery.experiment.engines import SERIAL, tell_nobody
from surgery.experiment.evaluation import EvaluationRequest, key_of_request, list_rows, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet
from surgery.experiment.ray_engine import Share, connect, num_gpus_of, shares
from surgery.experiment.run import open_run
from surgery.spec.load import load_spec

SKIP = Path(__file__).parents[2] / "specs" / "demo" / "skip.yaml"
CALL = {**DEMO_CALL, "num_inference_steps": 2}


def make_request(out, **changes):
    judges = JudgeRequest(extractors=("none",), clip="none", lpips="none")
    options = {"specs": (str(SKIP),), "prompts": PromptSet(("red apple", "rocket")), "judges": judges}
    return EvaluationRequest(**{"out": out, "batch_size": 2, "bins": 1, "call": CALL, **options, **changes})


@pytest.mark.parametrize("seed", range(20))
def test_every_unit_is_done_once_whatever_is_lost(seed):
    """Some units are lost twice, some workers as they open; no more workers are there than have work."""
    random, lost = Random(seed), Counter()

    def loses(label):
        lost[label] += 1
        return lost[label] <= random.choice((0, 1, 2))

    crew = LossyCrew(random, lambda: None, loses, lambda: crew.most < 3 and random.random() < 0.3)
    dispatcher, told = Dispatcher(crew, 4), []
    for num in (9, 2):  # workers stay for the next run
        units = [Square(number) for number in range(num)]
        found = list(dispatcher.run(units, lambda number, text: told.append(number)))
        assert sorted(found) == list(SERIAL_SQUARES[:num])
        lost.clear()
    assert sum(told) == 9 + 2
    assert crew.most <= 4 and not crew.given


SERIAL_SQUARES = list(SERIAL.run(None, [Square(number) for number in range(9)], tell_nobody))


def test_a_unit_that_loses_three_workers_is_given_up():
    crew = LossyCrew(Random(0), lambda: None, lambda label: label == "square 1")
    with pytest.raises(WorkerError, match=r"3 workers were lost doing the same: square 1 \(it was killed\); if memory"):
        list(Dispatcher(crew, 2).run([Square(number) for number in range(3)], tell_nobody))
    assert not crew.given


def test_workers_that_can_not_open_the_model_are_given_up():
    crew = LossyCrew(Random(0), lambda: None, loses_opening=lambda: True)
    with pytest.raises(WorkerError, match=r"3 workers were lost while they opened the model \(it was killed\); if"):
        list(Dispatcher(crew, 2).run([Square(0), Square(1)], tell_nobody))


def test_what_a_unit_raises_comes_back_and_the_next_run_has_workers_that_do_nothing_else():
    crew = LossyCrew(Random(0), lambda: None)
    dispatcher = Dispatcher(crew, 2)
    with pytest.raises(RefusedError, match="it can't be done"):
        list(dispatcher.run([Square(0, RefusedError("it can't be done")), *map(Square, range(1, 6))], tell_nobody))
    assert not crew.given
    assert sorted(dispatcher.run([Square(number) for number in range(9)], tell_nobody)) == SERIAL_SQUARES


ERRORS = [kind for kind in vars(surgery.errors).values() if isinstance(kind, type) and issubclass(kind, SurgeryError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_come_from_another_process_as_they_are(kind):
    error = SpecError(["one: two", "three"], partial=("a",)) if kind is SpecError else kind("one: two")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))


def test_the_table_is_that_of_one_process_whatever_is_lost(tmp_path, monkeypatch):
    """Units are lost twice, results come in another order, and every worker opens the model for itself."""
    alone = run_evaluation(make_request(tmp_path / "alone"))
    engine = LossyEngine(Random(3), 2, "skip, pictures 0", "denoising errors at 0.50, prompts 0")
    monkeypatch.setattr(evaluation, "open_engine", engine.opened)
    shared = run_evaluation(make_request(tmp_path / "shared"))
    assert engine.order != sorted(engine.order) and list(engine.lost.values()) == [3, 3]
    assert json.dumps(shared.to_json()) == json.dumps(alone.to_json())
    for name, pictures in alone.pictures.items():
        assert torch.equal(pictures.all_pixels(), shared.pictures[name].all_pixels()), name


def test_the_engine_is_no_part_of_what_is_asked_for(tmp_path):
    chosen = EngineChoice("ray", 8, 2, "auto")
    assert key_of_request(make_request(tmp_path, engine=chosen)) == key_of_request(make_request(tmp_path))


def test_a_bench_is_not_opened_where_pictures_would_be_others(tmp_path):
    request = make_request(tmp_path)
    run = open_run(find_source("demo"), request, request.prompts.prompts)
    rows = list_rows(run.pipe, [load_spec(SKIP)], request, (64, 64))
    described = Bench(run, tuple(rows), request.prompts.prompts).description()
    versions = {**described.recipe["versions"], "torch": "1.0"}
    with pytest.raises(InputError, match=r"it would draw other pictures: versions torch is .* here, and 1\.0 where"):
        replace(described, recipe={**described.recipe, "versions": versions}).open()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (EngineChoice(workers=2), "--workers would do nothing with --engine serial; write --engine ray"),
        (EngineChoice(address="auto", workers=2), "--workers and --address would do nothing with --engine serial"),
    ],
)
def test_options_of_another_engine_are_refused(choice, message):
    with pytest.raises(InputError, match=message), open_engine(choice, "cpu"):
        pass


def test_an_engine_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    (tmp_path / "prompts.txt").write_text("rocket\n")
    command = ["evaluate", str(SKIP), "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--engine", "ray"])
    assert result.exit_code == 1 and not (tmp_path / "out").exists()
    assert "--engine ray needs Ray; install it with pip install 'layer-surgery[ray]'" in result.output


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "there is no cluster at 127.0.0.1:9; start one with ray start --head, and give --address"),
        ("ray://head:10001", '"ray://head:10001" is no address of a cluster; write --address HOST:PORT, or auto'),
        ("head", '"head" is no address of a cluster'),
        ("127.0.0.1:99999999", "there is no cluster at 127.0.0.1:99999999"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address, message):
    with pytest.raises(InputError, match=message):
        connect(None, address)


def node(alive=True, **resources):
    return {"Alive": alive, "Resources": {"memory": 1.0, **resources}}


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(CPU=8.0)], (None, None, 0), (Share(1, 0), 8)),
        ([node(CPU=8.0)], (2, None, 0), (Share(4, 0), 2)),
        ([node(CPU=8.0), node(CPU=5.0)], (None, 4, 0), (Share(4, 0), 3)),
        ([node(CPU=64.0, GPU=4.0), node(CPU=64.0, GPU=4.0)], (None, None, 1), (Share(16, 1), 8)),
        ([node(CPU=64.0, GPU=8.0), node(alive=False, CPU=64.0, GPU=8.0)], (4, 2, 1), (Share(2, 1), 4)),
        ([node(CPU=2.0, GPU=8.0)], (None, 1, 1), (Share(1, 1), 2)),
    ],
)
def test_workers_share_the_machines(nodes, asked, expected):
    assert shares(nodes, *asked) == expected


def test_more_workers_than_there_is_room_for_are_refused():
    with pytest.raises(InputError, match="has room for 2 workers of 4 CPUs, and 3 are asked for; give fewer --workers"):
        shares([node(CPU=8.0)], 3, 4, 0)
    with pytest.raises(InputError, match="has room for 0 workers of 8 CPUs and a GPU, and 1 are asked for"):
        shares([node(CPU=8.0)], None, None, 1)
    with pytest.raises(InputError, match="has a device of its own, not cuda:1; write cpu or cuda"):
        num_gpus_of("cuda:1")


def test_threads_are_those_that_were_asked_for_and_then_as_before():
    before = torch.get_num_threads()
    with open_engine(EngineChoice(threads=before + 1), "cpu") as engine:
        assert engine is SERIAL and torch.get_num_threads() == before + 1
    with computing_threads(None):
        assert torch.get_num_threads() == before
