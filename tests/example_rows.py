"""Writes surgery/calls/example_rows.json: rows with which classes of diffusers run, found by trying.

Each class is built from its own defaults, with few layers, on the meta device. Rows are kept where a class still runs
with them, or can't be built from its defaults. `make examples` runs this, where diffusers has new classes.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from torch import nn

from surgery.calls import found_call, trials
from surgery.calls.example_inputs import SHAPES, SHIPPED_ROWS, SMALL_SIZES, sizes_for_config
from surgery.calls.found_call import find_call

FEW = 2  # layers; what a forward takes does not hang on their number
COUNTS = re.compile(r"(num|n|depth).*(layers|blocks)|depth|num_.*layers?|layers")
PATIENCE = 12.0  # seconds a class


def classes() -> Iterator[str]:
    """The names of the transformer classes that diffusers offers, without those whose rows are written by hand."""
    for name in dir(diffusers):
        member = None if name.startswith("_") else getattr(diffusers, name)
        is_model = inspect.isclass(member) and issubclass(member, diffusers.ModelMixin)
        if is_model and member.__module__.startswith("diffusers.models.transformers") and name not in SHAPES:
            yield name


def build_with_few_layers(name: str) -> nn.Module | None:
    """A class built from its defaults, on the meta device; None where its defaults make no model."""
    model_class: Any = getattr(diffusers, name)
    defaults = {
        key: item.default
        for key, item in inspect.signature(model_class.__init__).parameters.items()
        if item.default is not item.empty
    }
    few = {key: FEW for key, value in defaults.items() if type(value) is int and value > FEW and COUNTS.fullmatch(key)}
    for config in (few, {}):
        try:
            with init_empty_weights():
                model: nn.Module = model_class(**config)
        except Exception:  # constructors raise anything on configs that make no sense
            continue
        return model.to("meta").eval()
    return None


def main() -> None:
    """Find the rows, and write them; a line a class."""
    found_call.SECONDS = PATIENCE
    trials.LAST_SECONDS = 2 * PATIENCE
    before = json.loads(SHIPPED_ROWS.read_bytes())
    rows = dict(before)
    for name in sys.argv[1:] or classes():
        model = build_with_few_layers(name)
        row = before.get(name)
        if model is not None and any(value.is_floating_point() for value in model.parameters()):
            sizes = sizes_for_config(dict(model.config))
            if row is None or trials.Trials(model, sizes).try_row(row) != trials.DONE:
                row = find_call(model, {**sizes, **SMALL_SIZES}) or find_call(model, sizes)
        print("found" if row is not None else "NONE ", name, json.dumps(row), flush=True)
        rows.pop(name, None)
        if row is not None:
            rows[name] = row
        SHIPPED_ROWS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
