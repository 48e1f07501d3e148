"""A plan on a shrunken model of the same class: what the weights can carry, and whether graph and checkpoint agree.

The shrunken model has the blocks of the class and few channels, and random weights. It is saved, compiled by the code
that compiles the real files, and loaded by the stock class; its output must be that of the rewritten graph.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource
from surgery.anatomy.tensor_files import find_weights
from surgery.calls.example_inputs import example_call
from surgery.checkpoint.byte_plan import plan_bytes
from surgery.checkpoint.compile_plan import compile_plan
from surgery.checkpoint.config_fields import ConfigFields
from surgery.checkpoint.fitted_blocks import Folds
from surgery.checkpoint.folding import find_folds
from surgery.checkpoint.unrolled import OTHER_BACKEND
from surgery.checkpoint.write import write_weights
from surgery.errors import RefusedError
from surgery.files import write_whole
from surgery.graph.replace import Means
from surgery.graph.variant import build_variant
from surgery.plan.plan import Plan
from surgery.plan.schedule import Layer
from surgery.progress import library_bars
from surgery.verify.agreement import Agreement, compare
from surgery.verify.shrink import build_random, shrink_source, small_sizes

NUM_SHARDS = 3  # about as many are written


@dataclass(frozen=True)
class SmallModel:
    """A real model of few channels, its anatomy, and inputs for it."""

    source: ModelSource
    model: nn.Module
    anatomy: Anatomy
    kwargs: Mapping[str, Any]
    sizes: Mapping[str, int]


def build_small(source: ModelSource) -> SmallModel:
    """A shrunken model of a source; raises InputError where its class has no example inputs."""
    small = shrink_source(source)
    model = build_random(small)
    sizes = small_sizes(model)
    example = example_call(model, sizes=sizes, generator=torch.Generator().manual_seed(1))
    assert example is not None, "the class has example inputs"
    return SmallModel(small, model, read_anatomy(model, sizes=sizes), example.kwargs, sizes)


def folds_of_plan(small: SmallModel, plan: Plan, layers: Mapping[str, Sequence[Layer]]) -> Folds:
    """What is folded into weights; raises RefusedError where weights can't carry it."""
    return find_folds(small.model, small.kwargs, small.anatomy, plan, layers)


def check_numerically(
    small: SmallModel, plan: Plan, layers: Mapping[str, Sequence[Layer]], fields: ConfigFields, folds: Folds
) -> Agreement:
    """Whether graph and checkpoint agree on the shrunken model.

    Raises:
        RefusedError: they differ: the stock forward depends on more than the weights of the blocks.
    """
    means = random_means(small.anatomy, plan)
    graph = build_variant(small.model, plan, small.anatomy, means)
    with tempfile.TemporaryDirectory(prefix="surgery-") as name:
        checkpoint = _reload(small, Path(name), layers, fields, folds, means)
    num_parameters = sum(value.numel() for value in small.model.parameters())
    what = f"a {plan.class_name} shrunken to {num_parameters / 1e6:.3g} M random parameters"
    try:
        return compare(graph, checkpoint, sizes=small.sizes, what=what)
    except RefusedError as error:
        raise RefusedError(f"{error}\n{_explain(small.anatomy, plan)}\n{OTHER_BACKEND}") from None


def _reload(
    small: SmallModel,
    folder: Path,
    layers: Mapping[str, Sequence[Layer]],
    fields: ConfigFields,
    folds: Folds,
    means: Means,
) -> nn.Module:
    before, after = folder / "before", folder / "after"
    size = sum(value.numel() * value.element_size() for value in small.model.parameters()) // NUM_SHARDS + 1
    small.model.save_pretrained(before, max_shard_size=size)  # type: ignore[operator]
    after.mkdir()
    source = replace(small.source, folder=before)
    weights = find_weights(before)
    new = compile_plan(source, weights, layers, fields, folds)
    vectors = {f"{path}/{stream}": v.numpy() for path, streams in means.items() for stream, v in streams.items()}
    byte_plan = plan_bytes(new, weights, max_shard_size=size)
    write_weights(after, byte_plan, weights, metadata={"format": "pt"}, means=vectors)
    write_config(after, new.config)
    with library_bars(shown=False):
        loaded: nn.Module = type(small.model).from_pretrained(after)  # type: ignore[attr-defined]
    return loaded.eval()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the config of a transformer as diffusers does."""
    write_whole(folder / "config.json", json.dumps(dict(config), indent=2) + "\n")


def random_means(anatomy: Anatomy, plan: Plan) -> dict[str, dict[str, torch.Tensor]]:
    """Random vectors for all means of a plan, float64 by component and stream, for the widths of this anatomy."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for item in plan.replacements:
        stack = anatomy.stack(item.stack)
        component = stack.kind(item.index).find_component(item.component)
        assert component is not None, "a plan is made for an anatomy"
        if item.kind == "mean":
            found[item.path] = {
                output.stream: torch.randn(output.out_channels, generator=generator, dtype=torch.float64)
                for output in component.outputs
            }
    return found


def _explain(anatomy: Anatomy, plan: Plan) -> str:
    named = [stack for stack in anatomy.stacks if stack.by_number]
    if named:
        made = "; ".join(f"{', '.join(stack.by_number)} for the blocks of {stack.name}" for stack in named)
        return f"the forward of {plan.class_name} makes by a block's number or the length of a stack: {made}"
    return (
        f"the forward of {plan.class_name} reads a block's number, the length of a stack, or weights of one block; "
        "if the real weights make up for it (the same in all blocks, say), --verify full finds that out"
    )
