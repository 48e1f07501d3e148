"""The authors' names of stacks are those that diffusers converts from."""

import inspect
import re

import pytest
from diffusers.loaders import single_file_utils

from surgery.anatomy.authors_layout import AUTHORS_STACKS


@pytest.mark.parametrize(
    ("class_name", "converter"),
    [
        ("FluxTransformer2DModel", "convert_flux_transformer_checkpoint_to_diffusers"),
        ("SD3Transformer2DModel", "convert_sd3_transformer_checkpoint_to_diffusers"),
        ("Lumina2Transformer2DModel", "convert_lumina2_to_diffusers"),
        ("WanTransformer3DModel", "convert_wan_transformer_to_diffusers"),
        ("HunyuanVideoTransformer3DModel", "convert_hunyuan_video_transformer_to_diffusers"),
        ("ZImageTransformer2DModel", "convert_z_image_transformer_checkpoint_to_diffusers"),
        ("AuraFlowTransformer2DModel", "convert_auraflow_transformer_checkpoint_to_diffusers"),
    ],
)
def test_the_authors_stacks_are_those_that_diffusers_converts_from(class_name, converter):
    text = inspect.getsource(getattr(single_file_utils, converter))
    for ours, author in AUTHORS_STACKS[class_name].items():
        assert author == ours or re.search(rf"\b{author}\b", text), author
