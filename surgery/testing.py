"""Tiny real models, and the edit by hand: what a plan means, run slowly and obviously, with no graph.

For our tests, and for users who test specs of their own, or this package on their versions of torch and diffusers: see
[testing](testing.md). `TINY_MODELS` builds models of diffusers' own classes, of three to five blocks a stack and 16
channels, by name; `RETURNED_STREAMS` says which streams the blocks of a class return, in their order.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, assert_never

import diffusers
import torch
from torch import nn

from surgery.calls.example_inputs import example_call, why_no_call
from surgery.dit.blocks import CONDITIONINGS
from surgery.dit.tiny_pipelines import tiny_dit
from surgery.errors import InputError
from surgery.plan.plan import Plan, ReplacedComponent
from surgery.plan.schedule import Group, Item, Layer, Repetition, Schedule


def _pixart(num_layers: int = 5) -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        cross_attention_dim=16,
        sample_size=8,
        patch_size=2,
        caption_channels=12,
        use_additional_conditions=False,
    )


def _sd3(num_layers: int = 5, dual: tuple[int, ...] = ()) -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
        qk_norm="rms_norm" if dual else None,
    )


def _flux(num_layers: int = 4, num_single_layers: int = 5) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=False,
    )


def _auraflow(num_layers: int = 3, num_single_layers: int = 4) -> nn.Module:
    return diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=num_layers,
        num_single_dit_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pos_embed_max_size=64,
    )


def _dit(num_layers: int = 5) -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )


def _chroma(num_layers: int = 4, num_single_layers: int = 5) -> nn.Module:
    return diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )


TINY_MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "pixart": _pixart,
    "sd3": _sd3,
    "sd3-dual": lambda: _sd3(dual=(0, 1, 2)),
    "flux": _flux,
    "auraflow": _auraflow,
    "dit": _dit,
    "chroma": _chroma,
}


def build_tiny_model(name: str, *, seed: int = 0) -> nn.Module:
    """A model of `TINY_MODELS` in evaluation mode, float32, with seeded random weights that make every layer matter.

    The name of a conditioning of `surgery.dit` stands for a `DiT` that has it.

    Raises:
        InputError: there is no tiny model of this name.
    """
    if name in CONDITIONINGS:
        return tiny_dit(name, seed=seed)
    if name not in TINY_MODELS:
        raise InputError(f"there is no tiny model {name}; there are {', '.join((*TINY_MODELS, *CONDITIONINGS))}")
    torch.manual_seed(seed)
    model = TINY_MODELS[name]().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    return model


def tiny_call(model: nn.Module, *, seed: int = 1, **sizes: int) -> dict[str, Any]:
    """Random inputs for a tiny model: 2 pictures, 7 text tokens, and 9 image tokens where it takes a sequence.

    They are keyword arguments of its forward. `sizes` (`batch`, `height`, `width`, `text`, `image`) overrides those.

    Raises:
        InputError: the model's class has no example inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    example = example_call(model, sizes={"text": 7, "image": 9, **sizes}, generator=generator)
    if example is None:
        raise InputError(f"{why_no_call(model)}; build the arguments of its forward yourself")
    return example.kwargs


Tensors = dict[str, torch.Tensor | None]

# What the blocks of each class take and return as streams, read off their code by a person. "" is a single tensor.
RETURNED_STREAMS: Mapping[str, Sequence[str]] = {
    "BasicTransformerBlock": [""],
    "JointTransformerBlock": ["encoder_hidden_states", "hidden_states"],
    "FluxTransformerBlock": ["encoder_hidden_states", "hidden_states"],
    "FluxSingleTransformerBlock": ["encoder_hidden_states", "hidden_states"],
    "AuraFlowJointTransformerBlock": ["encoder_hidden_states", "hidden_states"],
    "AuraFlowSingleTransformerBlock": [""],
    "ChromaTransformerBlock": ["encoder_hidden_states", "hidden_states"],
    "ChromaSingleTransformerBlock": [""],
    "InContextBlock": [""],
    "CrossAttentionBlock": [""],
    "AdaptiveBlock": [""],
}


@torch.no_grad()
def run_by_hand(
    model: nn.Module,
    plan: Plan,
    kwargs: Mapping[str, Any],
    means: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
) -> torch.Tensor:
    """The output of a tiny model under a plan, without a graph; the slow oracle that variants are compared with.

    `kwargs` are the arguments of its forward; the result has the shape of its `sample`. `means` are vectors (channels,)
    by component and stream, for replacements with mean. The model is left as it is.

    A first run of the unedited model notes what each block is given beside its streams. In a second run the first
    block of each stack does the work of the whole schedule, and all others hand their inputs through.
    """
    context: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as handles:
        for schedule in plan.schedules:
            for index, block in enumerate(model.get_submodule(schedule.stack).children()):
                note = _note_context(context, f"{schedule.stack}.{index}")
                handles.enter_context(block.register_forward_pre_hook(note, with_kwargs=True))
        model(**kwargs)
    with _forwards_restored(model):
        for replaced in plan.replacements:
            _replace_by_hand(model, replaced, (means or {}).get(replaced.path, {}))
        for schedule in plan.schedules:
            _schedule_by_hand(model, schedule, context)
        result: torch.Tensor = model(**kwargs).sample
    return result


