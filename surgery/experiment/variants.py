"""Specs of one model -> named variants with their plans; and what is noted of every run."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surgery.anatomy.parts import Anatomy
from surgery.graph.apply import plan_for_spec
from surgery.plan.plan import Plan
from surgery.plan.sweep import expand_sweep
from surgery.profiles.means import means_for_spec
from surgery.spec.load import Spec
from surgery.version import __version__


@dataclass(frozen=True)
class Variant:
    """A spec with its plan, under a name of its own."""

    name: str
    spec: Spec
    plan: Plan


def plan_variants(
    specs: Sequence[Spec], anatomy: Anatomy, profile: Path | None, *, taken: Sequence[str] = ()
) -> list[Variant]:
    """The plans of specs and of the points of sweeps; names are made different from one another and from those `taken`.

    Raises:
        SpecError: a spec has faults.
        InputError: a file of means is not usable.
    """
    found: list[Variant] = []
    points = [point for spec in specs for point in expand_sweep(spec, anatomy)]
    for spec in points:
        stem = spec.name
        used = {*taken, *(variant.name for variant in found)}
        numbered = (f"{stem}-{number}" for number in range(2, len(used) + 3))
        name = next(name for name in (stem, *numbered) if name not in used)
        found.append(Variant(name, spec, plan_for_spec(spec, anatomy, means_for_spec(spec, profile))))
    return found


def folder_name(name: str) -> str:
    """A variant's name as that of a folder: values of a sweep may hold slashes; no two names are the same folder."""
    return re.sub(r"[%/\0]|^\.", lambda found: f"%{ord(found[0]):02X}", name)


def means_file(spec: Spec, override: Path | None) -> Path | None:
    """The file of means of a spec, or the one given instead."""
    if override is not None or spec.profile is None:
        return override
    return spec.folder / spec.profile


def library_versions() -> dict[str, str]:
    """The versions that pictures depend on."""
    import diffusers
    import torch
    import transformers

    return {
        "surgery": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
