"""What diffusers promises to nobody and this package uses all the same. Nothing else of the package reaches such names.

Hooks and configs of models have public ways by now (`HookRegistry`, `config`), which are used. diffusers is loaded
where one of the names is looked up.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from surgery.internals import PrivateName, require

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    Converter = Callable[..., dict[str, torch.Tensor]]

PACK_LATENTS, ENCODE_PICTURE = "_pack_latents", "_encode_vae_image"


def _checkpointing_attribute() -> str:
    from diffusers import ModelMixin

    name = "_gradient_checkpointing_func"
    require(name in vars(ModelMixin()), "a new model has no such attribute")
    return name


def _inference_of_models() -> tuple[Callable[..., str], Callable[..., Mapping[str, Any]]]:
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

    return infer_diffusers_model_type, fetch_diffusers_config


def _table_of_converters() -> Mapping[str, Mapping[str, Any]]:
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as TABLE

    has_converters = any(callable(entry.get("checkpoint_mapping_fn")) for entry in TABLE.values())
    require(has_converters, "its entries have no checkpoint_mapping_fn")
    return TABLE


def _packing_method() -> str:
    from diffusers import FluxPipeline

    require(hasattr(FluxPipeline, PACK_LATENTS), "the class has no such method")
    return PACK_LATENTS


def _encoding_method() -> str:
    from diffusers import Flux2Pipeline

    require(hasattr(Flux2Pipeline, ENCODE_PICTURE), "the class has no such method")
    return ENCODE_PICTURE


# The public `enable_gradient_checkpointing` sets it, on every module of a model; a public way to read it, or to set it
# on one module, would replace it.
CHECKPOINTING = PrivateName(
    "diffusers",
    "ModelMixin._gradient_checkpointing_func",
    since="0.33",
    purpose="run variants with gradient checkpointing",
    look_up=_checkpointing_attribute,
)

# The public `from_single_file` asks them itself, and downloads what they answer; here the answer is all that is wanted.
MODEL_INFERENCE = PrivateName(
    "diffusers",
    "loaders.single_file_utils.infer_diffusers_model_type and fetch_diffusers_config",
    since="0.28",
    purpose="tell what model a single file holds (a config folder beside the file, or a diffusers folder, will do)",
    look_up=_inference_of_models,
)

# The public `from_single_file` converts tensors; here numbers of rows are converted, so that no tensor need be read.
CONVERTERS = PrivateName(
    "diffusers",
    "loaders.single_file_model.SINGLE_FILE_LOADABLE_CLASSES with its checkpoint_mapping_fn",
    since="0.28",
    purpose="compile a checkpoint from a single file in its authors' layout (a diffusers folder will do)",
    look_up=_table_of_converters,
)

# Each pipeline that packs its latents has its own. Modular pipelines have blocks for it, which might replace it.
PACKING = PrivateName(
    "diffusers",
    "FluxPipeline._pack_latents",
    since="0.30",
    purpose="give noised pictures to pipelines that pack their latents (profile --pictures, the denoising error)",
    look_up=_packing_method,
    is_optional=True,
)

# A public method that gives a picture's latents as a transformer takes them would replace it.
ENCODING = PrivateName(
    "diffusers",
    "Flux2Pipeline._encode_vae_image",
    since="0.36",
    purpose="encode pictures where the autoencoder does not say how its latents are scaled (FLUX.2)",
    look_up=_encoding_method,
    is_optional=True,
)


def set_checkpointing_function_(model: "nn.Module", function: Callable[..., Any]) -> None:
    """Let a model, but not its submodules, run its blocks through `function(block, *arguments)`.

    Raises:
        InternalsError: this version of diffusers keeps that function elsewhere.
    """
    model.__dict__[CHECKPOINTING.find()] = function


def checkpointing_function(model: "nn.Module") -> Callable[..., Any]:
    """What runs the blocks of a model that checkpoints gradients: `function(block, *arguments)`.

    Raises:
        InternalsError: this version of diffusers keeps that function elsewhere.
    """
    function: Callable[..., Any] = getattr(model, CHECKPOINTING.find())
    return function


def node_of_checkpointing_function(graph: "fx.Graph") -> "fx.Node":
    """A node that reads the checkpointing function of the model that runs the graph."""
    return graph.get_attr(CHECKPOINTING.find())


def infer_model_type(tensors: "Mapping[str, torch.Tensor]") -> str:
    """diffusers' own name for the kind of a single file, from names and shapes; raises LookupError on odd ones."""
    infer, _ = MODEL_INFERENCE.find()
    return infer(dict(tensors))


def infer_hub_id(tensors: "Mapping[str, torch.Tensor]") -> str:
    """The hub id whose config diffusers takes for a file; raises as `infer_model_type`."""
    _, fetch = MODEL_INFERENCE.find()
    return str(fetch(dict(tensors))["pretrained_model_name_or_path"])


def find_converter(class_name: str) -> "Converter | None":
    """What turns the tensors of a single file of a class into those of diffusers; None where it reads no such files."""
    known = CONVERTERS.find().get(class_name)
    return None if known is None else known["checkpoint_mapping_fn"]


def packings_by_pipeline(pipe: Any, latents: "torch.Tensor") -> "Iterator[torch.Tensor]":
    """Latents (batch, channels, height, width) as a pipeline packs them itself, by each way to ask it that it takes:
    with their sizes, alone, or as a video of one frame.
    """
    pack = getattr(pipe, PACK_LATENTS, None)
    if pack is None:
        return
    for arguments in ((latents, *latents.shape), (latents,), (latents.unsqueeze(2),)):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            yield pack(*arguments)


def encode_by_pipeline(pipe: Any, pixels: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor | None":
    """Pixels (1, 3, height, width) from -1 to 1 as the latents that a pipeline makes of a picture that it is given.

    None where it takes none.
    """
    encode = getattr(pipe, ENCODE_PICTURE, None)
    return None if encode is None else encode(pixels, generator)
