"""What a forward of every variant of a sweep costs, one after the other, and in one walk through their prefix tree."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.plan.plan import Plan
from surgery.plan.prefix_tree import PrefixTree, Step, steps_of


@dataclass(frozen=True)
class WalkCost:
    """Runs and FLOPs of blocks in one forward of each of `forwards` variants: alone, and in one walk.

    FLOPs are those of matrix products and attention at the example sizes; 0 where they are unknown.
    """

    forwards: int
    runs: int
    walk_runs: int
    flops: int
    walk_flops: int

    @property
    def runs_share(self) -> float:
        """Runs of the walk as a share of all; 1 where nothing runs."""
        return self.walk_runs / self.runs if self.runs else 1.0

    @property
    def flops_share(self) -> float | None:
        """FLOPs of the walk as a share of all; None where they are unknown."""
        return self.walk_flops / self.flops if self.flops else None

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "forwards": self.forwards,
            "block_runs": {"alone": self.runs, "in_one_walk": self.walk_runs},
            "block_flops": {"alone": self.flops, "in_one_walk": self.walk_flops} if self.flops else None,
        }


def walk_cost(plans: Sequence[Plan], anatomy: Anatomy) -> WalkCost:
    """What one forward of each plan costs; all are of the model of this anatomy, and equal ones count each."""
    stacks = [(stack.name, stack.num_blocks) for stack in anatomy.stacks]
    sequences = [steps_of(plan, stacks) for plan in plans]
    tree = PrefixTree()
    for number, steps in enumerate(sequences):
        tree.add(number, steps)
    alone = [step for steps in sequences for step in steps]
    walked = [step for step in tree.steps if step is not None]
    runs = sum(step.num_runs for step in alone)
    return WalkCost(len(plans), runs, tree.num_runs, _flops(alone, anatomy), _flops(walked, anatomy))


def _flops(steps: Iterable[Step], anatomy: Anatomy) -> int:
    """The FLOPs of the blocks that the steps run, without those of components that are replaced."""
    total = 0
    for step in steps:
        for layer, replaced in zip(step.layers, step.replaced, strict=True):
            kind = anatomy.stack(step.stack).kind(layer.index)
            components = (kind.find_component(name) for name, _, _ in replaced)
            total += kind.flops - sum(component.flops for component in components if component is not None)
    return total
