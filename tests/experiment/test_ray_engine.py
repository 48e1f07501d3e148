"""Ray itself: its actors give the same to the bit, also when they are killed, and nothing of them is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import pytest
from lossy_crew import NoBench, Square

from surgery.errors import RefusedError, SpecError, WorkerError
from surgery.experiment.engines import tell_nobody
from surgery.experiment.ray_engine import open_ray

ROOT = Path(__file__).parents[2]
SWEEP = """
surgery: v1
model: demo
vary: {k: [1, 5, 9]}
operations: [{skip: "transformer_blocks[{k}]"}]
"""
OPTIONS = (
    "--steps",
    "2",
    "--bins",
    "2",
    "--batch-size",
    "2",
    "--extractor",
    "none",
    "--clip",
    "none",
    "--threads",
    "1",
)
RAY = ("--engine", "ray", "--workers", "2")
SECONDS = 1800  # that a run may take, on a machine that has much else to do

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _with_ray():
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'layer-surgery[ray]'")


@pytest.fixture(scope="module")
def folder():
    """Of a short name, which leaves room for those of Ray's sockets; temporary files are in it as well."""
    with tempfile.TemporaryDirectory(prefix="r") as name:
        found = Path(name)
        (found / "sweep.yaml").write_text(SWEEP)
        (found / "prompts.txt").write_text("red apple\nrocket\ntwo dogs\nblue heart\n")
        yield found


def start(folder, out, *options):
    """The evaluation in a process of its own."""
    return run(folder, "evaluate", "sweep.yaml", "--out", out, *OPTIONS, *options)


def run(folder, *options):
    """A command in a process of its own."""
    command = [sys.executable, ROOT / "cli.py", *options, "--prompts", "prompts.txt"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*map(str, command)], cwd=folder, env=settings, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def undisturbed(folder):
    """What one process measures."""
    finish(start(folder, "serial"))
    return numbers(folder / "serial")


def numbers(out):
    return json.loads((out / "evaluation.json").read_text())


def processes(text):
    """The processes in whose command line a text is, by number."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(int(path.parent.name))
    return found


def workers_of(folder):
    """The actors of a run in a folder: children of its raylet, which names the folder."""
    raylets = [pid for pid in processes(str(folder)) if "raylet" in Path(f"/proc/{pid}/cmdline").read_text()]
    return [pid for pid in processes("ray::Worker") if parent_of(pid) in raylets]


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def wait_until(condition, process):
    end = time.monotonic() + SECONDS
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "it never came to it"
        time.sleep(0.05)


def nothing_is_left(folder):
    end = time.monotonic() + 30
    while (left := [*folder.glob("s-ray-*"), *processes(f"{folder}/s-ray-")]) and time.monotonic() < end:
        time.sleep(0.2)
    return not left


def no_worker_is_left(folder):
    end = time.monotonic() + 60
    while (left := workers_of(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return not left


def test_ray_and_one_process_give_the_same_to_the_bit(folder, undisturbed):
    finish(start(folder, "ray", *RAY))
    assert numbers(folder / "ray") == undisturbed
    assert (folder / "ray" / "contact_sheet.png").read_bytes() == (folder / "serial" / "contact_sheet.png").read_bytes()
    assert nothing_is_left(folder)


def test_ray_and_one_process_give_the_same_profile_to_the_bit(folder):
    for name, more in (("serial", ()), ("ray", RAY)):
        options = ("--steps", "2", "--batch-size", "1", "--threads", "1", "--out", f"{name}.safetensors")
        finish(run(folder, "profile", "demo", *options, *more))
    assert (folder / "ray.safetensors").read_bytes() == (folder / "serial.safetensors").read_bytes()
    assert nothing_is_left(folder)


def test_an_actor_that_is_killed_in_the_middle_is_replaced(folder, undisturbed):
    process = start(folder, "killed", *RAY)
    wait_until(lambda: len(list((folder / "killed").rglob("*.png"))) >= 4, process)
    (worker, *_) = workers_of(folder)
    os.kill(worker, signal.SIGKILL)
    finish(process)
    assert numbers(folder / "killed") == undisturbed
    assert nothing_is_left(folder)


@pytest.fixture(scope="module")
def length(folder):
    """The seconds that two workers take, from the first of them on."""
    process = start(folder, "timed", *RAY)
    wait_until(lambda: workers_of(folder), process)
    begun = time.monotonic()
    finish(process)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", range(15))
def test_actors_that_are_killed_at_random_moments_are_replaced(folder, undisturbed, length, number):
    """Two of them, as the third of one unit stops a run: fifteen times make thirty moments.

    A run that has ended before its second moment is followed by another.
    """
    random, killed = Random(number), 0
    while killed < 2:
        shutil.rmtree(folder / "out", ignore_errors=True)
        process = start(folder, "out", *RAY)
        wait_until(lambda: workers_of(folder), process)
        for seconds in [random.uniform(0, length / 2) for _ in range(2 - killed)]:
            time.sleep(seconds)
            for worker in random.sample(found := workers_of(folder), min(1, len(found))):
                os.kill(worker, signal.SIGKILL)
                killed += 1
        finish(process)
        assert numbers(folder / "out") == undisturbed


@pytest.mark.parametrize("number", range(10))
def test_a_driver_that_is_killed_at_random_moments_leaves_no_worker_and_its_run_goes_on(
    folder, undisturbed, length, number
):
    """Three times before it may end: ten of them make thirty moments, from its start on."""
    random, killed = Random(number), 0
    while killed < 3:
        shutil.rmtree(folder / "out", ignore_errors=True)
        for _ in range(3 - killed):
            process = start(folder, "out", *RAY)
            time.sleep(random.uniform(0, 2 * length))
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
            assert no_worker_is_left(folder)
        finish(start(folder, "out", *RAY))
        assert numbers(folder / "out") == undisturbed


def test_a_driver_that_is_killed_leaves_no_worker_and_its_run_goes_on(folder, undisturbed):
    process = start(folder, "driver", *RAY)
    wait_until(lambda: len(list((folder / "driver").rglob("*.png"))) >= 6, process)
    process.kill()
    process.communicate()
    assert no_worker_is_left(folder)
    finish(start(folder, "driver", *RAY))
    assert numbers(folder / "driver") == undisturbed


def test_what_stops_a_run_says_what_is_kept_and_leaves_nothing(folder):
    for left in folder.glob("s-ray-*"):  # of a run that was killed, and could remove nothing
        shutil.rmtree(left)
    process = start(folder, "stopped", *RAY)
    wait_until(lambda: len(list((folder / "stopped").rglob("*.png"))) >= 4, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and "interrupted: the pictures that were drawn are kept in stopped" in said
    assert nothing_is_left(folder)


def test_what_an_actor_raises_or_dies_of_is_told_without_tracebacks_of_ray(monkeypatch):
    paths = (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    with open_ray(1, 1, None, "cpu") as engine:
        bench = NoBench()
        assert list(engine.run(bench, [Square(3)], tell_nobody)) == [(0, 9)]
        for error in (SpecError(["one: two", "three"]), RefusedError("it can't be done")):
            with pytest.raises(type(error), match=str(error)) as caught:
                list(engine.run(bench, [Square(3, error)], tell_nobody))
            assert (type(caught.value), str(caught.value)) == (type(error), str(error))
        with pytest.raises(WorkerError, match="3 workers were lost doing the same: square 4"):
            list(engine.run(bench, [Square(4, kills=True)], tell_nobody))
        assert list(engine.run(bench, [Square(3)], tell_nobody)) == [(0, 9)]
