"""What measuring costs: time per step, on the bundled pipeline and on a model of PixArt's size; and memory.

Aims: at most 15% more time per step of work, with one thread and with all of them (which speed up the small forwards of
the bundled pipeline more than the sums); what a run keeps grows with the square of the layers and with channels, not
with tokens, steps or prompts; beside it there are the states of one forward, while it lasts.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, PixArtTransformer2DModel
from pairs import median_ratio

from surgery.activations.recorder import Recorder
from surgery.activations.trajectories import watched
from surgery.anatomy.from_model import read_anatomy
from surgery.bundled import DEMO_CALL, DEMO_PROMPTS, demo_folder
from surgery.calls.example_inputs import example_call
from surgery.pipelines.guidance import find_guidance
from surgery.pipelines.replaced import replaced
from surgery.profiles.layer_profile import Profile

CONFIG = Path(__file__).parents[1] / "tests" / "configs" / "pixart-alpha" / "transformer" / "config.json"
STEPS = 20  # of the stock call
SMALL = {"num_attention_heads": 4, "attention_head_dim": 64, "cross_attention_dim": 256, "caption_channels": 64}


def main() -> None:
    """Print ratios of time, then bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    for threads in dict.fromkeys((torch.get_num_threads(), 1)):
        torch.set_num_threads(threads)
        ratio = time_bundled(options.rounds)
        print(f"a step of the bundled pipeline, measured, {threads} thread(s): {ratio:.3f} of unmeasured")
    print(f"a step of PixArt-alpha's transformer: {time_pixart(max(3, options.rounds // 3)):.3f} of unmeasured")
    for tokens in (256, 1024, 4096):
        print(describe_memory(tokens))
    for layers, steps, rows in ((12, 1, 2), (12, 8, 2), (12, 1, 8), (24, 1, 2)):
        kept = kept_bytes(layers=layers, steps=steps, rows=rows, tokens=64)
        print(f"kept after {steps} steps of {rows} rows through {layers} layers: {kept:,} bytes")
    print(f"kept after 1 steps of 2 rows through 12 layers, 16 x the tokens: {kept_bytes(12, 1, 2, 1024):,} bytes")


def time_bundled(rounds: int) -> float:
    """The time of a measured step as a share of an unmeasured one, with the stock call and 8 prompts.

    Of each run the median step counts: a moment in which the machine is slow is in neither.
    """
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    call = {**DEMO_CALL, "num_inference_steps": STEPS, "output_type": "latent"}
    recorder = Recorder(pipe.transformer, read_anatomy(pipe.transformer))
    guidance = find_guidance(pipe, {**DEMO_CALL, "num_inference_steps": STEPS})

    def sample() -> None:
        pipe(list(DEMO_PROMPTS), generator=torch.Generator().manual_seed(0), **call)

    def sample_measured() -> None:
        with watched(pipe, recorder, guidance) as padding:
            padding.start(DEMO_PROMPTS)
            sample()

    return median_ratio(sample_measured, sample, rounds=rounds, clock=lambda run: seconds_of_a_step(pipe, run))


def seconds_of_a_step(pipe: DiffusionPipeline, run: Callable[[], object]) -> float:
    """The median time from one step of a run to the next."""
    taken, take_step = [], pipe.scheduler.step

    @functools.wraps(take_step)  # pipelines look at its signature
    def step(*args: Any, **kwargs: Any) -> Any:
        taken.append(time.perf_counter())
        return take_step(*args, **kwargs)

    with replaced(pipe.scheduler, "step", step):
        run()
    return statistics.median(after - before for before, after in pairwise(taken))


def time_pixart(rounds: int) -> float:
    """The time of a measured forward as a share of an unmeasured one: 256 x 256 pixels, both branches."""
    model = build_pixart()
    call = call_of(model, rows=2, tokens=256)
    recorder = Recorder(model, read_anatomy(model))
    return median_ratio(lambda: forward(model, call, recorder), lambda: forward(model, call), rounds=rounds)


def build_pixart(**changes: Any) -> PixArtTransformer2DModel:
    """A transformer of PixArt-alpha's sizes, or of others, with random weights."""
    torch.manual_seed(0)
    config = json.loads(CONFIG.read_text())
    return PixArtTransformer2DModel.from_config({**config, **changes}).eval()


def call_of(model: torch.nn.Module, *, rows: int, tokens: int) -> dict[str, Any]:
    """The arguments of a forward of so many rows and tokens."""
    side = 2 * round(tokens**0.5)
    sizes = {"batch": rows, "height": side, "width": side, "text": 32}
    example = example_call(model, sizes=sizes, generator=torch.Generator().manual_seed(0))
    assert example is not None
    return dict(example.kwargs)


@torch.no_grad()
def forward(model: torch.nn.Module, call: dict[str, Any], recorder: Recorder | None = None) -> None:
    """A forward, measured where a recorder is given."""
    if recorder is None:
        model(**call)
        return
    with recorder:
        model(**call)
        recorder.settle(0.5)


def kept_bytes(layers: int, steps: int, rows: int, tokens: int) -> int:
    """The bytes of all that a run holds on to."""
    model = build_pixart(num_layers=layers, **SMALL)
    recorder = Recorder(model, read_anatomy(model))
    for _ in range(steps):
        forward(model, call_of(model, rows=rows, tokens=tokens), recorder)
    return size_of(recorder.profile({}))


def size_of(profile: Profile) -> int:
    """The bytes of a profile's arrays."""
    arrays = [array for sums in profile.streams.values() for array in vars(sums).values()]
    arrays += [array for moments in profile.components.values() for array in (moments.mean, moments.squares)]
    return sum(array.nbytes for array in arrays)


def describe_memory(tokens: int) -> str:
    """What the peak of a process's memory gains by measuring, beside the states of one forward."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench_profile as b; b.print_gain"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back at once
    command = [sys.executable, "-c", f"{code}({tokens})"]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    states = 13 * 2 * tokens * 1152 * 4
    gain = int(output.stdout.split()[-1])
    return f"{tokens} tokens: {gain / 1e6:.1f} MB more at the peak; the states of a forward are {states / 1e6:.1f} MB"


def print_gain(tokens: int) -> None:
    """The peak of a measured forward less that of an unmeasured one: 12 layers of PixArt's width, in bytes."""
    torch.set_num_threads(1)
    model = build_pixart(num_layers=12)
    call = call_of(model, rows=2, tokens=tokens)
    recorder = Recorder(model, read_anatomy(model))
    forward(model, call)
    plain = peak_of(lambda: forward(model, call))
    print(peak_of(lambda: forward(model, call, recorder)) - plain)


def peak_of(run: Callable[[], None]) -> int:
    """The most resident memory of this process while something runs, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    run()
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
