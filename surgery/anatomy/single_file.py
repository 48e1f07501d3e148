"""A single file in the layout of a model's authors -> which model diffusers takes it for."""

from surgery.anatomy.tensor_files import TensorFile
from surgery.diffusers_internals import infer_hub_id, infer_model_type
from surgery.errors import InputError


def guess_model(file: TensorFile) -> str:
    """The hub id whose config `from_single_file` would take for this file, from the names and shapes of its tensors.

    Raises:
        InputError: diffusers has no converter for such a file.
        InternalsError: this version of diffusers can't be asked.
    """
    import torch

    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in file.tensors.items()}
    advice = "put the transformer's config.json into a folder named config beside it, or name a diffusers folder"
    try:
        if infer_model_type(shapes) == "v1":  # what it answers where nothing fits
            raise InputError(f"{file.path} has tensors of no transformer that diffusers knows in one file; {advice}")
        return infer_hub_id(shapes)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"{file.path} is of no model that diffusers knows in one file ({error}); {advice}") from None
