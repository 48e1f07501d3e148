"""The operations of the language as frozen data. The set is closed; whoever handles them matches it to the end."""

from dataclasses import dataclass
from typing import Literal

from surgery.spec.places import Place
from surgery.spec.selector import Selector

Combine = Literal["mean", "sum"]
COMBINE_KINDS: tuple[Combine, ...] = ("mean", "sum")
REPLACEMENT_KINDS = ("zero", "input", "channel_mean", "mean")
BRANCHES = ("conditional", "unconditional")

Selection = tuple[Selector, ...]
StepRange = tuple[int, int | None]  # half open; None: to the last step


@dataclass(frozen=True)
class When:
    """Restricts an operation to a window of timesteps (shares of the noise range), to steps of the sampler, or to one
    branch of guidance; where several are given, to what all of them hold for.

    `timesteps` are half open, but for 1.0; `steps` are ascending ranges that do not touch.
    """

    timesteps: tuple[float, float] | None
    steps: tuple[StepRange, ...] | None
    branch: str | None
    place: Place


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What all operations have: their place, how many layers they must match, when they apply."""

    place: Place
    expect: int | None = None
    when: When | None = None


@dataclass(frozen=True)
class OnLayers(Operation):
    """What the operations have in common that edit where selected layers stand in a schedule."""

    layers: Selection


@dataclass(frozen=True)
class Skip(OnLayers):
    """The selected blocks are left out."""


@dataclass(frozen=True)
class Repeat(OnLayers):
    """The selected run is executed `times` times, or every position of it runs one layer: `using`."""

    times: int | None
    using: int | Literal["center"] | None


@dataclass(frozen=True)
class Reverse(OnLayers):
    """The selected positions run their layers in reverse order."""


@dataclass(frozen=True)
class Shuffle(OnLayers):
    """The selected positions run their layers in the order of `random.Random(seed).shuffle`."""

    seed: int


@dataclass(frozen=True)
class OrderGroup:
    """A parallel group within a written-out order."""

    layers: tuple[int, ...]
    combine: Combine
    loops: int
    place: Place


@dataclass(frozen=True)
class OrderRange:
    """A half-open range, or one layer, within a written-out order."""

    text: str
    start: int | None
    stop: int | None
    place: Place


@dataclass(frozen=True)
class Order(Operation):
    """The whole schedule of a stack, written out."""

    stack: str
    stack_place: Place
    items: tuple[OrderGroup | OrderRange, ...]
    model: str | None = None


@dataclass(frozen=True)
class Parallel(OnLayers):
    """The selected run becomes a group: all on the same input, outputs combined, `loops` times in all."""

    combine: Combine
    loops: int


@dataclass(frozen=True)
class Scale(OnLayers):
    """The residual update of the selected layers is multiplied by `by`."""

    by: float


@dataclass(frozen=True)
class Replace(Operation):
    """The outputs of the selected components are replaced."""

    components: Selection
    kind: str


LayerOperation = Skip | Repeat | Reverse | Shuffle | Parallel | Scale
AnyOperation = Skip | Repeat | Reverse | Shuffle | Order | Parallel | Scale | Replace