@contextlib.contextmanager
def _forwards_restored(model: nn.Module) -> Iterator[None]:
    """Within it modules may be given other forwards."""
    before = [(part, vars(part).get("forward")) for part in model.modules()]
    try:
        yield
    finally:
        for part, forward in before:
            vars(part).pop("forward", None)
            if forward is not None:
                part.forward = forward


def _note_context(context: dict[str, dict[str, Any]], name: str) -> Callable[..., None]:
    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        context[name] = _named(block, args, kwargs)

    return note


def _named(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in inspect.signature(type(block).forward).parameters if name != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _schedule_by_hand(model: nn.Module, schedule: Schedule, context: Mapping[str, dict[str, Any]]) -> None:
    blocks = list(model.get_submodule(schedule.stack).children())
    returned = RETURNED_STREAMS[type(blocks[0]).__name__]
    names = [name or "hidden_states" for name in returned]
    originals = [block.forward for block in blocks]

    def run_block(index: int, streams: Tensors) -> Tensors:
        result = originals[index](**{**context[f"{schedule.stack}.{index}"], **streams})
        outputs = result if isinstance(result, tuple) else (result,)
        return dict(zip(names, outputs, strict=True))

    def run_items(items: Sequence[Item], streams: Tensors) -> Tensors:
        for item in items:
            match item:
                case Layer(index, scale):
                    after = run_block(index, streams)
                    streams = (
                        after if scale == 1.0 else {name: _scaled(streams[name], after[name], scale) for name in names}
                    )
                case Group(layers, combine, loops):
                    for _ in range(loops):
                        outputs = [run_items([layer], streams) for layer in layers]
                        streams = {
                            name: _combined(combine, streams[name], [o[name] for o in outputs]) for name in names
                        }
                case Repetition(inner, times):
                    for _ in range(times):
                        streams = run_items(inner, streams)
                case _:
                    assert_never(item)
        return streams

    def hand_back(streams: Tensors) -> Any:
        return streams["hidden_states"] if returned == [""] else tuple(streams[name] for name in returned)

    def work(*args: Any, **kwargs: Any) -> Any:
        given = _named(blocks[0], args, kwargs)
        return hand_back(run_items(schedule.items, {name: given[name] for name in names}))

    def pass_through(*args: Any, **kwargs: Any) -> Any:
        given = _named(blocks[0], args, kwargs)
        return hand_back({name: given[name] for name in names})

    for position, block in enumerate(blocks):
        block.forward = work if position == 0 else pass_through


def _scaled(before: torch.Tensor | None, after: torch.Tensor | None, scale: float) -> torch.Tensor | None:
    return None if before is None or after is None else before + scale * (after - before)


def _combined(combine: str, before: torch.Tensor | None, outputs: list[torch.Tensor | None]) -> torch.Tensor | None:
    present = [output for output in outputs if output is not None]
    if before is None or len(present) < len(outputs):
        return None
    if combine == "sum":
        return before + torch.stack([output - before for output in present]).sum(dim=0)
    return torch.stack(present).mean(dim=0)


def _replace_by_hand(model: nn.Module, replaced: ReplacedComponent, means: Mapping[str, torch.Tensor]) -> None:
    component = model.get_submodule(replaced.path)
    original = component.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = _named(component, args, kwargs)
        result = original(*args, **kwargs)
        if isinstance(result, tuple):
            pairs = zip(("hidden_states", "encoder_hidden_states"), result, strict=True)
            return tuple(_replaced(replaced.kind, given[name], output, means.get(name)) for name, output in pairs)
        name = next(iter(given))
        return _replaced(replaced.kind, given[name], result, means.get(name))

    component.forward = forward


def _replaced(kind: str, given: torch.Tensor, output: torch.Tensor, mean: torch.Tensor | None) -> torch.Tensor:
    match kind:
        case "zero":
            return torch.zeros_like(output)
        case "input":
            return given
        case "channel_mean":
            return given.mean(dim=-1, keepdim=True) + torch.zeros_like(output)
    assert mean is not None, "a mean replacement has values"
    return mean.to(output) + torch.zeros_like(output)
