"""How long the transformer of a row takes to draw a picture, beside the baseline's: whole samplings, taken in turns.

What is timed are the forwards of the pipeline's transformers as its own call makes them, with guidance and windows, of
one picture; text encoders, samplers and decoders are what they were and are left out. Each sampling of a row is paired
with one of the baseline right beside it: what slows the machine down slows both.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from surgery.experiment.bench import Bench
from surgery.experiment.controls import RESEEDED
from surgery.experiment.rows import ModelRow, OwnModelRow, Row, VariantRow
from surgery.experiment.timed_forwards import Clock, timed_forwards
from surgery.pipelines.draw import draw_pictures
from surgery.pipelines.guidance import transformers_of
from surgery.pipelines.shared_text import text_encoded_once
from surgery.progress import show_progress

ROUNDS = 9  # the fewest of which the interval of a median leaves out the slowest and the fastest

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """Seconds a step of a row and of the baseline, by round (R,); of the baseline itself, both are the same.

    `peak_bytes` is what a step of the row takes of a GPU beyond what is held before it; None on a CPU.
    """

    seconds: Array
    baseline: Array
    device: str
    peak_bytes: int | None = None

    @property
    def baseline_text(self) -> str:
        """What a step of the baseline takes, for people."""
        step, num = 1000 * float(np.median(self.baseline)), len(self.baseline)
        return f"a step of the baseline's transformer takes {step:.3g} ms ({self.device}; median of {num}, one picture)"


def latencies_of_rows(rows: Sequence[Row], bench: Bench) -> dict[str, Latency]:
    """The latencies of the baseline and of all rows that are drawn by a model of their own, on the first prompt.

    Raises:
        InputError: a pipeline refuses the call.
    """
    timed = [row for row in rows if isinstance(row, (ModelRow, VariantRow, OwnModelRow)) and row.name != RESEEDED]
    found: dict[str, Latency] = {}
    with show_progress(ROUNDS * len(timed), unit="round", label="latency") as meter:

        def tell(name: str) -> None:
            meter.note(name)
            meter.advance(1)

        run = bench.run
        seed, prompt = run.request.seed, bench.prompts[0]
        for row in timed:
            given = {row.name: row.pipe}, run.pipe, prompt
            found |= measure_latencies(*given, seed=seed, call=run.call, texts=run.texts, on_round=tell)
            row.let_go()
    return found


def measure_latencies(
    pipes: Mapping[str, Any],
    baseline: Any,
    prompt: str,
    *,
    seed: int,
    call: Mapping[str, Any],
    rounds: int = ROUNDS,
    texts: dict[str, Any] | None = None,
    clock: Clock = time.perf_counter,
    on_round: Callable[[str], object] = lambda _: None,
) -> dict[str, Latency]:
    """The latencies of rows by name, each drawn `rounds` times in turn with the baseline, after one time to warm up.

    `texts` are prompts that the pipelines' text encoder has encoded.

    Raises:
        InputError: a pipeline refuses the call.
    """
    device = baseline.transformer.device
    texts = {} if texts is None else texts
    found = {}
    for name, pipe in pipes.items():
        with text_encoded_once([pipe, baseline], texts):
            sampled = {
                key: _Sampling(one, prompt, seed, call, clock) for key, one in (("row", pipe), ("baseline", baseline))
            }
            for sampling in sampled.values():
                sampling.run()
            seconds: dict[str, list[float]] = {key: [] for key in sampled}
            for number in range(rounds):
                for key in list(sampled)[:: 1 if number % 2 else -1]:  # neither always comes second
                    seconds[key].append(sampled[key].run())
                on_round(name)
            peak = sampled["row"].peak_bytes() if device.type == "cuda" else None
        own, other = (np.array(seconds[key]) for key in sampled)
        found[name] = Latency(other if pipe is baseline else own, other, device_name(device), peak)
    return found


@dataclass(frozen=True)
class _Sampling:
    """A pipeline that draws one picture."""

    pipe: Any
    prompt: str
    seed: int
    call: Mapping[str, Any]
    clock: Clock

    def run(self) -> float:
        """Draw it; the seconds of all forwards of its transformers, a step of its sampler."""
        spent: list[float] = []
        modules = [(model, spent) for model in transformers_of(self.pipe)]
        with timed_forwards(modules, self.pipe.transformer.device, self.clock):
            draw_pictures(self.pipe, [self.prompt], seed=self.seed, batch_size=1, call=self.call)
        return sum(spent) / max(len(self.pipe.scheduler.timesteps), 1)

    def peak_bytes(self) -> int:
        """The most that its drawing takes of its GPU beyond what is held before it."""
        device = self.pipe.transformer.device
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.run()
        return torch.cuda.max_memory_allocated(device) - held


def device_name(device: torch.device) -> str:
    """`NVIDIA H200`, or `CPU, 2 threads`."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type.upper()}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type
