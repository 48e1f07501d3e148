"""Windows: what a step outside all of them costs, and the memory of ten against one.

Aims: 1.00 to 1.02 of the original's time; resident memory within 5%.
"""

import functools
import itertools
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch
from bench_identity import build_pixart
from pairs import median_ratio

import surgery
from surgery.bundled import DEMO_CALL, demo_folder
from surgery.calls.example_inputs import example_call
from surgery.spec.load import Spec, read_spec

ROUNDS = 25
INSIDE, OUTSIDE = 0.95, 0.3  # shares of the noise range
STEPS = 20


def spec_of_windows(num: int) -> Spec:
    """A layer left out in each of so many windows, another one each, in the noisier half."""
    edges = [0.5 + 0.5 * number / num for number in range(num + 1)]
    lines = [
        f'  - {{skip: "transformer_blocks[{1 + number}]", when: {{timesteps: [{low}, {high}]}}}}'
        for number, (low, high) in enumerate(itertools.pairwise(edges))
    ]
    return read_spec("\n".join(["surgery: v1", "operations:", *lines]))


@torch.no_grad()
def ratio_outside(num_windows: int) -> float:
    """Time of a variant's call outside its windows / of the original's, at a size where blocks dominate."""
    original = build_pixart()
    variant = surgery.apply(original, spec_of_windows(num_windows))
    example = example_call(original, generator=torch.Generator().manual_seed(0))
    assert example is not None

    def run_variant(share: float) -> torch.Tensor:
        with surgery.standing_at(timestep=share, step=0, branch="conditional"):
            found: torch.Tensor = variant(**example.kwargs).sample
        return found

    assert not torch.equal(run_variant(INSIDE), original(**example.kwargs).sample)
    assert torch.equal(run_variant(OUTSIDE), original(**example.kwargs).sample)
    return median_ratio(functools.partial(run_variant, OUTSIDE), lambda: original(**example.kwargs), rounds=ROUNDS)


def resident_mb(num_windows: int) -> float:
    """The resident memory of a process that has drawn with so many windows of the bundled pipeline."""
    from diffusers import DiffusionPipeline

    torch.set_num_threads(1)
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    variant = surgery.apply(pipe, spec_of_windows(num_windows))
    for _ in range(2):
        variant("red apple", **{**DEMO_CALL, "num_inference_steps": STEPS})
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_new_process(measure: Callable[[int], float], num_windows: int) -> float:
    """What a process of its own measures."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (num_windows,))


def main() -> None:
    """Print both ratios."""
    for num in (1, 10):
        print(f"a step outside {num} windows / original: {ratio_outside(num):.3f} (median of {ROUNDS} pairs)")
    one, ten = (in_new_process(resident_mb, num) for num in (1, 10))
    print(f"resident memory: {one:.0f} MB with one window, {ten:.0f} MB with ten: {ten / one:.3f}")


if __name__ == "__main__":
    main()
