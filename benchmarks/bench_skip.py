"""The time of a variant against the number of skipped blocks. Aim: linear within 3%.

Each variant is timed in pairs with the original, which is what a user would run instead.
"""

import numpy as np
import torch
from bench_identity import build_pixart
from pairs import median_ratio

from surgery.calls.example_inputs import example_call
from surgery.graph.apply import apply
from surgery.spec.load import read_spec

NUM_BLOCKS = 12
ROUNDS = 15


@torch.no_grad()
def main() -> None:
    """Print the time for each number of skipped blocks as a share of the original's, and the distance from a line."""
    torch.set_num_threads(1)  # the shares are those of the work, not of how threads are scheduled
    original = build_pixart(NUM_BLOCKS)
    example = example_call(original, generator=torch.Generator().manual_seed(0))
    assert example is not None
    counts = [0, 2, 4, 6, 8, 10]
    variants = {
        count: original
        if count == 0
        else apply(original, read_spec(f'surgery: v1\noperations: [{{skip: "transformer_blocks[1:{1 + count}]"}}]'))
        for count in counts
    }
    shares = np.array(
        [
            median_ratio(lambda m=model: m(**example.kwargs), lambda: original(**example.kwargs), rounds=ROUNDS)
            for model in variants.values()
        ]
    )
    line = np.polyval(np.polyfit(counts, shares, 1), counts)
    for count, share, fitted in zip(counts, shares, line, strict=True):
        print(f"{count:2} of {NUM_BLOCKS} blocks skipped: {share:.3f} of the original's time (line {fitted:.3f})")
    print(f"largest distance from the line: {100 * np.abs(shares - line).max():.1f}% of the original's time")


if __name__ == "__main__":
    main()
