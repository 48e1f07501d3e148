"""Blocks -> the places that the stock class has for them: which rows of which tensors of a block each place wants.

Here all names are those of the stock class. The class itself, built on the meta device with the new config, says what
each place wants; a block of another kind fits where its tensors do, or where a rule below says how.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from surgery.anatomy.tensor_files import num_rows
from surgery.checkpoint.new_checkpoint import NewTensor, Segment, join_segments
from surgery.errors import RefusedError
from surgery.plan.schedule import Layer

# Between kinds of adaptive norm: the chunks of rows of the first that are the second, in its order, and how many
# chunks the first has. AdaLayerNormZero makes (shift, scale, gate) twice; AdaLayerNormContinuous (scale, shift).
NORM_CHUNKS: Mapping[tuple[str, str], tuple[tuple[int, ...], int]] = {
    ("AdaLayerNormZero", "AdaLayerNormContinuous"): ((1, 0), 6),
}


@dataclass(frozen=True)
class Folds:
    """What is folded into weights, by the path of a block (`transformer_blocks.3`).

    `constants`: module in the block -> its output becomes constant, by tensor name (`weight`, `bias`) the change and
    the vector of means. `factors`: modules whose weight and bias are multiplied by the scale of the block's execution.
    """

    constants: Mapping[str, Mapping[str, Mapping[str, str | None]]]
    factors: Mapping[str, Sequence[str]]


NO_FOLDS = Folds({}, {})


def fit_blocks(
    original: nn.Module, pruned: nn.Module, layers: Mapping[str, Sequence[Layer]], folds: Folds = NO_FOLDS
) -> list[NewTensor]:
    """The tensors of `pruned`, each from rows of tensors of `original`; both are the stock class on the meta device.

    `layers` says for each stack which layers run one after the other.

    Raises:
        RefusedError: a block does not fit where it is to stand.
    """
    tensors, fitted = original.state_dict(), []
    for name, wanted in pruned.state_dict().items():
        stack = next((stack for stack in layers if name.startswith(f"{stack}.")), None)
        if stack is None:
            if name not in tensors or tensors[name].shape != wanted.shape:
                raise RefusedError(
                    f"with other layers {name} would have another shape too, which the original's weights do not say"
                )
            fitted.append(NewTensor(name, (Segment(name, 0, num_rows(wanted.shape)),)))
            continue
        position, _, rest = name.removeprefix(f"{stack}.").partition(".")
        layer = layers[stack][int(position)]
        source, place = f"{stack}.{layer.index}", f"{stack}.{position}"
        given = tensors.get(f"{source}.{rest}")
        segments = _fit_tensor(original, pruned, source, place, rest, given=given, wanted=wanted)
        segments = [_fold(segment, source, rest, layer.scale, folds) for segment in segments]
        fitted.append(NewTensor(name, join_segments(segments)))
    return fitted


def _fit_tensor(
    original: nn.Module,
    pruned: nn.Module,
    source: str,
    place: str,
    rest: str,
    *,
    given: torch.Tensor | None,
    wanted: torch.Tensor,
) -> list[Segment]:
    """What the tensor `rest` of the block at `place` is made of, from the block `source` of the original."""
    name = f"{source}.{rest}"
    if given is None:
        raise RefusedError(
            f"{source} can't stand at {place}: the stock class wants {rest} there, which the block does not have"
        )
    if given.shape == wanted.shape:
        return [Segment(name, 0, num_rows(given.shape))]
    chunks, parts = NORM_CHUNKS.get(_norm_classes(original, pruned, source, place, rest), ((), 0))
    size = num_rows(given.shape) // parts if parts else 0
    if size * len(chunks) != num_rows(wanted.shape) or given.shape[1:] != wanted.shape[1:]:
        shapes = f"{tuple(given.shape)}, not {tuple(wanted.shape)}"
        raise RefusedError(f"{source} can't stand at {place}: its {rest} has the shape {shapes}")
    return [Segment(name, chunk * size, (chunk + 1) * size) for chunk in chunks]


def _norm_classes(original: nn.Module, pruned: nn.Module, source: str, place: str, rest: str) -> tuple[str, str]:
    """The classes of the module beside the blocks' own that holds the tensor: of `norm1.linear.weight`, norm1's."""
    part = rest.split(".", maxsplit=1)[0]
    before, after = original.get_submodule(f"{source}.{part}"), pruned.get_submodule(f"{place}.{part}")
    return type(before).__name__, type(after).__name__


def _fold(segment: Segment, block: str, rest: str, scale: float, folds: Folds) -> Segment:
    module, _, tensor = rest.rpartition(".")
    constant = folds.constants.get(block, {}).get(module, {})
    if tensor in constant:
        mean = constant[tensor]
        if mean is None:
            return replace(segment, change="zero")
        return replace(segment, change="mean", mean=mean, mean_start=segment.start)
    if scale != 1.0 and module in folds.factors.get(block, ()):
        if scale == 0.0:
            return replace(segment, change="zero")
        return replace(segment, change="scale", by=scale)
    return segment
