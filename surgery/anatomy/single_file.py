"""A single file in the layout of a model's authors -> which model diffusers takes it for."""

from surgery.anatomy.tensor_files import TensorFile
from surgery.errors import InputError


def guess_model(file: TensorFile) -> str:
    """The hub id whose config `from_single_file` would take for this file, from the names and shapes of its tensors.

    Raises:
        InputError: diffusers has no converter for such a file.
    """
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type

    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in file.tensors.items()}
    advice = "put the transformer's config.json into a folder named config beside it, or name a diffusers folder"
    try:
        kind = infer_diffusers_model_type(dict(shapes))
        if kind == "v1":  # what it answers where nothing fits
            raise InputError(f"{file.path} has tensors of no transformer that diffusers knows in one file; {advice}")
        return str(fetch_diffusers_config(dict(shapes))["pretrained_model_name_or_path"])
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{file.path} is of no model that diffusers knows in one file ({error}); {advice}") from None
