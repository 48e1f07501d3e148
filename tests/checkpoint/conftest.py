"""Tiny models as checkpoints: saved by diffusers, compiled, loaded by the stock class."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from built_once import building_once
from tiny import tiny_anatomy
from torch import nn

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource, find_source, weights_of_source
from surgery.calls.example_inputs import example_call
from surgery.checkpoint.byte_plan import plan_bytes
from surgery.checkpoint.compile_plan import compile_plan, fields_of_plan
from surgery.checkpoint.folding import find_folds
from surgery.checkpoint.new_checkpoint import NewCheckpoint
from surgery.checkpoint.unrolled import unroll_plan
from surgery.checkpoint.write import write_weights
from surgery.plan.lower import lower_spec
from surgery.plan.plan import Plan
from surgery.plan.replacements import MeanValues
from surgery.spec.load import read_spec
from surgery.testing import build_tiny_model, tiny_call

Means = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Saved:
    """A tiny model, and the same on disk. `many` holds it in several shards."""

    name: str
    model: nn.Module
    anatomy: Anatomy
    folder: Path
    many: Path


@pytest.fixture(scope="module", autouse=True)
def _models_on_meta_are_built_once():
    with building_once():
        yield


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Callable[..., Saved]:
    """The tiny model of a name and dtype, saved once a session."""
    found: dict[tuple[str, torch.dtype], Saved] = {}

    def get(name: str, dtype: torch.dtype = torch.float32) -> Saved:
        if (name, dtype) not in found:
            folder = tmp_path_factory.mktemp(f"{name}-{dtype}".replace("torch.", ""))
            model = build_tiny_model(name).to(dtype)  # one of its own, that may be cast
            model.save_pretrained(folder / "one")
            model.save_pretrained(folder / "many", max_shard_size="20KB")
            assert len(list((folder / "many").glob("*.safetensors"))) > 1
            loaded = type(model).from_pretrained(folder / "one", torch_dtype=dtype).eval()
            anatomy = tiny_anatomy(name) if dtype == torch.float32 else read_anatomy(loaded)
            found[name, dtype] = Saved(name, loaded, anatomy, folder / "one", folder / "many")
        return found[name, dtype]

    return get


@pytest.fixture(scope="session")
def plan_of() -> Callable[..., Plan]:
    """The plan of some operations, written as the items of a spec's list."""

    def plan(operations: list[str], anatomy: Anatomy, means: Means | None = None) -> Plan:
        text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
        widths = {
            f"{path}/{stream}": len(v) for path, streams in (means or {}).items() for stream, v in streams.items()
        }
        values = None if means is None else MeanValues("0" * 64, widths)
        return lower_spec(read_spec(text if operations else "surgery: v1\noperations: []"), anatomy, values)

    return plan


def compile_source(source: ModelSource, model: nn.Module, anatomy: Anatomy, plan: Plan) -> NewCheckpoint:
    """What the checkpoint of a model on disk holds under a plan; folds are found on the model itself."""
    layers = unroll_plan(plan, anatomy)
    folds = find_folds(model.float(), tiny_call(model.float()), anatomy, plan, layers)
    return compile_plan(source, weights_of_source(source), layers, fields_of_plan(source, layers), folds)


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Write the checkpoint of a saved model under a plan into a folder."""

    def write(
        name: Path,
        model: nn.Module,
        anatomy: Anatomy,
        plan: Plan,
        out: Path,
        *,
        means: Means | None = None,
        **sizes: Any,
    ) -> Path:
        source = find_source(str(name))
        weights = weights_of_source(source)
        copy = build_copy(model)
        new = compile_source(source, copy, anatomy, plan)
        vectors = {f"{p}/{s}": v.double().numpy() for p, streams in (means or {}).items() for s, v in streams.items()}
        out.mkdir()
        write_weights(out, plan_bytes(new, weights, **sizes), weights, metadata={"format": "pt"}, means=vectors)
        config = out / "config" if source.file is not None else out
        config.mkdir(exist_ok=True)
        (config / "config.json").write_text(json.dumps(dict(new.config)))
        return out

    return write


def build_copy(model: nn.Module) -> nn.Module:
    """A copy of a model, which folds are found on in float32; one that has no other numbers is left as it is."""
    return model if all(value.dtype == torch.float32 for value in model.parameters()) else copy.deepcopy(model)


@pytest.fixture(scope="session")
def reload() -> Callable[..., nn.Module]:
    """The stock class, loaded from a folder in a dtype; nothing may be missing or left over."""

    def load(model: nn.Module, folder: Path) -> nn.Module:
        dtype = next(model.parameters()).dtype
        loaded, report = type(model).from_pretrained(folder, torch_dtype=dtype, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"], report
        assert type(loaded) is type(model)
        return loaded.eval()

    return load


@pytest.fixture(scope="session")
def call_of() -> Callable[..., dict[str, Any]]:
    """Random inputs for a model in its own dtype."""

    def call(model: nn.Module) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        example = example_call(model, sizes={"text": 7, "image": 9}, generator=generator)
        assert example is not None
        return example.kwargs

    return call
