"""The written checkpoint itself against the graph variant of the original: both loaded whole, in the files' dtype."""

from pathlib import Path

import torch

from surgery.anatomy.sources import ModelSource, anatomy_of_source
from surgery.errors import InputError
from surgery.graph.apply import apply
from surgery.pipelines.pretrained import load_pretrained
from surgery.plan.plan import Plan
from surgery.verify.agreement import Agreement, compare

SIZES = {"batch": 1, "height": 16, "width": 16, "image": 64, "text": 33}


def check_fully(
    source: ModelSource, written: ModelSource, plan: Plan, means: Path | None, variant: str | None
) -> Agreement:
    """Run the graph variant of the original and the written checkpoint, as diffusers loads it, on the same inputs.

    `variant` is what the names of the files of both have before their ending (`fp16`).

    Raises:
        RefusedError: they differ by more than rounding.
        InputError: one can't be loaded, or the class has no example inputs.
    """
    anatomy = anatomy_of_source(source)
    if not anatomy.has_example_inputs:
        raise InputError(f"{anatomy.why_no_inputs}; give --verify structure")
    dtype = source.weights_dtype or "float32"
    graph = apply(_load(source, dtype, variant), plan, profile=means)
    checkpoint = _load(written, dtype, variant)
    return compare(graph, checkpoint, sizes=SIZES, what=f"the whole model in {dtype}")


def _load(source: ModelSource, dtype: str, variant: str | None) -> torch.nn.Module:
    model: torch.nn.Module = load_pretrained(source, dtype=dtype, device="cpu", transformer_only=True, variant=variant)
    return model.eval()
