"""The manifest of a published folder, `surgery.json`, and what lies beside it: the spec and the plan, as text."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from surgery.anatomy.identity import Identity
from surgery.anatomy.sources import HUB_PREFIX, read_json
from surgery.bundled import DEMO_NAME
from surgery.damage import told_as
from surgery.files import expand_home, is_file
from surgery.finite import from_finite, to_finite
from surgery.plan.paired import ModelPlan

FORMAT = 1
MANIFEST, SPEC, PLAN, CARD = "surgery.json", "spec.yaml", "plan.json", "README.md"
FORWARD, MEANS = "forward.py", "means.safetensors"  # of a graph's folder
CALL, HEALED = "call", "healed"  # how the base's pipeline is called; how it was trained after it was compiled
CONFIG, WEIGHTS, WEIGHTS_SUM = "config", "weights", "sha256"  # of a checkpoint: what its transformer is known again by
FORWARD_2, BASE_2 = "forward_2.py", "base_2"  # of a second transformer: its file, its entry in the manifest

Kind = Literal["graph", "checkpoint"]


def kind_of_folder(folder: Path) -> Kind | None:
    """What a folder was compiled to; None for one without a manifest. The first manifests, of graphs, do not say."""
    manifest = folder / MANIFEST
    if not is_file(manifest):
        return None
    return "graph" if read_json(manifest).get("kind", "graph") == "graph" else "checkpoint"


def kind_of_model(name: str) -> Kind | None:
    """What the folder that a model is called by was compiled to; None for any other, and names of no folder."""
    if name == DEMO_NAME or name.startswith(HUB_PREFIX):
        return None
    return kind_of_folder(expand_home(name))


def write_spec_and_plan(folder: Path, spec_text: str, plan: ModelPlan) -> None:
    """Both as they are published."""
    (folder / SPEC).write_bytes(spec_text.encode())
    (folder / PLAN).write_text(json.dumps(plan.to_json(), indent=2) + "\n", encoding="utf-8")


def make_manifest(
    kind: Kind,
    *,
    title: str | None,
    base: Identity,
    spec_text: str,
    plan: ModelPlan,
    facts: Mapping[str, Any],
    call: Mapping[str, Any],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """What a folder is, what it was made from, by what; `facts` are those of its kind.

    `call` are the arguments that the base's pipeline is called with, where it wants some of its own.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "title": title,
        "base": base.to_json(),
        "spec": hashlib.sha256(spec_text.encode()).hexdigest(),
        "plan": plan.hash,
        **facts,
        **({CALL: dict(call)} if call else {}),
        "versions": dict(versions),
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote into a folder.

    Raises:
        InputError: it is not there, or is damaged.
    """
    path = folder / MANIFEST
    document = read_json(path)
    with told_as(f"{path} is damaged"):
        return dict(from_finite(document))


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it last: it lists the other files."""
    text = json.dumps(to_finite(manifest), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
