"""A spec, or a folder that was compiled from one -> what is planned of it, for commands that take either."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.anatomy.sources import PIPELINE_INDEX, ModelSource, anatomy_of_source, find_source, second_source
from surgery.errors import InputError
from surgery.plan.paired import PairedPlan
from surgery.plan.planned import Finder, PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, PlannedPairSource, plan_model_file
from surgery.plan.windowed import AnyPlan
from surgery.publish.artefact import AS_OPTION, Artefact, find_base, read_compiled
from surgery.publish.manifest import MANIFEST, SPEC, kind_of_folder
from surgery.spec.load import Spec, load_spec

if TYPE_CHECKING:
    from surgery.profiles.means import MeansFile


def plan_spec_or_folder(
    path: Path, *, model: str | None = None, profile: Path | None = None, find: Finder = find_source
) -> AnyPlannedSource:
    """What is planned of a spec; of a compiled folder what its recipe says, for the base that it was made from.

    Raises:
        InputError: it is a model without a recipe, its recipe was changed, or its base is not there or another one.
    """
    if not path.is_dir():
        return plan_model_file(path, model=model, profile=profile, find=find)
    refuse_without_recipe(path)
    artefact = read_compiled(path)
    return plan_of_artefact(artefact, find_base(artefact, model, advice=AS_OPTION))


def refuse_without_recipe(folder: Path) -> None:
    """Raise InputError for a folder that no spec was compiled to; of a model, with what to write instead."""
    if kind_of_folder(folder) is not None:
        return
    if is_model_folder(folder):
        raise InputError(
            f"{folder} is a model without a recipe ({MANIFEST}), so that no spec says what was done to it; give a spec "
            f"for it, as SPEC --model {folder}, or look at what it is made of: surgery inspect {folder}"
        )
    raise InputError(f"{folder} is a folder without a recipe ({MANIFEST}); give a spec, or a folder that was compiled")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is that of a pipeline or of a transformer."""
    return any((folder / name).is_file() for name in (PIPELINE_INDEX, "config.json"))


def plan_of_artefact(artefact: Artefact, base: ModelSource) -> AnyPlannedSource:
    """What is planned in the recipe of a compiled folder, for its base."""
    spec = replace(load_spec(artefact.folder / SPEC), file=str(artefact.folder))
    if not isinstance(artefact.plan, PairedPlan):
        return _planned(spec, artefact, artefact.plan, base)
    second = second_source(base)
    assert second is not None, "its base is compared with its recipe"
    plan = artefact.plan
    parts = (_planned(spec, artefact, plan.first, base), _planned(spec, artefact, plan.second, second))
    return PlannedPairSource(spec, *parts)


def _planned(spec: Spec, artefact: Artefact, plan: AnyPlan, source: ModelSource) -> PlannedSource:
    return PlannedSource(spec, anatomy_of_source(source), plan, _means_of(artefact), (), source)


def _means_of(artefact: Artefact) -> "MeansFile | None":
    if artefact.means is None:
        return None
    from surgery.profiles.means import read_means

    return read_means(artefact.means)
