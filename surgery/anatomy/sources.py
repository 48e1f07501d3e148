"""The name of a model -> its config and anatomy, without its weights: hub ids, folders, and `demo`."""

import functools
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.classes import find_class
from surgery.anatomy.hub_cache import cached_snapshot, explain_hub_error
from surgery.anatomy.hub_reach import is_hub_within_reach
from surgery.anatomy.known import keep_anatomy, key_of_config, recall_anatomy, recall_demo
from surgery.anatomy.tensor_files import WEIGHTS_NAME, TensorFile, Weights, find_weights, read_header
from surgery.bundled import DEMO_NAME, demo_folder
from surgery.errors import InputError
from surgery.files import expand_home, is_file, is_there
from surgery.spec.file_kind import is_spec
from surgery.spec.selector import FIRST, MODELS, SECOND

PIPELINE_INDEX = "model_index.json"
BOUNDARY = "boundary_ratio"  # of Wan 2.2 and its kin
HUB_ID = re.compile(r"[a-zA-Z0-9_][\w.-]*/[a-zA-Z0-9_][\w.-]*", re.ASCII)
HUB_PREFIX = "hub:"
MAX_NESTING = 100  # of a JSON file: what is deeper can be read, but not be copied, compared or written
MAX_MODULES = 15_000  # of a model; the largest that diffusers has are made of some thousands
COUNTS_LAYERS = re.compile("layers|blocks|depth")  # in the name of a field of a config
ASSUMED_DTYPE = "bfloat16"
DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
SINGLE_FILE_CONFIGS = ("config/config.json", "config/transformer/config.json")  # beside a single file


@dataclass(frozen=True)
class ModelSource:
    """Where a model's transformer is described: its config, and the folder of its files where they are local.

    `pipeline` is what `DiffusionPipeline.from_pretrained` loads, None for a bare transformer; `weights_dtype` that of
    the first floating-point tensor in the transformer's files, None where there are none; `revision` the commit on the
    hub, None for folders. `file` is a single file of weights in the layout of the model's authors, as
    `from_single_file` takes it; then `folder` holds its config. `parts` are the transformers of the pipeline by the
    names of their folders, and `part` is which of them this is; `boundary` is the share of the noise range at and above
    which the first of two runs and below which the second (0 where the second never does), None where it is not known.
    `pipeline_class` is the name of the pipeline's class; None where its index names a file of code, which is never run.
    """

    name: str
    config: Mapping[str, Any]
    folder: Path | None
    pipeline: str | None
    weights_dtype: str | None
    revision: str | None = None
    file: Path | None = None
    part: str = FIRST
    parts: tuple[str, ...] = (FIRST,)
    boundary: float | None = None
    pipeline_class: str | None = None

    @property
    def has_second(self) -> bool:
        """Whether the pipeline has a second transformer."""
        return SECOND in self.parts

    @property
    def class_name(self) -> str:
        """The class of the transformer, of diffusers or of `surgery.dit`."""
        return str(self.config["_class_name"])


def inspect(model: Any, *, part: str = FIRST) -> Anatomy:
    """The anatomy of a model: a live transformer or pipeline, or the name of one; no weights are read.

    A name is a hub id, the folder of a pipeline or of a transformer, a single `.safetensors` file, or `demo`. Of a
    pipeline with two transformers (Wan 2.2), `part` is which: `transformer` or `transformer_2`.

    Raises:
        InputError: there is no such model, or it has no transformer.
    """
    if isinstance(model, (str, Path)):
        return anatomy_of_source(find_source(str(model), part=part))
    from torch import nn

    from surgery.anatomy.from_model import read_anatomy

    transformer = getattr(model, part, model if part == FIRST else None)
    if not isinstance(transformer, nn.Module):
        lack = "is neither a transformer nor a pipeline with one" if part == FIRST else f"has no {part}"
        raise InputError(f"a {type(model).__name__} {lack}")
    return read_anatomy(transformer)


def find_source(model: str, *, revision: str | None = None, part: str = FIRST) -> ModelSource:
    """The source that a name stands for: `demo`, a pipeline folder, a transformer folder, a single file, or a hub id.

    `hub:OWNER/NAME` is a hub id even where there is a folder of that name. `revision` is a commit on the hub; it says
    nothing of folders. `part` is the transformer that is meant of a pipeline with two, `transformer` or
    `transformer_2`.

    Raises:
        InputError: there is no such folder or hub id, or it holds no diffusers transformer.
    """
    if model == DEMO_NAME:
        return _source_in_folder(DEMO_NAME, demo_folder(), part)
    if model.startswith(HUB_PREFIX):
        return _source_on_hub(model.removeprefix(HUB_PREFIX), revision, part)
    path = expand_home(model)
    if is_there(path) and path.is_dir():
        return _source_in_folder(model, path, part)
    if is_file(path):
        return _source_in_file(model, path)
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(
            f"there is no folder {model}; write a folder, a hub id like PixArt-alpha/PixArt-XL-2-512x512, or demo"
        )
    return _source_on_hub(model, revision, part)


