"""What every run of a model has in common: which model, its pipeline, the call that it gets, what is noted of it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.anatomy.identity import identify
from surgery.anatomy.sources import ModelSource, find_source, second_source
from surgery.errors import InputError
from surgery.files import hash_file
from surgery.pipelines.conditions import conditions_of
from surgery.pipelines.draw import SHARED, Noise, check_call
from surgery.pipelines.pretrained import load_pretrained, pick_device, pick_dtype
from surgery.publish.known_arguments import known_call_of
from surgery.spec.selector import FIRST
from surgery.version import __version__


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """How a pipeline is run: prompt k starts from the noise of `seed + k`; `call` are further arguments of its call."""

    model: str | None = None
    seed: int = 0
    batch_size: int = 8
    dtype: str = "auto"
    device: str = "auto"
    call: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A pipeline that is open, and how it is called. `texts` are the prompts that its text encoders have encoded.

    Where the noise is shared, prompt k starts from what one generator gives after the prompts before it.
    """

    source: ModelSource
    pipe: Any
    request: RunRequest
    call: Mapping[str, Any]
    texts: dict[str, Any] = field(default_factory=dict, repr=False)
    noise: Noise = "own"

    def identity(self, part: str = FIRST) -> dict[str, Any]:
        """What tells the model from others, wherever it lies: by its first transformer, or by another."""
        source = self.source if part == FIRST else second_source(self.source)
        assert source is not None, "a part that is there is asked for"
        return {key: value for key, value in identify(source).to_json().items() if key != "model"}

    def recipe(self) -> dict[str, Any]:
        """Everything that the pictures of a prompt depend on, but for what a row adds."""
        device = pick_device(self.request.device)
        return {
            "model": self.identity(),
            "components": hash_pipeline_files(self.source),
            "call": dict(self.call),
            "seed": self.request.seed,
            **({"noise": SHARED} if self.noise == SHARED else {}),
            "batch_size": self.request.batch_size,
            "dtype": str(pick_dtype(self.request.dtype, device)),
            "device": device,
            "versions": library_versions(),
        }


def source_with_pipeline(name: str, purpose: str = "to draw pictures") -> ModelSource:
    """A model that has a pipeline; raises InputError where there is none of this name, or only its transformer."""
    return having_pipeline(find_source(name), purpose)


def having_pipeline(source: ModelSource, purpose: str = "to draw pictures") -> ModelSource:
    """The source itself; raises InputError where it is only a transformer."""
    if source.pipeline is None:
        raise InputError(f"{source.name} is a bare transformer; {purpose}, give the folder of its pipeline")
    return source


def open_run(source: ModelSource, request: RunRequest, prompts: Sequence[str], *, noise: Noise = "own") -> Run:
    """Load the stock pipeline of a source, and see that it can be called so, before anything is drawn.

    Raises:
        InputError: it can't be loaded, takes no such argument, or has no class of a prompt's name.
    """
    call = call_of(source, request.call)
    pipe = load_pretrained(source, dtype=request.dtype, device=request.device)
    pipe.set_progress_bar_config(disable=True)
    check_call(pipe, call)
    conditions_of(pipe, prompts)
    return Run(source, pipe, request, call, noise=noise)


def call_of(source: ModelSource, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the pipeline's call: those given before those that the model is known to want."""
    return {**known_call_of(source), **given}


def hash_pipeline_files(source: ModelSource) -> dict[str, str]:
    """SHA-256 of every file of a local pipeline but those of its transformer; none for one of the hub, by revision."""
    if source.revision is not None or source.pipeline is None:
        return {}
    folder = Path(source.pipeline)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin", ".txt", ".model")
    )
    kept = [path for path in files if path.relative_to(folder).parts[0] != "transformer"]
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in kept}


def library_versions() -> dict[str, str]:
    """The versions that pictures depend on."""
    import diffusers
    import torch
    import transformers

    return {
        "surgery": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
