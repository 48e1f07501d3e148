"""The files of a pipeline or a transformer -> those of them that diffusers would load, and the texts that go with them.

Of weights only safetensors are needed, pickles where a component has nothing else.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from surgery.anatomy.sources import PIPELINE_INDEX, read_json
from surgery.anatomy.tensor_files import WEIGHTS_NAME
from surgery.errors import InputError

TRANSFORMER = "transformer"
CARD = "README.md"
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*")  # in whatever case
OTHER_FORMATS = ("*.msgpack", "*.h5", "*.onnx", "*.onnx_data", "*.pb", "*.ckpt", "*.pt", "*.pth", "*.gguf", "*.tflite")
SMALL_TEXTS = (".json", ".txt", ".model", ".py", ".jinja")  # what stands beside weights; it is read with them
NO_MODELS = ("Tokenizer", "Processor", "Extractor", "Scheduler")  # in the names of classes without weights
SHARD = r"(?:-\d{5}-of-\d{5})"
WEIGHTS = re.compile(  # model.fp16-00001-of-00002.safetensors; older: model-00001-of-00002.fp16.safetensors
    rf"(?P<stem>diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[^.]+?))?{SHARD}?(?:\.(?P<old>[^.]+))?"
    r"\.(?P<format>safetensors|bin)"
    r"(?:(?:\.(?P<old_index>[^.]+))?\.index(?:\.(?P<index>[^.]+))?\.json)?"
)
VARIANT_GROUPS = ("variant", "old", "old_index", "index")


class FileKind(NamedTuple):
    """The format and the variant (None for the plain one) of a file of weights, or of an index of shards."""

    format: str
    variant: str | None


def needed_files(
    names: Iterable[str], index: Mapping[str, Any] | None, *, transformer_only: bool, variant: str | None
) -> list[str]:
    """Of a repository's files those that diffusers would load, and its texts. `index` is None for a bare transformer.

    Where a component does not have the variant, its plain files are taken, as diffusers does.

    Raises:
        InputError: a component has weights of other variants only, or the transformer none as safetensors.
    """
    found = list(names)
    root = [name for name in found if name == CARD or is_licence(name) or (index is not None and _in_root(name, index))]
    inside = []
    for part in _list_parts(index, transformer_only=transformer_only):
        _refuse_unusable(found, part, variant)
        inside += _needed_in(found, part, variant)
    return [*root, *inside]


def is_licence(name: str) -> bool:
    """Whether the file of a repository is a text that goes wherever the weights go."""
    return "/" not in name and _matches(name.upper(), LICENCES)


def find_gaps(
    folder: Path, index: Mapping[str, Any] | None, *, transformer_only: bool, variant: str | None
) -> list[str]:
    """What a folder that was downloaded in part lacks, as far as its files tell: components, weights, shards."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    gaps = []
    for part in _list_parts(index, transformer_only=transformer_only):
        declared = index.get(part) if index is not None else [WEIGHTS_NAME]
        if isinstance(declared, list) and any(declared):  # [null, null] is a component left out
            is_model = not any(word in str(declared) for word in NO_MODELS)
            gaps += _find_gaps_in(folder, part, _needed_in(names, part, variant), is_model=is_model)
    return gaps


def _find_gaps_in(folder: Path, part: str, names: list[str], *, is_model: bool) -> list[str]:
    weights = [name for name in names if _kind_of(name) is not None]
    if not weights:
        has_config = f"{_prefix(part)}config.json" in names
        return [f"the weights of {part or 'the transformer'}"] if is_model and has_config else [] if names else [part]
    indices = [name for name in weights if name.endswith(".json")]
    listed = [f"{_prefix(part)}{shard}" for name in indices for shard in _list_shards(folder / name)]
    if not indices and all(re.search(SHARD, name) for name in weights):
        return [f"the index of {weights[0]}"]
    return [name for name in listed if name not in names]


def _list_shards(index: Path) -> list[str]:
    listed = read_json(index).get("weight_map")
    return sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []


def _list_parts(index: Mapping[str, Any] | None, *, transformer_only: bool) -> list[str]:
    """The folders of components; "" is the root of a bare transformer."""
    if index is None:
        return [""]
    return [TRANSFORMER] if transformer_only else [name for name in index if not name.startswith("_")]


def _prefix(part: str) -> str:
    return f"{part}/" if part else ""


def _in_root(name: str, index: Mapping[str, Any]) -> bool:
    """Whether it is the index, or the module of a pipeline's own class (`_class_name: [my_module, MyPipeline]`)."""
    own = index.get("_class_name")
    return name == PIPELINE_INDEX or (isinstance(own, list) and name == f"{own[0]}.py")


def _needed_in(names: list[str], part: str, variant: str | None) -> list[str]:
    inside = [name for name in names if name.startswith(_prefix(part)) and not _matches(name, OTHER_FORMATS)]
    kinds = _kinds_in(inside, part)
    wanted = _pick_kind(kinds, variant)
    others = [name for name in inside if _kind_of(name) is None]
    if not part:
        others = [name for name in others if name == "config.json"]
    elif kinds:
        others = [name for name in others if _is_direct(name, part) and name.endswith(SMALL_TEXTS)]
    return [*others, *(name for name, kind in kinds.items() if kind == wanted)]


def _refuse_unusable(names: list[str], part: str, variant: str | None) -> None:
    kinds = _kinds_in(names, part)
    wanted = _pick_kind(kinds, variant)
    where = f"of {part}" if part else "of the transformer"
    if kinds and wanted is None:
        variants = sorted({kind.variant for kind in kinds.values() if kind.variant})
        raise InputError(f"the weights {where} are there as {', '.join(variants)} only; give --variant {variants[0]}")
    if part in ("", TRANSFORMER) and wanted is not None and wanted.format != "safetensors":
        raise InputError(
            f"the weights {where} are pickles, which are never loaded here; load it with diffusers and "
            "save_pretrained() it as safetensors"
        )


def _kinds_in(names: list[str], part: str) -> dict[str, FileKind]:
    """The files of weights directly in a component's folder; of a transformer those alone that diffusers names so."""
    stem = WEIGHTS_NAME if part in ("", TRANSFORMER) else ""
    direct = [name for name in names if _is_direct(name, part) and PurePosixPath(name).name.startswith(stem)]
    return {name: kind for name in direct if (kind := _kind_of(name)) is not None}


def _pick_kind(kinds: Mapping[str, FileKind], variant: str | None) -> FileKind | None:
    preferred = [FileKind(form, which) for form in ("safetensors", "bin") for which in dict.fromkeys((variant, None))]
    files = {kind for name, kind in kinds.items() if not name.endswith(".json")}
    return next((kind for kind in preferred if kind in files), None)


def _kind_of(name: str) -> FileKind | None:
    found = WEIGHTS.fullmatch(PurePosixPath(name).name)
    return None if found is None else FileKind(found["format"], next(filter(None, found.group(*VARIANT_GROUPS)), None))


def _is_direct(name: str, part: str) -> bool:
    return name.startswith(_prefix(part)) and "/" not in name.removeprefix(_prefix(part))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
