"""A source -> the stock pipeline or transformer, loaded by diffusers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from surgery.anatomy.classes import find_class, find_pipeline_class
from surgery.anatomy.hub_files import fetch_source
from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError
from surgery.progress import library_bars

DTYPE_CHOICES = ("float32", "bfloat16", "float16")


def pick_device(device: Any) -> str:
    """The name of a device; `auto` is a GPU where there is one."""
    import torch

    if str(device) != "auto":
        return str(device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: Any) -> str:
    """The name of a device on which a tensor can be; raises InputError where there is none of this name here."""
    import torch

    name = pick_device(device)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"nothing can be put on the device {name}: {reason}; write cpu, or auto") from None
    return name


def pick_dtype(dtype: Any, device: str) -> Any:
    """The torch dtype of a name (or itself); `auto` is float32 on the CPU and bfloat16 elsewhere.

    Raises:
        InputError: there is no such dtype.
    """
    import torch

    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        name = "float32" if device.startswith("cpu") else "bfloat16"
    if name not in DTYPE_CHOICES:
        raise InputError(f"there is no dtype {name}; write {', '.join(DTYPE_CHOICES)} or auto")
    return getattr(torch, name)


NO_PICKLES = "; pickles are never loaded here: load it with diffusers, and save_pretrained() it as safetensors"


def load_pretrained(
    source: ModelSource,
    *,
    dtype: Any = "auto",
    device: Any = "auto",
    transformer_only: bool = False,
    variant: str | None = None,
) -> Any:
    """The pipeline of a source, or its transformer where it is no pipeline or on request, in evaluation mode.

    What is missing of a model on the hub is downloaded, at the revision of the source. `variant` is that of diffusers:
    what the names of the files have before their ending. Weights are taken from safetensors alone, of every component:
    a pickle can run code.

    Raises:
        InputError: diffusers can't load it, or there is no such device or dtype.
    """
    device = pick_device(device)
    torch_dtype = pick_dtype(dtype, device)
    try:
        with library_bars():
            return _load(source, torch_dtype, variant, transformer_only=transformer_only).to(device)
    except (OSError, ValueError, RuntimeError, AssertionError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = NO_PICKLES if "safetensors" in reason else ""
        raise InputError(f"{source.name} can't be loaded on {device}: {reason}{advice}") from error


def _load(source: ModelSource, dtype: Any, variant: str | None, *, transformer_only: bool) -> Any:
    if source.revision is not None and Path(source.name).exists():  # diffusers would take the folder of that name
        source = fetch_source(source, transformer_only=transformer_only, variant=variant)
        source = replace(source, revision=None)
    place: dict[str, Any] = {"use_safetensors": True}
    if source.revision is not None:
        place["revision"] = source.revision
    if variant is not None:
        place["variant"] = variant
    if source.pipeline is not None and not transformer_only:
        return find_pipeline_class(source.pipeline_class).from_pretrained(source.pipeline, dtype=dtype, **place)
    model_class = find_class(source.class_name)
    if source.file is not None:
        return model_class.from_single_file(str(source.file), config=str(source.folder), dtype=dtype).eval()
    if source.revision is not None and source.pipeline is not None:
        place["subfolder"] = source.part
    name = str(source.folder) if source.revision is None else source.name
    return model_class.from_pretrained(name, dtype=dtype, **place)