def _has_config(snapshot: Path, part: str) -> bool:
    """Whether a folder that may be whole or not holds what tells of a pipeline's transformer, or of a bare one."""
    of_pipeline = (snapshot / PIPELINE_INDEX).exists() and (snapshot / part / "config.json").exists()
    return of_pipeline or (snapshot / "config.json").exists()


def is_hub_id(name: str) -> bool:
    """Whether a name can be one of the hub (OWNER/NAME)."""
    return HUB_ID.fullmatch(name) is not None and "--" not in name and ".." not in name


def second_source(source: ModelSource) -> ModelSource | None:
    """The second transformer of the same pipeline; None where it has none. Raises as `find_source` does."""
    name = source.name if source.revision is None else HUB_PREFIX + source.name
    return find_source(name, revision=source.revision, part=SECOND) if source.has_second else None


def _source_in_folder(name: str, folder: Path, part: str = FIRST) -> ModelSource:
    def read(file: str) -> dict[str, Any] | None:
        path = folder / file
        return read_json(path) if path.exists() else None

    source = _source_from(name, read, part)
    inner = folder / part if source.pipeline else folder
    pipeline = str(folder) if source.pipeline else None
    return replace(source, folder=inner, pipeline=pipeline, weights_dtype=dtype_of_weights(inner))


def _source_in_file(name: str, path: Path) -> ModelSource:
    """A single file in an original layout; its config lies beside it, or is the one that diffusers takes for it."""
    if is_spec(path):
        raise InputError(f"{name} is a spec, and no model; name a folder, a hub id, or demo")
    if path.suffix != ".safetensors":
        raise InputError(f"{name} is a file; name the folder of a pipeline or of a transformer, or a .safetensors file")
    if path.name.startswith(WEIGHTS_NAME):
        raise InputError(f"{name} is a file of a diffusers folder; name the folder, {path.parent}")
    file = read_header(path)
    beside = next((path.parent / config for config in SINGLE_FILE_CONFIGS if (path.parent / config).exists()), None)
    if beside is None:
        from surgery.anatomy.single_file import guess_model

        guessed = find_source(guess_model(file))
        return replace(guessed, name=name, pipeline=None, file=path, weights_dtype=dtype_of_file(file), revision=None)
    source = _source_from(name, lambda wanted: read_json(beside) if wanted == "config.json" else None)
    return replace(source, folder=beside.parent, weights_dtype=dtype_of_file(file), file=path)


def _source_on_hub(model: str, commit: str | None, part: str) -> ModelSource:
    """What was downloaded before is taken as it is; otherwise the hub is asked for the two small files."""
    snapshot = cached_snapshot(model, commit)
    if snapshot is not None and _has_config(snapshot, part):
        source = _source_in_folder(model, snapshot, part)
        return replace(source, pipeline=None if source.pipeline is None else model, revision=snapshot.name)
    away = InputError(
        f"{model} is neither a folder nor in the local cache, and the hub can't be reached; check the name and the "
        "connection (HF_HUB_OFFLINE keeps to the cache)"
    )
    if not is_hub_id(model):
        raise InputError(f"{model} is neither a folder nor a hub id (OWNER/NAME)")
    is_away = not is_hub_within_reach()
    if is_away and snapshot is None:
        raise away
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    revision: str | None = None

    def read(file: str) -> dict[str, Any] | None:
        nonlocal revision
        try:
            path = Path(hf_hub_download(model, file, revision=commit, local_files_only=is_away))
            revision = path.parents[file.count("/")].name  # snapshots/COMMIT/FILE
            return read_json(path)
        except LocalEntryNotFoundError:
            if file == PIPELINE_INDEX and isinstance(
                try_to_load_from_cache(model, "config.json", revision=commit), str
            ):
                return None  # offline, a cached transformer is known by its config
            raise away from None
        except EntryNotFoundError:
            return None
        except HFValidationError:
            raise InputError(f"{model} is neither a folder nor a hub id (OWNER/NAME)") from None
        except (HfHubHTTPError, OSError) as error:
            raise InputError(f"{model} can't be read from the hub: {explain_hub_error(error)}") from None

    return replace(_source_from(model, read, part), revision=revision)


