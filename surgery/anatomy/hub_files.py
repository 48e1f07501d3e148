"""A model on the hub -> a folder in the local cache that holds what is needed of it, and no more."""

import glob
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from surgery.anatomy.hub_cache import cached_snapshot, explain_hub_error
from surgery.anatomy.needed_files import find_gaps, needed_files
from surgery.anatomy.sources import PIPELINE_INDEX, ModelSource, dtype_of_weights, read_json
from surgery.errors import InputError

TIMEOUT_S = 10


def fetch_source(source: ModelSource, *, transformer_only: bool, variant: str | None = None) -> ModelSource:
    """The source with its files in a local folder; a model that is no hub id is that already.

    What is in the cache is not downloaded again, and without a connection the cache is all there is.

    Raises:
        InputError: the hub can't be reached, and the cache has not all of the model; or it has no weights that can be
            read.
    """
    if source.revision is None or source.file is not None:
        return source
    folder = _fetch(source, transformer_only=transformer_only, variant=variant)
    inner = folder / source.part if source.pipeline is not None else folder
    pipeline = None if source.pipeline is None else str(folder)
    return replace(source, folder=inner, pipeline=pipeline, weights_dtype=dtype_of_weights(inner))


def _fetch(source: ModelSource, *, transformer_only: bool, variant: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    of_http = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)  # of the library that the client is built on
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *of_http)
    index = None
    try:
        if source.pipeline is not None:
            index = read_json(Path(hf_hub_download(source.name, PIPELINE_INDEX, revision=source.revision)))
        return _download(source, index, transformer_only=transformer_only, variant=variant)
    except failures as error:
        folder = cached_snapshot(source.name, source.revision)
        gaps = ["all of it"]
        if folder is not None and (index is not None or source.pipeline is None):
            gaps = find_gaps(folder, index, transformer_only=transformer_only, variant=variant)
        if folder is not None and not gaps:
            return folder
        reason, missing = explain_hub_error(error), ", ".join(gaps[:5])
        raise InputError(f"{source.name} can't be downloaded: {reason}; the cache lacks {missing}") from None


def _download(
    source: ModelSource, index: Mapping[str, Any] | None, *, transformer_only: bool, variant: str | None
) -> Path:
    from huggingface_hub import model_info, snapshot_download

    info = model_info(source.name, revision=source.revision, timeout=TIMEOUT_S)  # list_repo_files tries for a minute
    names = [file.rfilename for file in info.siblings or []]
    wanted = needed_files(names, index, transformer_only=transformer_only, variant=variant)
    patterns = [glob.escape(name) for name in wanted]
    return Path(snapshot_download(source.name, revision=source.revision, allow_patterns=patterns))
