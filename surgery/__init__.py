"""Layer surgery on diffusion transformers. Names are imported when they are first used: `import surgery` is instant."""

import importlib
from typing import TYPE_CHECKING, Any

from surgery.version import __version__

if TYPE_CHECKING:
    from surgery.anatomy.anatomy import Anatomy as Anatomy
    from surgery.anatomy.sources import inspect as inspect
    from surgery.errors import InputError as InputError
    from surgery.errors import InternalsError as InternalsError
    from surgery.errors import NotYetError as NotYetError
    from surgery.errors import PartialTraceWarning as PartialTraceWarning
    from surgery.errors import RefusedError as RefusedError
    from surgery.errors import SpecError as SpecError
    from surgery.errors import SurgeryError as SurgeryError
    from surgery.errors import SurgeryNote as SurgeryNote
    from surgery.errors import TraceError as TraceError
    from surgery.errors import WorkerError as WorkerError
    from surgery.experiment.profiling import profile as profile
    from surgery.experiment.search.conclusion import Search as Search
    from surgery.experiment.spectrum import spectrum as spectrum
    from surgery.face import evaluate as evaluate
    from surgery.face import search as search
    from surgery.face import train as train
    from surgery.graph.apply import apply as apply
    from surgery.pipelines.standing import standing_at as standing_at
    from surgery.plan.check_spec import check as check
    from surgery.plan.check_spec import check_sweep as check_sweep
    from surgery.plan.paired import PairedPlan as PairedPlan
    from surgery.plan.plan import Plan as Plan
    from surgery.plan.windowed import WindowedPlan as WindowedPlan
    from surgery.profiles.layer_profile import Profile as Profile
    from surgery.profiles.suggesting import suggest as suggest
    from surgery.publish.graph_folder import load_variant as load_variant
    from surgery.publish.pruned_model import compile_checkpoint as compile_checkpoint
    from surgery.spec.load import Spec as Spec
    from surgery.spec.load import load_spec as load_spec
    from surgery.training.heal_call import heal as heal
    from surgery.training.settings import TrainingSettings as TrainingSettings

__all__ = [
    "Anatomy",
    "InputError",
    "InternalsError",
    "NotYetError",
    "PairedPlan",
    "PartialTraceWarning",
    "Plan",
    "Profile",
    "RefusedError",
    "Search",
    "Spec",
    "SpecError",
    "SurgeryError",
    "SurgeryNote",
    "TraceError",
    "TrainingSettings",
    "WindowedPlan",
    "WorkerError",
    "__version__",
    "apply",
    "check",
    "check_sweep",
    "compile_checkpoint",
    "evaluate",
    "heal",
    "inspect",
    "load_spec",
    "load_variant",
    "profile",
    "search",
    "spectrum",
    "standing_at",
    "suggest",
    "train",
]

_HOMES = {
    "Anatomy": "surgery.anatomy.anatomy",
    "InputError": "surgery.errors",
    "InternalsError": "surgery.errors",
    "NotYetError": "surgery.errors",
    "PairedPlan": "surgery.plan.paired",
    "PartialTraceWarning": "surgery.errors",
    "Plan": "surgery.plan.plan",
    "Profile": "surgery.profiles.layer_profile",
    "RefusedError": "surgery.errors",
    "Search": "surgery.experiment.search.conclusion",
    "Spec": "surgery.spec.load",
    "SpecError": "surgery.errors",
    "SurgeryError": "surgery.errors",
    "SurgeryNote": "surgery.errors",
    "TraceError": "surgery.errors",
    "TrainingSettings": "surgery.training.settings",
    "WindowedPlan": "surgery.plan.windowed",
    "WorkerError": "surgery.errors",
    "apply": "surgery.graph.apply",
    "check": "surgery.plan.check_spec",
    "check_sweep": "surgery.plan.check_spec",
    "compile_checkpoint": "surgery.publish.pruned_model",
    "evaluate": "surgery.face",
    "heal": "surgery.training.heal_call",
    "inspect": "surgery.anatomy.sources",
    "load_spec": "surgery.spec.load",
    "load_variant": "surgery.publish.graph_folder",
    "profile": "surgery.experiment.profiling",
    "search": "surgery.face",
    "spectrum": "surgery.experiment.spectrum",
    "standing_at": "surgery.pipelines.standing",
    "suggest": "surgery.profiles.suggesting",
    "train": "surgery.face",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'surgery' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
