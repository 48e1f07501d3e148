"""A compile that is killed: the target is absent or complete, and the next run is as if nothing had happened."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch

from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.publish.worker import ask_here

SPEC = 'surgery: v1\noperations:\n  - skip: "transformer_blocks[1]"\n  - skip: "single_transformer_blocks[2]"\n'
COMMAND = [sys.executable, "-c", "from surgery.commands.main import main; main()"]
NEAR_THE_END = 16  # operations
SECONDS = 60  # in which anything here ends on the slowest machine


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")


@dataclass(frozen=True)
class Compiler:
    """Compiles one spec of one model, in processes that can be killed. `new` is what a run left alone writes."""

    server: subprocess.Popen
    arguments: list[str]
    new: dict[str, bytes]

    def ask(self, out, *options, **request):
        """Run the command in a process forked for it (see forked_compile.py); its reply."""
        arguments = [*self.arguments, "--out", str(out), *options]
        self.server.stdin.write(json.dumps({"arguments": arguments, **request}) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def run(self, out, *options):
        """Run the command to its end."""
        reply = self.ask(out, *options)
        assert reply["status"] == 0, reply


@pytest.fixture(scope="module")
def start_compiler(tmp_path_factory):
    """Makes a Compiler for a model's folder, and ends its process at last."""
    servers = []

    def start(model, shard_size):
        folder = tmp_path_factory.mktemp("compiler")
        (folder / "spec.yaml").write_text(SPEC)
        answers = record_answers(folder / "spec.yaml", model, folder / "recorded", shard_size)
        (folder / "answers.json").write_text(json.dumps(answers))
        driver = Path(__file__).with_name("forked_compile.py")
        command = [sys.executable, str(driver), str(folder / "answers.json")]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        arguments = ["compile", str(folder / "spec.yaml"), "--model", str(model), "--to", "checkpoint"]
        arguments += ["--verify", "structure", "--max-shard-size", shard_size]
        Compiler(server, arguments, {}).run(folder / "out")
        return Compiler(server, arguments, content_of(folder / "out"))

    yield start
    for server in servers:
        server.stdin.close()
        server.stdout.close()
        server.wait(SECONDS)


def record_answers(spec, model, out, shard_size):
    """What the verifier is asked for by a compile, and answers."""
    answers = {}

    def ask(question, **about):
        answers[question] = ask_here(question, **about)
        return answers[question]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surgery.publish.pruned_model.open_verifier", lambda: contextlib.nullcontext(ask))
        compile_planned(plan_spec_file(spec, model=str(model)), out, CompileOptions("structure", shard_size))
    return answers


@pytest.fixture(scope="module")
def tiny(saved, start_compiler):
    """A Compiler of a tiny Flux in several shards: every operation takes microseconds."""
    compiler = start_compiler(saved("flux").many, "60KB")
    assert sum(name.endswith(".safetensors") for name in compiler.new) > 2
    return compiler


@pytest.fixture(scope="module")
def large(tmp_path_factory, start_compiler):
    """A Compiler of a Flux of 60 MB: there is time to be killed in the midst of a shard."""
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=64,
        num_attention_heads=10,
        joint_attention_dim=640,
        pooled_projection_dim=64,
        axes_dims_rope=(16, 24, 24),
    )
    folder = tmp_path_factory.mktemp("large")
    model.bfloat16().save_pretrained(folder, max_shard_size="25MB")
    return start_compiler(folder, "10MB")


