"""A compiled checkpoint, and the base model that its recipe names: what can be healed, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.anatomy.identity import Identity, find_difference, identity_from_json
from surgery.anatomy.sources import ModelSource, find_source, read_json
from surgery.damage import told_as
from surgery.errors import InputError, RefusedError
from surgery.experiment.run import having_pipeline
from surgery.plan.paired import model_plan_from_json
from surgery.plan.plan import Plan
from surgery.publish.artefact import find_recorded
from surgery.publish.manifest import BASE_2, MANIFEST, PLAN, kind_of_folder, read_manifest
from surgery.spec.selector import FIRST

QUANTISED = "quantization_config"  # the field of a config


@dataclass(frozen=True)
class Healable:
    """A compiled checkpoint: its folder, manifest and plan, its transformer, and the base that it was made from."""

    folder: Path
    manifest: Mapping[str, Any]
    plan: Plan
    student: ModelSource
    base: ModelSource

    @property
    def weights_folder(self) -> Path:
        """Where the files of the transformer are."""
        return self.folder / self.inside

    @property
    def inside(self) -> Path:
        """The same, from the folder itself."""
        return Path(FIRST) if self.student.pipeline is not None else Path()


def open_healable(folder: Path, model: str | None = None) -> Healable:
    """What a folder that `surgery compile --to checkpoint` wrote is; `model` is where its base is, if not where it was.

    Raises:
        InputError: it is no such folder, or is damaged; the base is not found, or is another model.
        RefusedError: it is a graph, a single file, one of two transformers, or quantised.
    """
    _refuse_kind(folder)
    manifest = read_manifest(folder)
    if BASE_2 in manifest:
        raise RefusedError(f"{folder} has two transformers under surgery, and one of two is not healed yet")
    if any(folder.glob("*.safetensors")) and (folder / "config" / "config.json").exists():
        raise RefusedError(
            f"{folder} is a single file in the layout of the model's authors; compile the spec from the diffusers "
            "folder of the base, and heal that"
        )
    with told_as(f"{folder} is no whole checkpoint; compile it again"):
        plan = model_plan_from_json(read_json(folder / PLAN))
        recorded = identity_from_json(manifest["base"])
        _ = dict(manifest["files"])
        is_same = plan.hash == manifest["plan"]
    if not isinstance(plan, Plan) or not is_same:
        raise InputError(f"{folder / PLAN} is not the plan that {MANIFEST} names; compile {folder} again")
    student = find_source(str(folder))
    _refuse_quantised(student, str(folder))
    base = _find_base(folder, recorded, model)
    _refuse_quantised(base, base.name)
    reason = find_difference(recorded, base)
    if reason is not None:
        raise InputError(
            f"{base.name} is not the model that {folder} was compiled from: {reason}; give that one with --model"
        )
    return Healable(folder, manifest, plan, student, having_pipeline(base, "to heal, which takes its text encoder"))


def _refuse_kind(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that `surgery compile SPEC --to checkpoint` wrote")
    kind = kind_of_folder(folder)
    if kind is None:
        raise InputError(
            f"{folder} has no {MANIFEST}, which says from what it was compiled; give a folder that "
            "`surgery compile SPEC --to checkpoint` wrote"
        )
    if kind == "graph":
        raise RefusedError(
            f"{folder} is a compiled graph, whose weights are those of its base; compile a checkpoint, and heal that: "
            f"surgery compile {folder / 'spec.yaml'} --to checkpoint --out DIR"
        )


def _find_base(folder: Path, recorded: Identity, given: str | None) -> ModelSource:
    if given is not None:
        return find_source(given)
    try:
        return find_recorded(folder, recorded)
    except InputError as error:
        raise InputError(
            f"{folder} was compiled from {recorded.model}, which is not found here ({error}); "
            "give that model with --model"
        ) from None


def _refuse_quantised(source: ModelSource, name: str) -> None:
    if source.config.get(QUANTISED) is not None:
        raise RefusedError(
            f"{name} is quantised, and no gradient flows through its {FIRST}; compile the spec from the base in "
            "bfloat16 or float32, and heal that"
        )