def _source_from(name: str, read: Callable[[str], dict[str, Any] | None], part: str = FIRST) -> ModelSource:
    """The source whose files `read` returns, None for a file that is missing."""
    index = read(PIPELINE_INDEX)
    parts: tuple[str, ...] = (FIRST,)
    if index is not None:
        parts = tuple(name for name in MODELS if name == FIRST or _is_component(index.get(name)))
        if "transformer" not in index:
            found = ", ".join(key for key in index if not key.startswith("_"))
            raise InputError(f"the pipeline {name} has no transformer; it has {found}")
        config = read(f"{part}/config.json") if part in parts else None
        missing = f"{part}/config.json"
    else:
        config = read("config.json")
        missing = f"{PIPELINE_INDEX} or config.json"
    if config is None:
        raise InputError(f"{name} has no {missing}; is it a diffusers pipeline or transformer?")
    class_name = config.get("_class_name")
    if not isinstance(class_name, str) or not class_name.isidentifier():
        raise InputError(f"the config of {name} names no _class_name; is it a diffusers transformer?")
    pipeline = name if index is not None else None
    boundary = None if index is None or SECOND not in parts else _boundary_of(index)
    named = None if index is None else index.get("_class_name")
    pipeline_class = named if isinstance(named, str) else None  # a list names a file with code, which is not run
    return ModelSource(
        name, config, None, pipeline, None, part=part, parts=parts, boundary=boundary, pipeline_class=pipeline_class
    )


def _boundary_of(index: Mapping[str, Any]) -> float | None:
    """Where a pipeline of two transformers changes from one to the other, as its index says: null is never."""
    ratio = index.get(BOUNDARY, "")
    if ratio is None:
        return 0.0
    return float(ratio) if isinstance(ratio, (int, float)) and not isinstance(ratio, bool) else None


def _is_component(declared: Any) -> bool:
    """Whether an entry of a pipeline's index stands for a component that is there: [null, null] is one left out."""
    return isinstance(declared, list) and any(declared)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: it can't be read, is no JSON object, or is nested too deeply.
    """
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    if _nesting(value) > MAX_NESTING:
        raise InputError(f"{path} holds lists in lists, or objects in objects, more than {MAX_NESTING} deep")
    return value


def _nesting(value: Any) -> int:
    """How many lists and objects lie within each other."""
    depth, level = 0, [value]
    while level := [held for held in level if isinstance(held, (dict, list))]:
        depth += 1
        level = [item for held in level for item in (held.values() if isinstance(held, dict) else held)]
    return depth


def dtype_of_weights(folder: Path) -> str | None:
    """The dtype of the first floating-point tensor of a folder's first safetensors file that holds any tensor."""
    for path in sorted(folder.glob("*.safetensors")):
        dtype = dtype_of_file(read_header(path))
        if dtype is not None:
            return dtype
    return None


def dtype_of_file(file: TensorFile) -> str | None:
    """The dtype of the first floating-point tensor of a file; None where it holds no tensor."""
    dtypes = [tensor.dtype for tensor in file.tensors.values()]
    floats = (DTYPE_NAMES[dtype] for dtype in dtypes if dtype in DTYPE_NAMES)
    return next(floats, dtypes[0].lower()) if dtypes else None


def weights_of_source(source: ModelSource, *, variant: str | None = None) -> Weights:
    """The files of a source's weights, by their headers.

    Raises:
        InputError: it has none here, or they are not sound.
    """
    if source.file is not None:
        return Weights((read_header(source.file),))
    if source.folder is None:
        raise InputError(f"the weights of {source.name} are not in the local cache")
    return find_weights(source.folder, variant=variant)


def with_whole_paths(source: ModelSource) -> ModelSource:
    """The same source for a process that may run in another folder."""
    if source.revision is not None:
        return source
    folder, file = (None if path is None else path.absolute() for path in (source.folder, source.file))
    pipeline = None if source.pipeline is None else str(Path(source.pipeline).absolute())
    return replace(source, folder=folder, file=file, pipeline=pipeline)


def source_to_json(source: ModelSource) -> dict[str, Any]:
    """Plain data; `source_from_json` reads it back."""
    paths = {"folder": source.folder, "file": source.file}
    return {
        **asdict(source),
        "config": dict(source.config),
        **{name: None if path is None else str(path) for name, path in paths.items()},
    }


def source_from_json(data: Mapping[str, Any]) -> ModelSource:
    """The source that `source_to_json` wrote."""
    paths = {name: None if data[name] is None else Path(data[name]) for name in ("folder", "file")}
    return ModelSource(**{**data, **paths, "parts": tuple(data["parts"])})


