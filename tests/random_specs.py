"""Random operations that fit a model: what the laws of both backends are tried on."""

import random
from collections.abc import Callable, Sequence

from surgery.anatomy.anatomy import Anatomy
from surgery.errors import SpecError
from surgery.plan.plan import Plan

MOVES: dict[str, Callable[[random.Random, str], str]] = {  # what a stock class can say as well
    "skip": lambda rng, layers: f'skip: "{layers}"',
    "repeat": lambda rng, layers: f'repeat: {{layers: "{layers}", times: 2}}',
    "repeat-using": lambda rng, layers: f'repeat: {{layers: "{layers}", using: center}}',
    "reverse": lambda rng, layers: f'reverse: "{layers}"',
    "shuffle": lambda rng, layers: f'shuffle: {{layers: "{layers}", seed: {rng.randrange(100)}}}',
}
GRAPH_ONLY: dict[str, Callable[[random.Random, str], str]] = {
    "parallel": lambda rng, layers: (
        f'parallel: {{layers: "{layers}", loops: {rng.randrange(1, 4)}, combine: {rng.choice(["mean", "sum"])}}}'
    ),
    "scale": lambda rng, layers: f'scale: {{layers: "{layers}", by: {rng.choice([0.5, -1, 2])}}}',
}
REPLACED: dict[str, Callable[[random.Random, str], str]] = {
    name: lambda rng, layers, name=name: f'replace: {{component: "{layers}.{name}", with: zero}}'
    for name in ("ff", "attn", "*")
}


def random_operation(rng: random.Random, stack: str, num_blocks: int, kinds: Sequence[str]) -> str:
    """An operation of one of these kinds on a random run of layers; it need not fit what was done before."""
    first = rng.randrange(num_blocks - 1)
    last = rng.randrange(first + 1, num_blocks)
    return (MOVES | GRAPH_ONLY | REPLACED)[rng.choice(list(kinds))](rng, f"{stack}[{first}:{last}]")


def random_plan(
    rng: random.Random, anatomy: Anatomy, plan_of: Callable[..., Plan], kinds: Sequence[str], *, tries: int = 6
) -> tuple[Plan, list[str]]:
    """A plan of those of `tries` random operations that fit, and these; there is at least one."""
    kept: list[str] = []
    plan = plan_of([], anatomy)
    while tries > 0 or not kept:
        tries -= 1
        stack = rng.choice(anatomy.stacks)
        kept.append(random_operation(rng, stack.name, stack.num_blocks, kinds))
        try:
            plan = plan_of(kept, anatomy)
        except SpecError:
            kept.pop()
    return plan, kept
