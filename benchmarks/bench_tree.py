"""Many variants in one walk through their prefix tree, against a loop over the variants: processor time.

The bounds are what the tree alone allows: runs of blocks in it / in the loop, and their FLOPs. Aims: 0.55 for the two
sweeps over 28 blocks, 0.46 for pairs, 0.22 for all subsets of at most six of twelve blocks, 1.03 where nothing is
shared. Of a cumulative sweep from the front the bound of FLOPs is above 0.55: the loop does not compute what is
silenced, and of these variants it is the cheaper blocks that are shared. From the back it is the others.
"""

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from bench_identity import build_pixart
from diffusers import DiffusionPipeline

from surgery.bundled import demo_folder
from surgery.calls.example_inputs import example_call
from surgery.graph.shared_forward import SharedForward
from surgery.graph.transformer_variants import TransformerVariants
from surgery.plan.plan import Plan
from surgery.plan.planned import plan_points
from surgery.plan.prefix_tree import count_runs
from surgery.plan.walk_cost import walk_cost
from surgery.plan.windowed import plans_of
from surgery.spec.load import read_spec

BATCH = 4
SHARE_OF_SUBSETS = 5  # one subset in so many runs in the loop, whose time is that many times as long
SWEEP = """
surgery: v1
vary: {k: "transformer_blocks[:]", what: [attn1, attn2, ff]}
operations: [{replace: {component: "transformer_blocks[{k}].{what}", with: zero}}]
"""
CUMULATIVE = SWEEP + "cumulative: {over: k, order: %s}\n"
NOTHING_SHARED = """
surgery: v1
vary: {by: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}
operations: [{scale: {layers: "transformer_blocks[0]", by: "{by}"}}]
"""


def plans_of_text(text: str, variants: TransformerVariants) -> list[Plan]:
    """The plans of all points of a spec."""
    return [plan for point in plan_points(read_spec(text), variants.anatomy) for plan in plans_of(point.plan)]


def subsets(most: int, variants: TransformerVariants) -> list[Plan]:
    """The plans that leave out at most so many of the blocks of a model; the first leaves out none."""
    (stack,) = variants.anatomy.stacks
    chosen = [gone for num in range(1, most + 1) for gone in itertools.combinations(range(stack.num_blocks), num)]
    written = ["surgery: v1\noperations: []"]
    written += [f'surgery: v1\noperations: [{{skip: "{stack.name}{list(gone)}"}}]' for gone in chosen]
    return [plan for text in written for plan in plans_of_text(text, variants)]


@torch.no_grad()
def compare(
    name: str, plans: Sequence[Plan], variants: TransformerVariants, call: Mapping[str, Any], every: int = 1
) -> None:
    """Print the ratio; the loop runs one plan in `every`, and all of those are compared to the bit."""
    shared = SharedForward(variants, plans, {})
    kept: dict[int, torch.Tensor] = {}
    looped = range(0, len(plans), every)

    def keep(number: int, output: Any) -> None:
        if number in looped:
            kept[number] = output[0]

    shared.run_all((), call, lambda _number, _output: None)  # traces
    walked = processor_seconds(lambda: shared.run_all((), call, keep))
    alone = 0.0
    for number in looped:
        variant = variants.make(plans[number])
        variant(**call)
        found: list[torch.Tensor] = []
        alone += processor_seconds(lambda variant=variant, found=found: found.append(variant(**call)[0]))  # type: ignore[misc]
        assert torch.equal(found[0], kept[number]), f"{name}: plan {number} differs"
    scale = count_runs(plans) / count_runs([plans[number] for number in looped])
    bounds = walk_cost(plans, variants.anatomy)
    print(
        f"{name}: {walked / (alone * scale):.3f} of the loop's time (bounds: {bounds.runs_share:.3f} of its runs, "
        f"{bounds.flops_share:.3f} of its FLOPs); {len(plans)} variants, {len(looped)} of them compared to the bit",
        flush=True,
    )


def processor_seconds(run: Callable[[], object]) -> float:
    """The processor time of a run."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main(chosen: Sequence[str]) -> None:
    """Print all ratios, or those whose names are given."""
    torch.set_num_threads(1)
    large = build_pixart(28)
    example = example_call(
        large, sizes={"batch": 1, "height": 16, "width": 16}, generator=torch.Generator().manual_seed(0)
    )
    assert example is not None
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    small = example_call(pipe.transformer, sizes={"batch": BATCH}, generator=torch.Generator().manual_seed(0))
    assert small is not None
    of_large, of_demo = TransformerVariants(large), TransformerVariants(pipe.transformer)
    cases: dict[str, Callable[[str], None]] = {
        "single components of 28 blocks": lambda name: compare(
            name, plans_of_text(SWEEP, of_large), of_large, example.kwargs
        ),
        "cumulative from the front": lambda name: compare(
            name, plans_of_text(CUMULATIVE % "forward", of_large), of_large, example.kwargs
        ),
        "cumulative from the back": lambda name: compare(
            name, plans_of_text(CUMULATIVE % "backward", of_large), of_large, example.kwargs
        ),
        "nothing shared": lambda name: compare(name, plans_of_text(NOTHING_SHARED, of_large), of_large, example.kwargs),
        "nothing shared, bundled pipeline": lambda name: compare(
            name, plans_of_text(NOTHING_SHARED, of_demo), of_demo, small.kwargs
        ),
        "pairs of 12 blocks": lambda name: compare(name, subsets(2, of_demo), of_demo, small.kwargs),
        "subsets of at most 6 of 12 blocks": lambda name: compare(
            name, subsets(6, of_demo), of_demo, small.kwargs, SHARE_OF_SUBSETS
        ),
    }
    for name, run in cases.items():
        if not chosen or name in chosen:
            run(name)


if __name__ == "__main__":
    main(sys.argv[1:])
