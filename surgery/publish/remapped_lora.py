"""A planned spec and an adapter of the original (LoRA, LoKr, ...) -> a file for the pruned checkpoint of that spec."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import source_to_json
from surgery.anatomy.tensor_files import TensorFile, Weights, read_header
from surgery.checkpoint.adapter_metadata import remap_metadata
from surgery.checkpoint.byte_plan import plan_bytes
from surgery.checkpoint.header_metadata import keep_metadata
from surgery.checkpoint.new_checkpoint import NewCheckpoint
from surgery.checkpoint.remap import Remapped, fitted_from_answer, remap_adapter
from surgery.checkpoint.unrolled import stock_plan
from surgery.errors import InputError, RefusedError
from surgery.outputs import refuse_file, unfinished_runs
from surgery.plan.planned import PlannedSource
from surgery.publish.manifest import FORMAT
from surgery.publish.recipe import BASE_KEY, KEY, public_text
from surgery.publish.worker import open_verifier
from surgery.version import __version__


@dataclass(frozen=True)
class RemappedLora:
    """What was written: `recipe` is what the file says of itself, `stale` the hashes that its header has no more."""

    file: TensorFile
    out: Path
    remapped: Remapped
    recipe: Mapping[str, Any]
    size_bytes: int
    stale: tuple[str, ...] = ()


def remap_lora(planned: PlannedSource, lora: Path, out: Path, *, force: bool = False) -> RemappedLora:
    """Write an adapter of the original for the checkpoint that `compile_planned` writes.

    Raises:
        InputError: it is no adapter of this model, or the target can't be written.
        RefusedError: no stock checkpoint can express the plan, or the adapter can't follow it.
    """
    plan = stock_plan(planned.plan)
    refuse_out(out, lora, force=force)
    file = _read_adapter(lora)
    with open_verifier() as ask:
        answer = ask("fit", source=source_to_json(planned.source), plan=plan.to_json())
    num_layers = {schedule.stack: schedule.num_blocks for schedule in plan.schedules}
    fitted = fitted_from_answer(planned.source.class_name, num_layers, answer)
    try:
        remapped = remap_adapter(file.tensors, fitted)
        present = sorted({name.rpartition(".")[0] for name in fitted.tensors})
        header = keep_metadata(file.metadata, fitted.orders)
        metadata = remap_metadata(header.kept, remapped.modules, present)
    except (InputError, RefusedError) as error:
        raise type(error)(f"{lora}: {error}") from None
    recipe = make_recipe(planned, file, remapped)
    if KEY in metadata:
        metadata[BASE_KEY] = metadata[KEY]
    metadata[KEY] = json.dumps(recipe, ensure_ascii=False)
    size = _write(file, remapped, out, metadata, force=force)
    return RemappedLora(file, out, remapped, recipe, size, header.stale)


def refuse_out(out: Path, lora: Path, *, force: bool) -> None:
    """Raise InputError where writing a file would hurt what is there, or can't be done."""
    if out.exists() and lora.exists() and out.samefile(lora):
        raise InputError(f"{out} is the adapter itself; give another file")
    refuse_file(out, force=force, suffixes=(".safetensors",))


def make_recipe(planned: PlannedSource, file: TensorFile, remapped: Remapped) -> dict[str, Any]:
    """What an adapter's file says of how it was made."""
    return {
        "format": FORMAT,
        "kind": "adapter",
        "adapter": file.path.name,
        "spec": public_text(planned),
        **({"transformer": planned.source.part} if planned.source.has_second else {}),
        "plan": planned.plan.text,
        "plan_hash": planned.plan.hash,
        "tensors": {
            "before": len(file.tensors),
            "after": len(remapped.tensors),
            "fallen": remapped.num_fallen,
            "not_of_the_model": len(remapped.others),
        },
        "versions": {"surgery": __version__},
    }


def _read_adapter(lora: Path) -> TensorFile:
    if lora.is_dir():
        found = sorted(path.name for path in lora.glob("*.safetensors") if path.is_file())
        named = f"; name one of its files: {', '.join(found[:5])}" if found else ""
        raise InputError(f"{lora} is a folder{named}")
    if lora.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise InputError(f"{lora} is a pickle, which is never loaded here; save the adapter as safetensors")
    return read_header(lora)


def _write(file: TensorFile, remapped: Remapped, out: Path, metadata: Mapping[str, str], *, force: bool) -> int:
    """Write beside the target, then rename; the number of bytes of all tensors. Of two runs one is refused."""
    from surgery.checkpoint.write import write_weights

    weights = Weights((file,))
    plan = plan_bytes(NewCheckpoint({}, remapped.tensors), weights, single=out.name)
    with unfinished_runs(out) as beside:
        refuse_out(out, file.path, force=force)
        try:
            write_weights(beside, plan, weights, metadata=metadata)
            (beside / out.name).replace(out)
        finally:
            (beside / out.name).unlink(missing_ok=True)
    return plan.size_bytes
