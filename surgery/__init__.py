"""Layer surgery on diffusion transformers. Names are imported when they are first used: `import surgery` is instant."""

import importlib
from typing import TYPE_CHECKING, Any

from surgery.version import __version__

if TYPE_CHECKING:
    from surgery.anatomy.sources import inspect as inspect
    from surgery.experiment.profiling import profile as profile
    from surgery.graph.apply import apply as apply
    from surgery.publish.graph_folder import load_variant as load_variant
    from surgery.publish.pruned_model import compile_checkpoint as compile_checkpoint
    from surgery.spec.load import load_spec as load_spec

__all__ = ["__version__", "apply", "compile_checkpoint", "inspect", "load_spec", "load_variant", "profile"]

_HOMES = {
    "apply": "surgery.graph.apply",
    "compile_checkpoint": "surgery.publish.pruned_model",
    "inspect": "surgery.anatomy.sources",
    "load_spec": "surgery.spec.load",
    "load_variant": "surgery.publish.graph_folder",
    "profile": "surgery.experiment.profiling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'surgery' has no attribute {name!r}")
