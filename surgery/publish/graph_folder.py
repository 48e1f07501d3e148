"""A variant as a folder that can be kept, read and loaded: `surgery compile SPEC --to graph`, `surgery.load_variant`.

The folder holds `spec.yaml` as it was, `plan.json`, `forward.py` (the rewritten forward, to be read), the file of means
where the plan uses one, and `surgery.json`, the manifest: what the base model is, hashes of all other files, versions.
It holds no weights: the variant shares those of its base model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.identity import Identity, find_difference, identify, identity_from_json
from surgery.anatomy.sources import ModelSource, build_on_meta, find_source, read_json, second_source
from surgery.damage import told_as
from surgery.errors import InputError, RefusedError
from surgery.files import hash_file, is_file
from surgery.graph.apply import apply
from surgery.graph.transformer_variants import tensors_of_means
from surgery.graph.variant import build_variant, source_of_variant
from surgery.outputs import whole_folder
from surgery.pipelines.pretrained import load_pretrained
from surgery.plan.paired import ModelPlan, PairedPlan, model_plan_from_json
from surgery.plan.planned import PlannedSource
from surgery.plan.windowed import AnyPlan, uses_means
from surgery.profiles.means import MeansFile
from surgery.publish.manifest import (
    BASE_2,
    FORMAT,
    FORWARD,
    FORWARD_2,
    MANIFEST,
    MEANS,
    PLAN,
    SPEC,
    kind_of_folder,
    make_manifest,
    write_manifest,
    write_spec_and_plan,
)
from surgery.spec.load import Spec
from surgery.spec.selector import SECOND
from surgery.version import __version__


@dataclass(frozen=True)
class Artefact:
    """A folder that `write_artefact` wrote, found unchanged. `means` is its file of means, None without one.

    `second` is the base's second transformer where that is edited, too.
    """

    folder: Path
    base: Identity
    plan: ModelPlan
    means: Path | None
    manifest: Mapping[str, Any]
    second: Identity | None = None


def is_artefact(folder: Path) -> bool:
    """Whether a folder has the manifest of a graph; that of a pruned checkpoint is a model like any other."""
    return kind_of_folder(folder) == "graph"


def write_artefact(
    out: Path,
    *,
    spec: Spec,
    source: ModelSource,
    anatomy: Anatomy,
    plan: AnyPlan,
    means: MeansFile | None = None,
    second: PlannedSource | None = None,
    force: bool = False,
    write_more: Callable[[Path], Mapping[str, Any]] | None = None,
) -> Artefact:
    """Write the folder of a variant: beside, then renamed, so that it is there whole or not at all.

    `means` is what the plan takes its means from; `second` what is planned for a second transformer, where the spec
    edits it. `write_more(folder)` may write more files; what it returns goes into the manifest.

    Raises:
        InputError: there is something in `out`, and no `force`; or it can't be written.
        RefusedError, TraceError: the forward can't be rewritten so.
    """
    used = means if uses_means(plan) else None
    whole = plan if second is None else PairedPlan(plan, second.plan)
    with whole_folder(out, force=force) as folder:
        write_spec_and_plan(folder, spec.text, whole)
        forward = describe_forward(spec, source, anatomy, plan, used)
        (folder / FORWARD).write_text(forward, encoding="utf-8")
        if used is not None:
            (folder / MEANS).write_bytes(used.path.read_bytes())
        more = {} if second is None else _write_second(folder, spec, second)
        more |= {} if write_more is None else write_more(folder)
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        manifest = make_manifest(
            "graph",
            title=spec.title,
            base=identify(source),
            spec_text=spec.text,
            plan=whole,
            facts={"files": files},
            versions={"surgery": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        )
        write_manifest(folder, {**manifest, **more})
    return read_artefact(out)


def _write_second(folder: Path, spec: Spec, second: PlannedSource) -> dict[str, Any]:
    """Write the rewritten forward of a second transformer; what the manifest says of that one."""
    forward = describe_forward(spec, second.source, second.anatomy, second.plan, None)
    (folder / FORWARD_2).write_text(forward, encoding="utf-8")
    return {BASE_2: identify(second.source).to_json()}


def describe_forward(spec: Spec, source: ModelSource, anatomy: Anatomy, plan: AnyPlan, means: MeansFile | None) -> str:
    """The rewritten forward as Python, under what the spec and the plan say."""
    tensors = None if means is None else tensors_of_means(means)
    try:
        code = source_of_variant(build_variant(build_on_meta(source), plan, anatomy, tensors))
    except RefusedError as reason:
        code = f"# {reason}\n"
    title = spec.title or spec.stem
    head = "\n".join((title, f"base model: {source.name}", plan.text))
    return "".join(f"# {line}\n" for line in head.splitlines()) + "\n" + code


def read_artefact(folder: str | Path) -> Artefact:
    """Read the folder of a variant, and check that nothing in it was changed.

    Raises:
        InputError: it is no such folder, is of a newer format, or a file is missing or changed.
    """
    folder = Path(folder)
    if not is_artefact(folder):
        if kind_of_folder(folder) is not None:
            raise InputError(f"{folder} is a pruned model of its own; load it with from_pretrained")
        raise InputError(f"{folder} has no {MANIFEST}; give a folder that `surgery compile --to graph` wrote")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        shown = manifest.get("format", "none")
        raise InputError(f"{folder} has format {shown}; this version reads {FORMAT}; install a newer layer-surgery")
    with told_as(f"{folder / MANIFEST} is damaged, so that the spec must be compiled again"):
        base, files = identity_from_json(manifest["base"]), dict(manifest["files"])
        recorded = str(manifest["plan"])
        second = identity_from_json(manifest[BASE_2]) if BASE_2 in manifest else None
    for name, digest in files.items():
        path = folder / name
        if Path(name).name != name or not is_file(path):
            raise InputError(f"{folder} has no {name}, which its manifest lists; compile the spec again")
        if hash_file(path) != digest:
            raise InputError(f"{path} was changed after it was compiled; compile the spec again")
    with told_as(f"{folder / PLAN} is damaged, so that the spec must be compiled again"):
        plan = model_plan_from_json(read_json(folder / PLAN))
    if plan.hash != recorded:
        raise InputError(f"{folder / PLAN} is not the plan of the manifest; compile the spec again")
    return Artefact(folder, base, plan, folder / MEANS if MEANS in files else None, manifest, second)


def load_variant(
    folder: str | Path, *, base: str | Path | None = None, dtype: Any = "auto", device: Any = "auto"
) -> Any:
    """The running variant of a folder that `surgery compile SPEC --to graph` wrote: a pipeline where the base model is
    one, otherwise a transformer.

    The base model is loaded by diffusers from where it was found before, or from `base` (a folder or a hub id); it must
    be the recorded one. `dtype` is float32, bfloat16, float16 (names or torch's own) or auto, `device` torch's or auto.

    Raises:
        InputError: the folder is damaged, or the base model is not there, can't be loaded, or is another one.
    """
    artefact = read_artefact(folder)
    source = find_base(artefact, base)
    return apply(load_pretrained(source, dtype=dtype, device=device), artefact.plan, profile=artefact.means)


def find_base(artefact: Artefact, base: str | Path | None = None) -> ModelSource:
    """The base model of an artefact, found and compared with what was recorded.

    Raises:
        InputError: it is not there, or another model is.
    """
    name = str(base or artefact.base.model)
    try:
        source = find_source(name, revision=artefact.base.revision)
    except InputError as error:
        advice = "" if base is not None else "; give base= where the model lies now"
        raise InputError(f"the base model of {artefact.folder} can't be found: {error}{advice}") from None
    difference = find_difference(artefact.base, source) or _difference_of_second(artefact, source)
    if difference is not None:
        raise InputError(
            f"{name} is not the base model that {artefact.folder} was compiled for: {difference}; give that model, or "
            f"compile {artefact.folder / SPEC} for this one"
        )
    return source


def _difference_of_second(artefact: Artefact, source: ModelSource) -> str | None:
    """Why a model's second transformer is not the recorded one; None where it is, or none was edited."""
    if artefact.second is None:
        return None
    found = second_source(source)
    if found is None:
        return "it has one transformer, not two"
    difference = find_difference(artefact.second, found)
    return None if difference is None else f"its {SECOND} is another one: {difference}"
