"""A healed model -> a folder that stock diffusers loads: the checkpoint's own, with other weights and what healed them.

Files keep their names, their tensors, the order of these and their dtypes: what was not trained is equal to the bit.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from surgery.anatomy.sources import find_source, weights_of_source
from surgery.errors import RefusedError
from surgery.files import hash_file
from surgery.outputs import whole_folder
from surgery.publish.artefact import facts_of_transformer
from surgery.publish.healed_card import healed_card
from surgery.publish.manifest import CARD, CONFIG, HEALED, MANIFEST, PLAN, SPEC, WEIGHTS, WEIGHTS_SUM, write_manifest
from surgery.publish.pipeline_files import list_pipeline_files, take_along
from surgery.publish.recipe import KEY
from surgery.training.adapters import FILE
from surgery.training.healable import Healable
from surgery.verify.structure import check_structure

HEADER_FACTS = ("steps", "losses")  # of what healed it, in the recipes of the files' headers


def write_healed(
    healable: Healable,
    model: nn.Module,
    out: Path,
    facts: Mapping[str, Any],
    *,
    force: bool,
    save_apart: Callable[[Path], None] | None = None,
) -> dict[str, Any]:
    """Write the folder `out`, whole or not at all; returns its manifest, in which `facts` are the entry `healed`.

    `save_apart` writes adapters beside the weights, which then stay as they were.

    Raises:
        InputError: it can't be written.
        RefusedError: a value does not fit the dtype of its file; or the files do not fit the stock class.
    """
    with whole_folder(out, force=force) as folder:
        for file in list_pipeline_files(healable.student):
            take_along(file, folder)
        inner = folder / healable.inside
        inner.mkdir(exist_ok=True)
        _write_transformer(healable.weights_folder, inner, None if save_apart else model.state_dict(), facts)
        if save_apart is not None:
            save_apart(folder)
        for name in (SPEC, PLAN):
            shutil.copyfile(healable.folder / name, folder / name)
        source = find_source(str(inner))
        num_tensors = check_structure(source, weights_of_source(source))
        healed = {**facts, "weights": _hashes(folder, inner, save_apart is not None)}
        if HEALED in healable.manifest:
            healed["before"] = healable.manifest[HEALED]
        card = (healable.folder / CARD).read_text(encoding="utf-8") if (healable.folder / CARD).exists() else ""
        (folder / CARD).write_text(healed_card(card, out.name, healed), encoding="utf-8")
        sizes = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        checks = {"structure": {"num_tensors": num_tensors}}
        own = facts_of_transformer(source)  # by which the folder is known again
        weights = {**healable.manifest.get(WEIGHTS, {}), WEIGHTS_SUM: own[WEIGHTS_SUM]}
        new = {CONFIG: own[CONFIG], WEIGHTS: weights, "files": sizes, "checks": checks, HEALED: healed}
        manifest = {**healable.manifest, **new}
        write_manifest(folder, manifest)
    return manifest


def _hashes(folder: Path, inner: Path, is_apart: bool) -> dict[str, str]:
    """The SHA-256 of each file of weights that healing wrote."""
    paths = [folder / FILE] if is_apart else sorted(inner.glob("*.safetensors"))
    return {path.name: hash_file(path) for path in paths}


def _write_transformer(
    source: Path, target: Path, values: Mapping[str, torch.Tensor] | None, facts: Mapping[str, Any]
) -> None:
    """Copy the files of a transformer, with other values of its tensors where there are such."""
    for path in sorted(source.iterdir()):
        if not path.is_file():
            continue
        if path.suffix == ".safetensors" and values is not None:
            _write_tensors(path, target / path.name, values, facts)
        elif path.name not in (MANIFEST, SPEC, PLAN, CARD):
            shutil.copyfile(path, target / path.name)


def _write_tensors(path: Path, target: Path, values: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    for name, stored in tensors.items():
        if name in values:
            tensors[name] = _cast(values[name], stored.dtype, name)
    if KEY in metadata:
        recipe = {**json.loads(metadata[KEY]), HEALED: {name: facts[name] for name in HEADER_FACTS if name in facts}}
        metadata[KEY] = json.dumps(recipe, ensure_ascii=False)
    save_file(tensors, target, metadata=metadata)


def _cast(value: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    cast = value.detach().cpu().to(dtype).contiguous()
    if not bool(torch.isfinite(cast).all()):
        raise RefusedError(
            f"a trained value of {name} is too large for {str(dtype).removeprefix('torch.')}, in which the checkpoint "
            "is stored; compile it from a base in bfloat16 or float32, and heal that"
        )
    return cast
