"""What the text for a trainer is made from, what it is, and what several trainers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from surgery.errors import InputError
from surgery.export.factors import TrainableModule
from surgery.export.lokr_config import Layout, LokrPlan
from surgery.export.trainers import ANY_FAMILY, Family
from surgery.export.weighted_layers import WeightedLayers

if TYPE_CHECKING:
    from surgery.export.verify_lokr import Verified


@dataclass(frozen=True)
class TargetRequest:
    """What a target's text is made from; `threshold` is the least share of a layer that is switched on.

    `learning_rate` is that of the layer that does most, where a trainer takes one a layer. `family` is the row of the
    table of trainers. For LyCORIS: the `layout` of its file, which will be at `path`, and the model that LyCORIS
    builds the network on (None: it is not built).
    """

    layers: WeightedLayers
    plan: LokrPlan
    factors: Mapping[str, Sequence[int]]
    max_rank: int = 16
    threshold: float = 0.5
    layout: Layout = "works"
    path: str = "lycoris_config.json"
    verified_on: Any = None
    learning_rate: float = 1e-4
    family: Family = ANY_FAMILY

    def within(self, family: Family) -> "TargetRequest":
        """The request without the stacks that the trainer does not train in this family."""
        stacks = set(family.stacks)
        contributions = tuple(part for part in self.layers.contributions if part.stack in stacks)
        modules = tuple(module for module in self.layers.modules if module.stack in stacks)
        return replace(self, layers=replace(self.layers, contributions=contributions, modules=modules), family=family)

    def name(self, stack: str, block: int) -> str:
        """What the trainer calls a layer."""
        return f"{self.family.stacks.get(stack, stack)}.{block}"

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
class TrainedLayer:
    """A layer by its name in the trainer: what is trained of it, in words, and at which scale (alpha / rank)."""

    name: str
    share: float
    trained: str
    scale: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class TargetText:
    """`text` is ready to paste; `place` says where; `lost` what the trainer can't express; `layers` what is trained."""

    place: str
    text: str
    lost: str
    layers: tuple[TrainedLayer, ...] = ()


@dataclass(frozen=True)
class LycorisText:
    """The `text` of a LyCORIS config, the `lines` of SimpleTuner's own config that name it, and what was verified."""

    text: str
    config: Mapping[str, Any]
    lines: Mapping[str, str]
    verified: "Verified | None"


def ranked_layers(request: TargetRequest, alpha: float | None = None) -> tuple[TrainedLayer, ...]:
    """All layers, each with a rank of its own and one alpha; None: an alpha that is the rank."""
    return tuple(
        TrainedLayer(
            *(request.name(stack, n), request.layers.share(stack, n), f"rank {request.rank(stack, n)}"),
            scale=1.0 if alpha is None else alpha / request.rank(stack, n),
        )
        for stack, n in list_layers(request)
    )


def switched_layers(request: TargetRequest) -> tuple[TrainedLayer, ...]:
    """All layers, those that are switched on with the largest rank and an alpha that is the rank."""
    kept = {stack: set(request.kept(stack)) for stack in request.layers.stacks}
    return tuple(
        TrainedLayer(
            *(request.name(stack, n), request.layers.share(stack, n)),
            trained=f"rank {request.max_rank}" if n in kept[stack] else "no",
            scale=1.0 if n in kept[stack] else None,
        )
        for stack, n in list_layers(request)
    )


def lost_by_threshold(request: TargetRequest, granularity: str) -> str:
    """What a trainer loses that trains a layer or does not; raises InputError where none would be trained."""
    kept = {stack: len(request.kept(stack)) for stack in request.layers.stacks}
    total = {part.stack: len(part.shares) for part in request.layers.contributions}
    parts = ", ".join(f"{kept[stack]} of {total[stack]} {stack}" for stack in kept)
    if not sum(kept.values()):
        raise InputError(f"no layer has a share of {request.threshold:g} or more; lower --threshold")
    convolutions = any(len(module.shape) != 2 for module in request.layers.modules)
    return (
        f"{granularity}: layers with a share of {request.threshold:g} (--threshold) or more are trained alike "
        f"({parts}), the others not at all" + ("; convolutions are left out" if convolutions else "")
    )


def regex_of_kept(request: TargetRequest) -> str:
    """`transformer_blocks\\.(?:0|7|12)|...` of the layers that are switched on, by the names of the trainer."""
    parts = []
    for stack in request.layers.stacks:
        blocks = request.kept(stack)
        if blocks:
            name = request.family.stacks.get(stack, stack)
            parts.append(rf"{escape(name)}\.(?:{'|'.join(map(str, blocks))})")
    return "|".join(parts)


def escape(name: str) -> str:
    """A dotted name as a regular expression."""
    return name.replace(".", r"\.")


def list_layers(request: TargetRequest) -> list[tuple[str, int]]:
    """Stack and number of every layer that can be trained."""
    return list(dict.fromkeys((module.stack, module.block) for module in request.layers.modules))