@pytest.fixture
def memory():
    """A folder in memory where there is one: to wait for a disk in hundreds of runs proves nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


def content_of(folder):
    """Every file below a folder with its bytes, but for how long its checks took."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    if "surgery.json" in found:
        found["surgery.json"] = re.sub(rb'"seconds": [\d.e-]+', b"", found["surgery.json"])
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make_old(out):
    """What stands in the target's place before."""
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"old" * 1000)
    (out / "config").mkdir()
    (out / "config" / "config.json").write_text("{}")
    sizes = {str(path.relative_to(out)): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    (out / "surgery.json").write_text(json.dumps({"plan": "", "files": sizes}))
    return content_of(out)


def state_of(out, old, new):
    """What a killed run has left: the target is absent, or complete."""
    if not out.exists():
        if old is None:
            return "absent"
        beside = out.with_name(f".{out.name}.replaced")
        assert content_of(beside) == old, "neither in its place nor beside it"
        return "put aside"
    found = content_of(out)
    if found == new:
        return "new"
    assert old is not None and found == old, f"plausible and wrong: {sorted(found)}"
    return "old"


def finish(compiler, out, old, state):
    """The next run, which finds what a killed one has left: it succeeds and leaves no debris."""
    if old is not None or state != "new":
        compiler.run(out, *(["--force"] if old is not None else []))
    assert content_of(out) == compiler.new and names(out.parent) == [out.name]


def put_back(compiler, out, old):
    """A run that may not replace the target puts back what a killed one has put aside."""
    reply = compiler.ask(out)
    message = f"{out} is not empty; give another folder, or --force to replace it\n"
    assert (reply["status"], reply["stderr"]) == (1, message)
    assert content_of(out) == old and names(out.parent) == [out.name]


def kill_points(num_operations, every):
    """Before which operations a run is killed: all near the end, where folders take their places, some before."""
    return [n for n in range(1, num_operations + 1) if n > num_operations - NEAR_THE_END or n % every == 0]


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("force", [False, True], ids=["fresh", "force"])
def test_killed_before_any_operation_on_files(tiny, memory, force, every):
    """Before a making, opening, renaming or removing of a file there is one run that ends there."""
    states, options = [], ["--force"] if force else []
    (memory / "0").mkdir()
    if force:
        make_old(memory / "0" / "out")
    num_operations = tiny.ask(memory / "0" / "out", *options)["operations"]
    for number in kill_points(num_operations, every):
        out = memory / str(number) / "out"
        out.parent.mkdir()
        old = make_old(out) if force else None
        reply = tiny.ask(out, *options, before=number)
        assert reply["status"] == -signal.SIGKILL, reply
        states.append(state_of(out, old, tiny.new))
        if states[-1] == "put aside":
            put_back(tiny, out, old)
        finish(tiny, out, old, states[-1])
    expected = ["old", "put aside", "new"] if force else ["absent", "new"]
    assert list(dict.fromkeys(states)) == expected and states == sorted(states, key=expected.index)
    assert num_operations > 30


def kill_at_random(compiler, folder, number, seconds):
    """Kill a run at a random moment of its writing; what that has left. Every other one replaces what is there."""
    out = folder / str(number) / "out"
    out.parent.mkdir()
    old = make_old(out) if number % 2 else None
    options = ["--force"] if old else []
    reply = compiler.ask(out, *options, after=random.Random(number).uniform(0, seconds))
    assert reply["status"] in (0, -signal.SIGKILL), reply
    state = state_of(out, old, compiler.new)
    finish(compiler, out, old, state)
    return state


def writing_seconds(compiler, folder):
    """How long a run takes from when it makes the folder to write in."""
    started = time.perf_counter()
    compiler.run(folder / "timed" / "out")
    return time.perf_counter() - started


@pytest.mark.slow
@needs_proc
def test_the_whole_command_killed_at_50_random_moments(large, tmp_path):
    """As users run it, with the process that verifies; that one ends, too."""
    seconds = 1.1 * kill_command(large, tmp_path / "timed" / "out", delay=SECONDS)
    states = []
    for number in range(50):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        old = make_old(out) if number % 2 else None
        options = ["--force"] if old else []
        kill_command(large, out, *options, delay=random.Random(number).uniform(0, seconds))
        states.append(state_of(out, old, large.new))
        finish(large, out, old, states[-1])
        shutil.rmtree(out.parent)
    assert {"absent", "old"} <= set(states), states


def kill_command(compiler, out, *options, delay):
    """Run the command as a process of its own, and kill it some seconds after it began to write; how long it wrote."""
    process = subprocess.Popen([*COMMAND, *compiler.arguments, "--out", str(out), *options])
    beside = out.with_name(f".{out.name}.partial")
    wait_for(lambda: beside.exists() or process.poll() is not None)
    (verifier,) = children_of(process.pid)
    started = time.perf_counter()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.kill()
    assert process.wait() in (0, -signal.SIGKILL)
    wait_for(lambda: not is_running(verifier))
    return time.perf_counter() - started


@needs_proc
def test_a_verifier_that_is_killed(tiny, tmp_path):
    """As the system does where memory runs out."""
    process = subprocess.Popen(
        [*COMMAND, *tiny.arguments, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    (verifier,) = wait_for(lambda: children_of(process.pid))
    os.kill(verifier, signal.SIGKILL)
    _, said = process.communicate(timeout=SECONDS)
    assert said == "the process that verifies ended with status -9: was there enough memory?\n"
    assert process.returncode == 1 and names(tmp_path) == []


@pytest.mark.slow
@needs_proc
def test_a_verifier_ends_with_the_run_that_asked(tiny, saved, tmp_path):
    """Even in the midst of an answer: here it would hash a file of 100 GB, which takes no room on the disk."""
    model, out = shutil.copytree(saved("flux").many, tmp_path / "model"), tmp_path / "out"
    with (model / "huge.bin").open("wb") as huge:
        huge.truncate(10**11)
    process = subprocess.Popen([*COMMAND, *tiny.arguments, "--model", str(model), "--out", str(out)])
    (verifier,) = wait_for(lambda: children_of(process.pid))
    wait_for(lambda: str(model / "huge.bin") in files_of(verifier))
    process.kill()
    process.wait()
    wait_for(lambda: not is_running(verifier))
    assert names(tmp_path) == ["model"]


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)
    return found


def children_of(pid):
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def files_of(pid):
    with contextlib.suppress(OSError):
        return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return []


def is_running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_killed_at_random_moments(large, tmp_path):
    seconds = writing_seconds(large, tmp_path)
    assert {kill_at_random(large, tmp_path, number, seconds) for number in range(1, 4)} & {"absent", "old"}
