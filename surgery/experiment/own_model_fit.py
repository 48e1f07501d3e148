"""Whether a model can stand beside another: its transformer takes what the base's pipeline gives, and returns as much.

Nothing is drawn for it. The call that the base's pipeline makes is tried on the model without weights; only where that
does not carry is the model loaded, and the pipeline asked what it would give it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.anatomy.sources import ModelSource, build_on_meta, read_json
from surgery.errors import InputError
from surgery.experiment.own_model import OwnModel
from surgery.experiment.run import Run
from surgery.files import hash_file
from surgery.pipelines.learn import first_call
from surgery.publish.known_arguments import root_of
from surgery.tracing.arguments import parameters_of_module

SIZES = ("height", "width")
SAMPLE = "sample_"  # with which the fields of a config begin that say how large pictures are
# What says, in the configs of a pipeline's parts, how latents and noise are to be read.
SPACES = {
    "vae": ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std"),
    "scheduler": ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end"),
}

Given = tuple[tuple[Any, ...], Mapping[str, Any]]


def refuse_unfit(own: OwnModel, run: Run) -> None:
    """Raise InputError unless a model takes the same latents and text as the base of a run, and returns the same."""
    if own.is_as_compiled:
        return
    missing = {source.part for source in own.sources} - set(run.source.parts)
    if missing:
        raise InputError(f"{own.target} has a {', '.join(missing)}, and its base {run.source.name} has none")
    for source in own.sources:
        _refuse_other_space(own.target, source, run)
        given = first_call(run.pipe, run.call)
        same_size = _sample_fields(source.config) == _sample_fields(run.pipe.transformer.config)
        if not (same_size or all(name in run.call for name in SIZES)) or not _runs_on_meta(source, given, run):
            _refuse_by_trying(own, run, given)
            return


def _sample_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name.startswith(SAMPLE)}


def _runs_on_meta(source: ModelSource, given: Given, run: Run) -> bool:
    """Whether a model without weights takes a call, and returns as much as the base does."""
    try:
        models = [build_on_meta(each, run.pipe.transformer.dtype) for each in (source, run.source)]
        shapes = [_shapes_returned(model, given) for model in models]
    except InputError:
        raise
    except Exception:  # whatever the forward says of it: the model itself is tried then
        return False
    return shapes[0] == shapes[1]


def _shapes_returned(model: nn.Module, given: Given) -> list[tuple[int, ...]]:
    """The shapes of what a model returns in a call, all on the model's device."""
    device = next(model.parameters()).device
    args, kwargs = _on_device(given, device)
    with torch.no_grad():
        returned = model(*args, **{**kwargs, "return_dict": False})
    return [tuple(value.shape) for value in returned if isinstance(value, torch.Tensor)]


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _on_device(item, device) for name, item in value.items()}
    return type(value)(_on_device(item, device) for item in value) if isinstance(value, (list, tuple)) else value


def _refuse_by_trying(own: OwnModel, run: Run, given: Given) -> None:
    """The same by what the pipeline really gives the model, and what the model really returns."""
    pipe = own.open_in(run.pipe)
    try:
        there = first_call(pipe, run.call)
        base, other = _shapes_given(run.pipe.transformer, given), _shapes_given(pipe.transformer, there)
        if base != other:
            name = next(name for name in {**base, **other} if base.get(name) != other.get(name))
            raise InputError(f"its {name} would be {_shape_text(other.get(name))}, not {_shape_text(base.get(name))}")
        returned = [_shapes_returned(model, given) for model in (run.pipe.transformer, pipe.transformer)]
        if returned[0] != returned[1]:
            raise InputError(f"it returns {returned[1]}, and not {returned[0]}")
    except Exception as error:  # forwards raise anything where shapes do not fit
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{own.target} can't take the place of the transformer of {run.source.name}: {reason}; latents and text of "
            f"a row have the shapes of its base's ({_inputs_text(run.pipe.transformer, given)}): give --model with "
            "the model that it was made from, or --height and --width where only the sizes differ"
        ) from None


def _shapes_given(model: nn.Module, given: Given) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that a transformer is given, by their names."""
    args, kwargs = given
    named = {**dict(zip(parameters_of_module(model), args, strict=False)), **kwargs}
    return {name: tuple(value.shape) for name, value in named.items() if isinstance(value, torch.Tensor)}


def _inputs_text(model: nn.Module, given: Given) -> str:
    return ", ".join(f"{name} {_shape_text(shape)}" for name, shape in _shapes_given(model, given).items() if shape)


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"({', '.join(map(str, shape))})"


def _refuse_other_space(target: str, source: ModelSource, run: Run) -> None:
    """Raise InputError where a model comes with a VAE or a scheduler that reads latents or noise in another way."""
    root = None if source.pipeline is None else root_of(source)
    if root is None:
        return
    for part, names in SPACES.items():
        file = root / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        config = dict(getattr(getattr(run.pipe, part, None), "config", {}))
        own = read_json(file) if file.is_file() else {}
        for name in names:
            if name in own and name in config and _plain(own[name]) != _plain(config[name]):
                raise InputError(
                    f"{target} is made for a {part} with {name} {own[name]}, and that of {run.source.name} has "
                    f"{config[name]}: its latents are others; give --model with the model that it was made from"
                )


def other_parts(own: OwnModel, run: Run) -> list[str]:
    """The parts of a model's own pipeline that are not the base's, where their files are here."""
    first = own.sources[0]
    root, base = (None if source.pipeline is None else root_of(source) for source in (first, run.source))
    if root is None or base is None:
        return []
    files = [path.relative_to(root) for path in sorted(root.glob("*/*.safetensors"))]
    others = [file for file in files if file.parts[0] not in first.parts and not _are_equal(root / file, base / file)]
    return list(dict.fromkeys(file.parts[0] for file in others))


def _are_equal(file: Path, other: Path) -> bool:
    """Whether two files hold the same; links to one file are not read."""
    if not other.is_file() or file.stat().st_size != other.stat().st_size:
        return False
    return file.samefile(other) or hash_file(file) == hash_file(other)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
