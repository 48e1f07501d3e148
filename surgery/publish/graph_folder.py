"""A variant as a folder that can be kept, read and loaded: `surgery compile SPEC --to graph`, `surgery.load_variant`.

The folder holds `spec.yaml` as it was, `plan.json`, `forward.py` (the rewritten forward, to be read), the file of means
where the plan uses one, and `surgery.json`, the manifest: what the base model is, hashes of all other files, versions.
It holds no weights: the variant shares those of its base model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.identity import identify
from surgery.anatomy.sources import ModelSource, build_on_meta
from surgery.errors import RefusedError
from surgery.files import hash_file
from surgery.graph.apply import apply
from surgery.graph.transformer_variants import tensors_of_means
from surgery.graph.variant import build_variant, source_of_variant
from surgery.outputs import whole_folder
from surgery.pipelines.pretrained import load_pretrained
from surgery.plan.paired import PairedPlan
from surgery.plan.planned import PlannedSource
from surgery.plan.windowed import AnyPlan, uses_means
from surgery.profiles.means import MeansFile
from surgery.publish.artefact import Artefact, find_base, read_artefact
from surgery.publish.known_arguments import known_call_of
from surgery.publish.manifest import (
    BASE_2,
    FORWARD,
    FORWARD_2,
    MEANS,
    make_manifest,
    write_manifest,
    write_spec_and_plan,
)
from surgery.spec.load import Spec
from surgery.version import __version__


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
    used_2 = second.means if second is not None and uses_means(second.plan) else None
    whole = plan if second is None else PairedPlan(plan, second.plan)
    with whole_folder(out, force=force) as folder:
        write_spec_and_plan(folder, spec.text, whole)
        forward = describe_forward(spec, source, anatomy, plan, used)
        (folder / FORWARD).write_text(forward, encoding="utf-8")
        for kept in (item for item in (used, used_2) if item is not None):  # a file is of one of two transformers
            (folder / MEANS).write_bytes(kept.path.read_bytes())
        more = {} if second is None else _write_second(folder, spec, second, used_2)
        more |= {} if write_more is None else write_more(folder)
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        manifest = make_manifest(
            "graph",
            title=spec.title,
            base=identify(source),
            spec_text=spec.text,
            plan=whole,
            facts={"files": files},
            call=known_call_of(source),
            versions={"surgery": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
        )
        write_manifest(folder, {**manifest, **more})
    return read_artefact(out)


def _write_second(folder: Path, spec: Spec, second: PlannedSource, means: MeansFile | None) -> dict[str, Any]:
    """Write the rewritten forward of a second transformer; what the manifest says of that one."""
    forward = describe_forward(spec, second.source, second.anatomy, second.plan, means)
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
