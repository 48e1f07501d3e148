"""Models of diffusers as single files in the layouts of their authors: what `from_single_file` reads, written.

A layout is a table, `original name -> names in diffusers`, for the top level and for the blocks of each stack. A name
is a tensor, or a module with a weight and perhaps a bias. Several names on the right are stacked by rows on the left.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from unittest import mock

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors.torch import save_file
from torch import Tensor, nn

Table = Mapping[str, str]
Layout = Mapping[tuple[str, str], Table]  # (stack here, stack in diffusers) -> its table; "" is the top level

FLUX: Layout = {
    ("", ""): {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    ("double_blocks", "transformer_blocks"): {
        "img_mod.lin": "norm1.linear",
        "img_attn.qkv": "attn.to_q attn.to_k attn.to_v",
        "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
        "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
        "img_attn.proj": "attn.to_out.0",
        "img_mlp.0": "ff.net.0.proj",
        "img_mlp.2": "ff.net.2",
        "txt_mod.lin": "norm1_context.linear",
        "txt_attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
        "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
        "txt_attn.proj": "attn.to_add_out",
        "txt_mlp.0": "ff_context.net.0.proj",
        "txt_mlp.2": "ff_context.net.2",
    },
    ("single_blocks", "single_transformer_blocks"): {
        "modulation.lin": "norm.linear",
        "linear1": "attn.to_q attn.to_k attn.to_v proj_mlp",
        "norm.query_norm.scale": "attn.norm_q.weight",
        "norm.key_norm.scale": "attn.norm_k.weight",
        "linear2": "proj_out",
    },
}

SD3: Layout = {
    ("", ""): {
        "pos_embed": "pos_embed.pos_embed",
        "x_embedder.proj": "pos_embed.proj",
        "context_embedder": "context_embedder",
        "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
        "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
        "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
        "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    ("joint_blocks", "transformer_blocks"): {
        "x_block.adaLN_modulation.1": "norm1.linear",
        "x_block.attn.qkv": "attn.to_q attn.to_k attn.to_v",
        "x_block.attn.ln_q": "attn.norm_q",
        "x_block.attn.ln_k": "attn.norm_k",
        "x_block.attn.proj": "attn.to_out.0",
        "x_block.attn2.qkv": "attn2.to_q attn2.to_k attn2.to_v",
        "x_block.attn2.ln_q": "attn2.norm_q",
        "x_block.attn2.ln_k": "attn2.norm_k",
        "x_block.attn2.proj": "attn2.to_out.0",
        "x_block.mlp.fc1": "ff.net.0.proj",
        "x_block.mlp.fc2": "ff.net.2",
        "context_block.adaLN_modulation.1": "norm1_context.linear",
        "context_block.attn.qkv": "attn.add_q_proj attn.add_k_proj attn.add_v_proj",
        "context_block.attn.ln_q": "attn.norm_added_q",
        "context_block.attn.ln_k": "attn.norm_added_k",
        "context_block.attn.proj": "attn.to_add_out",
        "context_block.mlp.fc1": "ff_context.net.0.proj",
        "context_block.mlp.fc2": "ff_context.net.2",
    },
}


def flux_to_original(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `FluxTransformer2DModel` in the layout of Black Forest Labs."""
    return _swap_halves(_rename(state_dict, FLUX), "final_layer.adaLN_modulation.1")


def sd3_to_original(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `SD3Transformer2DModel` in the layout of Stability AI; its last block only reads the text."""
    last = _num_blocks(state_dict, "transformer_blocks") - 1
    original = _swap_halves(_rename(state_dict, SD3), "final_layer.adaLN_modulation.1")
    return _swap_halves(original, f"joint_blocks.{last}.context_block.adaLN_modulation.1")


def save_original(model: nn.Module, path: Path, *, prefix: str = "") -> str:
    """Write a single file, and `config/config.json` beside it; the folder, as `from_single_file` takes it."""
    to_original = {"FluxTransformer2DModel": flux_to_original, "SD3Transformer2DModel": sd3_to_original}
    original = to_original[type(model).__name__](model.state_dict())
    save_file({prefix + name: tensor.contiguous() for name, tensor in original.items()}, path)
    folder = path.parent / "config"
    model.save_config(folder)
    return str(folder)


@contextmanager
def original_flux_width(width: int) -> Iterator[None]:
    """Within it, diffusers reads Flux files of this width, not of 3072: its own code with the one constant replaced."""
    entry = SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    convert = entry["checkpoint_mapping_fn"]
    constants = convert.__code__.co_consts
    assert constants.count(3072) == 1, f"{convert.__name__} has the width 3072 {constants.count(3072)} times, not once"
    code = convert.__code__.replace(co_consts=tuple(width if value == 3072 else value for value in constants))
    narrow = FunctionType(code, convert.__globals__, convert.__name__, convert.__defaults__, convert.__closure__)
    with mock.patch.dict(entry, checkpoint_mapping_fn=narrow):
        yield


def _rename(state_dict: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    left = dict(state_dict)
    original = {}
    for (stack, stack_in_diffusers), table in layout.items():
        for start, start_in_diffusers in _starts(state_dict, stack, stack_in_diffusers):
            for name, sources in table.items():
                for leaf in ("", ".weight", ".bias"):
                    names = [f"{start_in_diffusers}{source}{leaf}" for source in sources.split()]
                    if left.keys() >= set(names):
                        parts = [left.pop(part) for part in names]
                        original[f"{start}{name}{leaf}"] = parts[0] if len(parts) == 1 else torch.cat(parts)
    assert not left, f"the original layout has no place for {sorted(left)}"
    return original


def _starts(state_dict: Mapping[str, Tensor], stack: str, stack_in_diffusers: str) -> list[tuple[str, str]]:
    if not stack:
        return [("", "")]
    num_blocks = _num_blocks(state_dict, stack_in_diffusers)
    return [(f"{stack}.{index}.", f"{stack_in_diffusers}.{index}.") for index in range(num_blocks)]


def _num_blocks(state_dict: Mapping[str, Tensor], stack: str) -> int:
    matches = [re.match(rf"{stack}\.(\d+)\.", name) for name in state_dict]
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _swap_halves(original: dict[str, Tensor], module: str) -> dict[str, Tensor]:
    """The rows (scale, shift) of diffusers as the rows (shift, scale) of the authors."""
    swapped = {name: torch.cat(original[name].chunk(2)[::-1]) for name in (f"{module}.weight", f"{module}.bias")}
    return {**original, **swapped}
