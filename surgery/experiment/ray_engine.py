"""The engine of many processes: actors of Ray, each with a GPU of its own or a share of the CPUs."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from surgery.errors import InputError, SurgeryError, WorkerError
from surgery.experiment.bench import Bench, BenchDescription
from surgery.experiment.dispatch import Dispatcher, Done, Lost, News, Ready
from surgery.experiment.engines import Tell, Unit, tell_nobody
from surgery.progress import say_stage

Result = TypeVar("Result")
SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 5.0, 30.0
SECONDS_BETWEEN_LOOKS = 15.0  # at the cluster, while nothing happens
LONGEST_PLACE, SHORT_PLACE = 20, "/tmp"  # the names of Ray's sockets in it have at most 107 characters
SETTINGS = {  # a cluster of our own reports to nobody, and leaves the devices of workers without GPU as they are
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Share:
    """What a worker takes of a machine."""

    threads: int
    gpus: int

    def room_in(self, nodes: Sequence[Mapping[str, Any]]) -> int:
        """For how many workers there is room on the machines of a cluster, as `ray.nodes()` tells of them."""
        found = [node["Resources"] for node in nodes if node["Alive"]]
        return sum(
            min(int(own.get("CPU", 0)) // self.threads, int(own.get("GPU", 0)) if self.gpus else 2**31) for own in found
        )

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.threads} CPU{'s' * (self.threads != 1)}" + (" and a GPU" if self.gpus else "")


class Worker:
    """What runs in an actor: a bench of its own."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.bench: Bench | None = None

    def open(self, description: BenchDescription) -> None:
        """Open the bench; raises WorkerError where that can't be done here."""
        try:
            self.bench = description.open()
        except SurgeryError as error:
            raise WorkerError(f"a worker on {socket.gethostname()} can't take part: {error}") from None

    def run(self, unit: Unit[Any]) -> Any:
        """Do a unit."""
        assert self.bench is not None, "units are given to workers that are ready"
        return unit.run(self.bench, tell_nobody)


