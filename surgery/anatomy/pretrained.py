"""A source -> the stock pipeline or transformer, loaded by diffusers."""

from typing import Any

from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError

DTYPE_CHOICES = ("float32", "bfloat16", "float16")


def pick_device(name: str) -> str:
    """The device of a name; `auto` is a GPU where there is one."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(name: str, device: str) -> Any:
    """The torch dtype of a name; `auto` is float32 on the CPU and bfloat16 elsewhere.

    Raises:
        InputError: there is no such dtype.
    """
    import torch

    if name == "auto":
        name = "float32" if device == "cpu" else "bfloat16"
    if name not in DTYPE_CHOICES:
        raise InputError(f"there is no dtype {name}; write {', '.join(DTYPE_CHOICES)} or auto")
    return getattr(torch, name)


def load_pretrained(source: ModelSource, *, dtype: str = "auto", device: str = "auto") -> Any:
    """The pipeline of a source, or its bare transformer where it is no pipeline, in evaluation mode.

    Raises:
        InputError: diffusers can't load it, or there is no such device or dtype.
    """
    import diffusers

    device = pick_device(device)
    torch_dtype = pick_dtype(dtype, device)
    try:
        if source.pipeline is not None:
            loader, name = diffusers.DiffusionPipeline, source.pipeline
        else:
            loader, name = getattr(diffusers, source.class_name), str(source.folder or source.name)
        loaded = loader.from_pretrained(name, revision=source.revision, dtype=torch_dtype).to(device)
    except (OSError, ValueError, RuntimeError, AssertionError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{source.name} can't be loaded on {device}: {reason}") from error
    return loaded
