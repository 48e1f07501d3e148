"""Evaluations made up for tests: documents as `evaluation.json` holds them, of variants whose damage is given."""

import json

import numpy as np

from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import Layer, Schedule

STACK = "transformer_blocks"
CLASS = "PixArtTransformer2DModel"


def plan_of(lengths, stack, layer, what):
    """The plan that leaves out one layer (`skip`), or replaces a component of it (`attn1 = zero`)."""
    whole = {name: tuple(map(Layer, range(length))) for name, length in lengths.items()}
    if what == "skip":
        whole[stack] = tuple(item for item in whole[stack] if item.index != layer)
    schedules = tuple(Schedule(name, lengths[name], items) for name, items in whole.items())
    component, _, kind = what.partition(" = ")
    replaced = () if what == "skip" else (ReplacedComponent(stack, layer, component, kind),)
    return Plan(CLASS, schedules, replaced)


def row_of(name, plan, errors, half=0.01):
    """A variant with its errors by bin (B,), and intervals of +- half."""
    ends = {"low": [float(value) - half for value in errors], "high": [float(value) + half for value in errors]}
    return {
        "name": name,
        "kind": "variant",
        "plan": plan.to_json(),
        "scores": {},
        "denoising_error_by_bin": [float(value) for value in errors],
        "denoising_error_by_bin_interval": {**ends, "num": 4, "method": "Student's t over prompts", "level": 0.95},
    }


def rows_of(maps, lengths):
    """A row for each layer of each map: by (stack, what), (B, L), NaN where no variant edits the layer."""
    return [
        row_of(f"row {stack} {what} {layer}", plan_of(lengths, stack, layer, what), cells[:, layer])
        for (stack, what), cells in maps.items()
        for layer in range(cells.shape[1])
        if not np.isnan(cells[:, layer]).any()
    ]


def document_of(rows, *, notes=(), num_prompts=4):
    """The document, with the baseline and a control, which have no plan or another's."""
    baseline = {"name": "baseline", "kind": "baseline", "scores": {}, "denoising_error_by_bin": [0.0, 0.0]}
    noise = {"name": "noise", "kind": "control", "scores": {}}
    return {"rows": [baseline, *rows, noise], "notes": list(notes), "recipe": {"prompts": ["a"] * num_prompts}}


def write_evaluation(folder, maps, lengths, *more, **options):
    """Write an evaluation of these maps, and of more rows, into a folder; the path of its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "evaluation.json"
    path.write_text(json.dumps(document_of([*rows_of(maps, lengths), *more], **options)))
    return path