def anatomy_of_source(source: ModelSource) -> Anatomy:
    """The anatomy of a model that is described by its config; its weights are not read.

    A model that was seen before is known (see `known.py`): neither torch nor diffusers is imported then.

    Raises:
        InputError: diffusers has no such class, or can't build it from this config.
    """
    if source.name == DEMO_NAME:
        return recall_demo()
    key = key_of_config(source.config, source.weights_dtype)
    anatomy = recall_anatomy(key)
    return read_source_anew(source) if anatomy is None else anatomy


def read_source_anew(source: ModelSource) -> Anatomy:
    """The anatomy of a source as it is known by now, kept for the next time; raises as above."""
    from surgery.calls.example_inputs import call_key
    from surgery.calls.kept_calls import BY_HAND

    model = _build_for_anatomy(source)
    anatomy = _read(source, model)
    is_certain = anatomy.known_from == BY_HAND
    keep_anatomy(key_of_config(source.config, source.weights_dtype), anatomy, None if is_certain else call_key(model))
    return anatomy


def build_anatomy(source: ModelSource) -> Anatomy:
    """The anatomy of a model as diffusers builds it from its config, on the meta device; raises as above."""
    return _read(source, _build_for_anatomy(source))


def _build_for_anatomy(source: ModelSource) -> Any:
    import torch

    dtype = source.weights_dtype or ASSUMED_DTYPE
    return build_on_meta(source, getattr(torch, dtype if dtype in DTYPE_NAMES.values() else ASSUMED_DTYPE))


def _read(source: ModelSource, model: Any) -> Anatomy:
    from surgery.anatomy.from_model import read_anatomy

    dtype = source.weights_dtype or ASSUMED_DTYPE
    return read_anatomy(model, has_weights=source.weights_dtype is not None, dtype=dtype)


def build_on_meta(source: ModelSource, dtype: Any = None) -> Any:
    """The transformer of a source with all tensors on the meta device, floating-point ones as `dtype`.

    Raises:
        InputError: diffusers has no such class, or can't build it from this config.
    """
    import diffusers
    from accelerate import init_empty_weights

    from surgery.tracing.clone import clone_module, without_memory

    model_class = find_class(source.class_name)
    if model_class is None or not hasattr(model_class, "from_config"):
        raise InputError(
            f"diffusers {diffusers.__version__} has no class {source.class_name}, which {source.name} needs"
        )
    if not issubclass(model_class, diffusers.ModelMixin):
        raise InputError(f"the config of {source.name} is of a {source.class_name}, which is no model of diffusers")
    _refuse_endless(source, signature(model_class.__init__).parameters)
    try:
        with init_empty_weights(), _limited_modules(source):
            model = _construct(model_class, source.config)
    except InputError:
        raise
    except Exception as error:  # constructors raise anything on configs that make no sense
        reason = str(error) or type(error).__name__
        raise InputError(f"{source.class_name} can't be built from the config of {source.name}: {reason}") from None
    return clone_module(model.eval(), functools.partial(without_memory, dtype=dtype))


def _construct(model_class: Any, config: Mapping[str, Any]) -> Any:
    """A model of a config; what its constructor computes at length is only computed where it looks at the values."""
    from surgery.anatomy.large_tables import LargeTablesOnMeta

    with suppress(RuntimeError, TypeError), LargeTablesOnMeta():
        return model_class.from_config(dict(config))
    return model_class.from_config(dict(config))


def _refuse_endless(source: ModelSource, parameters: Collection[str]) -> None:
    """Refuse a count of layers that can't be built, before any is; a field that is no parameter is not read."""
    counts = [value for name, value in source.config.items() if name in parameters and COUNTS_LAYERS.search(name)]
    if any(type(value) is int and value > MAX_MODULES for value in counts):
        raise _too_many_modules(source)


@contextmanager
def _limited_modules(source: ModelSource) -> Iterator[None]:
    """Stop a constructor that would go on for ever, as it does where a config counts a milliard of anything."""
    from torch.nn.modules.module import register_module_module_registration_hook

    num_modules = itertools.count(1)

    def count(*registered: Any) -> None:  # noqa: ARG001  (torch's signature)
        if next(num_modules) > MAX_MODULES:
            raise _too_many_modules(source)

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _too_many_modules(source: ModelSource) -> InputError:
    numbers = {name: value for name, value in source.config.items() if type(value) is int}
    largest = sorted(numbers, key=lambda name: -numbers[name])[:3]
    return InputError(
        f"{source.class_name} would have more than {MAX_MODULES:,} modules with the config of {source.name}; "
        f"its largest numbers are {', '.join(f'{name}: {numbers[name]}' for name in largest)}"
    )
