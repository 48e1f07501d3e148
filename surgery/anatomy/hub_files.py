"""A model on the hub -> a folder in the local cache that holds what is needed of it, and no more."""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from surgery.anatomy.hub_cache import cached_snapshot
from surgery.anatomy.sources import PIPELINE_INDEX, ModelSource, read_json
from surgery.errors import InputError

TEXTS = ("README.md", "LICENSE*", "LICENCE*", "NOTICE*")
OTHER_FORMATS = ("*.msgpack", "*.h5", "*.onnx", "*.onnx_data", "*.pb", "*.ckpt", "*.pt", "*.pth", "*.gguf", "*.tflite")
PICKLES = ("*.bin",)


def fetch_source(source: ModelSource, *, transformer_only: bool, variant: str | None = None) -> ModelSource:
    """The source with its files in a local folder; a model that is no hub id is that already.

    What is in the cache is not downloaded again, and without a connection the cache is all there is.

    Raises:
        InputError: the hub can't be reached, and the cache does not have the model.
    """
    if source.revision is None or source.file is not None:
        return source
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    folder = cached_snapshot(source.name, source.revision)
    try:
        names = list_repo_files(source.name, revision=source.revision)
        components = None if source.pipeline is None else _components(source, folder)
        wanted = needed_files(names, components, transformer_only=transformer_only, variant=variant)
        folder = Path(snapshot_download(source.name, revision=source.revision, allow_patterns=wanted))
    except (HfHubHTTPError, OSError) as error:
        if folder is None:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"the weights of {source.name} can't be downloaded: {reason}") from None
    inner = folder / "transformer" if source.pipeline is not None else folder
    return replace(source, folder=inner, pipeline=None if source.pipeline is None else str(folder))


def _components(source: ModelSource, folder: Path | None) -> list[str]:
    from huggingface_hub import hf_hub_download

    path = folder / PIPELINE_INDEX if folder is not None else None
    if path is None or not path.exists():
        path = Path(hf_hub_download(source.name, PIPELINE_INDEX, revision=source.revision))
    return [name for name in read_json(path) if not name.startswith("_")]


def needed_files(
    names: Iterable[str], components: Iterable[str] | None, *, transformer_only: bool, variant: str | None
) -> list[str]:
    """Of a repository's files those that diffusers would load, and its texts. `components` is None for a transformer.

    Of weights only safetensors are taken, pickles where a component has nothing else, and only the asked variant where a
    folder has it.
    """
    found = list(names)
    texts = [name for name in found if any(fnmatch(name, pattern) for pattern in TEXTS)]
    if components is None:
        return texts + _needed_in(found, "", variant)
    folders = ["transformer"] if transformer_only else list(components)
    inside = [name for folder in folders for name in _needed_in(found, f"{folder}/", variant)]
    return [*texts, *(name for name in found if name == PIPELINE_INDEX), *inside]


def _needed_in(names: list[str], folder: str, variant: str | None) -> list[str]:
    inside = [n for n in names if n.startswith(folder) and (folder or "/" not in n) and not _matches(n, OTHER_FORMATS)]
    weights = [name for name in inside if name.endswith(".safetensors")]
    if weights:
        inside = [name for name in inside if not _matches(name, PICKLES) and not name.endswith(".bin.index.json")]
    variants = {name: _variant_of(name) for name in inside}
    wanted = variant if variant in variants.values() else None
    weighty = (".safetensors", ".bin", ".index.json")
    return [n for n in inside if n not in TEXTS and (variants[n] == wanted or not n.endswith(weighty))]


def _variant_of(name: str) -> str | None:
    """`fp16` of `model.fp16.safetensors`, `model.fp16-00001-of-2.safetensors` and `m.safetensors.index.fp16.json`."""
    parts = PurePosixPath(name).name.split(".")
    if len(parts) > 3 and parts[-1] == "json" and parts[-3] == "index":
        return parts[-2]
    if len(parts) > 2 and parts[-1] in ("safetensors", "bin"):
        return parts[-2].partition("-")[0]
    return None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
