"""A model -> the arguments that its pipeline wants to be called with: they travel with all that is compiled from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import ModelSource
from surgery.bundled import DEMO_CALL, DEMO_NAME
from surgery.publish.artefact import call_of_manifest
from surgery.publish.manifest import MANIFEST, read_manifest


def known_call_of(source: ModelSource) -> Mapping[str, Any]:
    """Those of the bundled pipeline, or those that a compiled model's recipe keeps of its base; none of any other.

    Raises:
        InputError: the recipe beside the model can't be read.
    """
    if source.name == DEMO_NAME:
        return DEMO_CALL
    root = root_of(source)
    if root is None or not (root / MANIFEST).is_file():
        return {}
    return call_of_manifest(read_manifest(root))


def root_of(source: ModelSource) -> Path | None:
    """The folder of a model's files: of a pipeline the one above its transformer's; None of one that is not here."""
    if source.file is not None:
        return source.file.parent
    return source.folder if source.folder is None or source.pipeline is None else source.folder.parent