class RayCrew:
    """Actors by number, on one bench."""

    def __init__(self, ray: Any, share: Share, bench: Bench) -> None:
        self.ray, self.share = ray, share
        self.description = ray.put(bench.description())
        self.kind = ray.remote(num_cpus=share.threads, num_gpus=share.gpus, max_restarts=0)(Worker)
        self.numbers = count()
        self.actors: dict[int, Any] = {}
        self.expected: dict[Any, tuple[int, bool]] = {}  # of a worker, and whether it is opening

    def hire(self) -> int:
        """Start an actor; it waits for a machine with room."""
        number = next(self.numbers)
        self.actors[number] = self.kind.remote(self.share.threads)
        self.expected[self.actors[number].open.remote(self.description)] = (number, True)
        return number

    def give(self, worker: int, unit: Unit[Any]) -> None:
        """Have an actor do a unit."""
        self.expected[self.actors[worker].run.remote(unit)] = (worker, False)

    def wait(self) -> tuple[int, News]:
        """The next result; what an actor raised is raised here, as it was."""
        from ray.exceptions import RayError, RayTaskError

        done = self.next_done()
        worker, is_opening = self.expected.pop(done)
        try:
            result = self.ray.get(done)
        except RayTaskError as error:
            if isinstance(error.cause, RayError):
                raise WorkerError(f"a worker can't take part: {_first_and_last(error.cause)}") from None
            raise error.cause from None
        except RayError as error:
            return worker, Lost(_first_and_last(error))
        return worker, Ready() if is_opening else Done(result)

    def next_done(self) -> Any:
        """Wait for any of what is expected.

        Raises:
            WorkerError: nobody works, and no machine has room for a worker.
        """
        is_told = False
        while True:
            done, _ = self.ray.wait(list(self.expected), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
            if done:
                return done[0]
            if all(is_opening for _, is_opening in self.expected.values()):
                if not self.share.room_in(self.ray.nodes()):
                    raise WorkerError(f"no machine of the cluster has {self.share.text} for a worker any more")
                if not is_told:
                    say_stage("waiting for a worker to open the model, or for the cluster to have room for one")
                is_told = True

    def dismiss(self, worker: int) -> None:
        """Kill an actor, and expect nothing of it."""
        self.ray.kill(self.actors.pop(worker))
        self.expected = {key: value for key, value in self.expected.items() if value[0] != worker}

    def close(self) -> None:
        """Kill all."""
        for worker in list(self.actors):
            self.dismiss(worker)


class RayEngine:
    """Does units on the workers of a cluster, which open a bench when it is first used."""

    def __init__(self, ray: Any, share: Share, num_workers: int) -> None:
        self.ray, self.share, self.num_workers = ray, share, num_workers
        self.bench: Bench | None = None
        self.crew: RayCrew | None = None
        self.dispatcher: Dispatcher | None = None

    @property
    def threads(self) -> int:
        """With which every process computes."""
        return self.share.threads

    def run(self, bench: Bench, units: Sequence[Unit[Result]], tell: Tell) -> Iterator[tuple[int, Result]]:
        """The results in the order in which they are done; raises as `Dispatcher.run`."""
        if not units:
            return
        if self.dispatcher is None or bench is not self.bench:
            self.close()
            self.bench, self.crew = bench, RayCrew(self.ray, self.share, bench)
            self.dispatcher = Dispatcher(self.crew, self.num_workers)
        yield from self.dispatcher.run(units, tell)

    def close(self) -> None:
        """Send all workers away."""
        if self.crew is not None:
            self.crew.close()
        self.bench = self.crew = self.dispatcher = None


@contextmanager
def open_ray(workers: int | None, threads: int | None, address: str | None, device: str) -> Iterator[RayEngine]:
    """The engine, on the cluster at an address, or on one of this machine that is gone afterwards.

    Raises:
        InputError: Ray is not installed, nothing answers at the address, the device is that of one worker alone, or the
            cluster has no room for so many workers.
    """
    ray = import_ray()
    gpus = num_gpus_of(device)
    with ExitStack() as stack:
        if address is None:
            start_here(ray, stack, workers, threads, gpus)
        else:
            connect(ray, address)
        stack.callback(ray.shutdown)
        share, num_workers = shares(ray.nodes(), workers, threads, gpus)
        engine = RayEngine(ray, share, num_workers)
        stack.callback(engine.close)
        yield engine


def import_ray() -> Any:
    """Ray; raises InputError where it is not installed."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray; install it with pip install 'layer-surgery[ray]'") from None
    return ray


def num_gpus_of(device: str) -> int:
    """The GPUs of a worker; raises InputError for a device that not every worker has."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"each worker of --engine ray has a device of its own, not {device}; write cpu or cuda")
    return int(device == "cuda")


def start_here(ray: Any, stack: ExitStack, workers: int | None, threads: int | None, gpus: int) -> None:
    """Start a cluster on this machine; what it writes goes with the stack."""
    import torch

    place = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST_PLACE else SHORT_PLACE
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s-ray-", dir=place, ignore_cleanup_errors=True))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_workers = workers or (torch.cuda.device_count() if gpus else 1)
    stack.enter_context(setting("RAY_TMPDIR", folder))
    ray.init(
        "local",
        num_cpus=max(cpus, num_workers * (threads or 1)),  # more than there are, if that is asked for
        num_gpus=None if gpus else 0,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Within it a variable of the environment has this value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def connect(ray: Any, address: str) -> None:
    """Connect to a cluster that is there; raises InputError where there is none."""
    missing = InputError(
        f"there is no cluster at {address}; start one with ray start --head, and give --address HOST:PORT as it says"
    )
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise InputError(f'"{address}" is no address of a cluster; write --address HOST:PORT, or auto')
        answer = ask_cluster(address, host, int(port))
        if answer is None:
            raise missing
        if "AuthenticationError" in answer:
            raise InputError(
                f"the cluster at {address} takes only who has its token; with ~/.ray/auth_token of the machine that "
                "started it, set RAY_AUTH_MODE=token"
            )
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise missing from error


def ask_cluster(address: str, host: str, port: int) -> str | None:
    """What a cluster says of its health, None where there is none; `ray.init` would itself wait for minutes."""
    asked = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        socket.create_connection((host, port), timeout=SECONDS_TO_CONNECT).close()
        answer = subprocess.run(asked, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False, text=True)
    except (OSError, OverflowError, subprocess.TimeoutExpired):
        return None
    return answer.stderr if answer.returncode == 0 or "AuthenticationError" in answer.stderr else None


def shares(
    nodes: Sequence[Mapping[str, Any]], workers: int | None, threads: int | None, gpus: int
) -> tuple[Share, int]:
    """What each worker takes of the machines, and how many there are.

    Raises:
        InputError: there is no room for so many.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    cpus, all_gpus = (int(sum(own.get(name, 0) for own in alive)) for name in ("CPU", "GPU"))
    if threads is None:
        wanted = workers or (all_gpus if gpus else cpus)
        threads = max(1, cpus // max(1, wanted))
    share = Share(threads, gpus)
    room = share.room_in(nodes)
    if room < (workers or 1):
        raise InputError(
            f"the cluster has room for {room} workers of {share.text}, and {workers or 1} are asked for; "
            "give fewer --workers or --threads"
        )
    return share, workers or room


def _first_and_last(error: Exception) -> str:
    """The lines of a long text that say what happened, and why."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1])))
