"""What a pruned model says of itself: metadata within its files, a manifest and a model card beside them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.anatomy.identity import Identity
from surgery.anatomy.sources import ModelSource
from surgery.anatomy.tensor_files import Weights
from surgery.checkpoint.byte_plan import BytePlan
from surgery.checkpoint.relayering import Relayering
from surgery.export.components import ComponentFile
from surgery.export.model_card import CardFacts, Size, read_card_head
from surgery.plan.planned import PlannedSpec

FORMAT = 1
KEY, BASE_KEY = "surgery", "surgery_of_base"  # in the metadata of safetensors files
TRANSFORMER = "transformer"


@dataclass(frozen=True)
class PreparedModel:
    """All that is known before the first byte is written."""

    planned: PlannedSpec
    source: ModelSource
    weights: Weights
    relayering: Relayering
    bytes: BytePlan
    components: tuple[ComponentFile, ...]
    identity: Identity
    agreement: Mapping[str, Any] | None
    versions: Mapping[str, str]

    @property
    def is_pipeline(self) -> bool:
        """Whether the result is a pipeline's folder, not a transformer's."""
        return self.source.pipeline is not None

    @property
    def repeated_bytes(self) -> int:
        """The bytes of all copies of a block but its first: the graph backend would share them."""
        sizes = {name: tensor.size_bytes for name, (_, tensor) in self.weights.tensors.items()}
        uses: dict[str, int] = {}
        for tensor in self.relayering.tensors:
            for name in {segment.tensor for segment in tensor.segments}:
                uses[name] = uses.get(name, 0) + 1
        return sum(sizes[name] * (count - 1) for name, count in uses.items())


def make_metadata(prepared: PreparedModel) -> dict[str, str]:
    """The metadata of the safetensors files: the original's, and the recipe as JSON."""
    carried = dict(prepared.weights.files[0].metadata)
    if KEY in carried:
        carried[BASE_KEY] = carried.pop(KEY)  # the original was pruned itself
    planned = prepared.planned
    recipe = {
        "format": FORMAT,
        "spec": planned.spec.text,
        "plan": planned.plan.text,
        "plan_hash": planned.plan.hash,
        "base": prepared.identity.to_json(),
        "versions": dict(prepared.versions),
    }
    return {"format": "pt", **carried, KEY: json.dumps(recipe, ensure_ascii=False)}


def make_manifest(prepared: PreparedModel, sizes: Mapping[str, int], checks: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder is, what it was made from, what is in it (`sizes`, in bytes), and how it was verified."""
    planned, relayering = prepared.planned, prepared.relayering
    return {
        "format": FORMAT,
        "kind": "checkpoint",
        "title": planned.spec.title,
        "base": prepared.identity.to_json(),
        "spec": hashlib.sha256(planned.spec.text.encode()).hexdigest(),
        "plan": planned.plan.hash,
        "config_changes": config_changes(prepared),
        "weights": {
            "parameters": [prepared.weights.num_values, prepared.bytes.num_values],
            "bytes": [prepared.weights.size_bytes, prepared.bytes.size_bytes],
            "changed_bytes": prepared.bytes.computed_bytes,
            "repeated_bytes": prepared.repeated_bytes,
            "dropped_tensors": len(relayering.dropped),
        },
        "files": dict(sizes),
        "checks": dict(checks),
        "versions": dict(prepared.versions),
    }


def config_changes(prepared: PreparedModel) -> dict[str, Any]:
    """The fields of the config that are others now, with their values."""
    before = prepared.source.config
    return {name: value for name, value in prepared.relayering.config.items() if before.get(name) != value}


def card_facts(prepared: PreparedModel, name: str, checks: Mapping[str, Any]) -> CardFacts:
    """What the model card of a pruned model is written from; `name` is that of its folder."""
    planned = prepared.planned
    root = base_folder(prepared.source)
    notes = [f"the config says `{field}: {json.dumps(value)}`" for field, value in config_changes(prepared).items()]
    if prepared.repeated_bytes:
        notes.append(
            f"layers that run more than once are written out: {prepared.repeated_bytes / 1e6:,.1f} MB of copies"
        )
    return CardFacts(
        name=name,
        spec=planned.spec,
        plan=planned.plan,
        base=prepared.identity,
        base_card={} if root is None else read_card_head(root / "README.md"),
        before=Size(prepared.weights.num_values, prepared.weights.size_bytes),
        after=Size(prepared.bytes.num_values, prepared.bytes.size_bytes),
        loading=loading_code(prepared, name),
        checks=tuple(describe_check(kind, found) for kind, found in checks.items()),
        notes=tuple(notes),
    )


def base_folder(source: ModelSource) -> Path | None:
    """Where the original's own card and licence would lie."""
    if source.pipeline is not None:
        return Path(source.pipeline)
    return source.file.parent if source.file is not None else source.folder


def loading_code(prepared: PreparedModel, folder: str) -> str:
    """The Python that loads what is in `folder`."""
    name = prepared.source.class_name
    if prepared.is_pipeline:
        return f'from diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained("{folder}")'
    if prepared.source.file is None:
        return f'from diffusers import {name}\n\ntransformer = {name}.from_pretrained("{folder}")'
    file = prepared.bytes.shards[0].name
    return (
        f"from diffusers import {name}\n\n"
        f'transformer = {name}.from_single_file("{folder}/{file}", config="{folder}/config")'
    )


def describe_check(kind: str, found: Mapping[str, Any]) -> str:
    """A sentence on one check."""
    if kind == "structure":
        return f"checked: {found['num_tensors']} tensors, as the stock class with this config wants them"
    return f"checked: output differs from that of the rewritten graph by {found['difference']:.2g} (relative), on {found['model']}"
