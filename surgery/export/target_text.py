"""What the text for a trainer is made from, what it is, and what several trainers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from surgery.errors import InputError
from surgery.export.factors import TrainableModule
from surgery.export.lokr_config import Layout, LokrPlan
from surgery.export.weighted_layers import WeightedLayers

if TYPE_CHECKING:
    from surgery.export.verify_lokr import Verified


@dataclass(frozen=True)
class TargetRequest:
    """What a target's text is made from; `threshold` is the least share of a layer that is switched on.

    For SimpleTuner: the `layout` of its file, which will be at `path`, and the model that LyCORIS builds the network
    on (None: it is not built).
    """

    layers: WeightedLayers
    plan: LokrPlan
    factors: Mapping[str, Sequence[int]]
    max_rank: int = 16
    threshold: float = 0.5
    layout: Layout = "works"
    path: str = "lycoris_config.json"
    verified_on: Any = None

    def rank(self, stack: str, block: int) -> int:
        """From 1 for a share of 0 to `max_rank` for 1."""
        return round(self.layers.share(stack, block) * (self.max_rank - 1) + 1)

    def kept(self, stack: str) -> list[int]:
        """The layers that are switched on."""
        blocks = sorted({module.block for module in self.layers.modules if module.stack == stack})
        return [block for block in blocks if self.layers.share(stack, block) >= self.threshold]

    def kept_modules(self) -> list[TrainableModule]:
        """The linear layers of those."""
        kept = {stack: set(self.kept(stack)) for stack in self.layers.stacks}
        return [m for m in self.layers.modules if m.block in kept[m.stack] and len(m.shape) == 2]


@dataclass(frozen=True)
class TargetText:
    """`text` is ready to paste; `place` says where; `lost` what the trainer can't express."""

    place: str
    text: str
    lost: str


@dataclass(frozen=True)
class LycorisText:
    """The `text` of a LyCORIS config, the `lines` of SimpleTuner's own config that name it, and what was verified."""

    text: str
    config: Mapping[str, Any]
    lines: Mapping[str, str]
    verified: "Verified | None"


def lost_by_threshold(request: TargetRequest, granularity: str) -> str:
    """What a trainer loses that trains a layer or does not; raises InputError where none would be trained."""
    kept = {stack: len(request.kept(stack)) for stack in request.layers.stacks}
    total = {part.stack: len(part.shares) for part in request.layers.contributions}
    parts = ", ".join(f"{kept[stack]} of {total[stack]} {stack}" for stack in kept)
    if not sum(kept.values()):
        raise InputError(f"no layer has a share of {request.threshold:g} or more; lower --threshold")
    return (
        f"{granularity}: layers with a share of {request.threshold:g} (--threshold) or more are trained alike "
        f"({parts}), the others not at all"
    )


def regex_of_kept(request: TargetRequest, names: Mapping[str, str]) -> str:
    """`transformer_blocks\\.(?:0|7|12)|...` of the layers that are switched on."""
    parts = []
    for stack in request.layers.stacks:
        blocks = request.kept(stack)
        if blocks:
            parts.append(rf"{names[stack].replace('.', chr(92) + '.')}\.(?:{'|'.join(map(str, blocks))})")
    return "|".join(parts)


def list_layers(request: TargetRequest) -> list[tuple[str, int]]:
    """Stack and number of every layer that can be trained."""
    return list(dict.fromkeys((module.stack, module.block) for module in request.layers.modules))
