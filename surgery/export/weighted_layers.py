"""A profile and a model -> what each trainer's text is made from: contributions of layers, and what can be trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from surgery.anatomy.anatomy import Anatomy, Stack
from surgery.anatomy.resolve import resolve_layers
from surgery.errors import InputError
from surgery.export.contributions import (
    IMAGE_WEIGHT,
    TEXT_WEIGHT,
    Contributions,
    Weighing,
    measure_contributions,
)
from surgery.export.factors import (
    LARGEST_FACTOR,
    TrainableModule,
    factors_of_shares,
    list_grouped,
    list_trainable,
    solve_max_factor,
    to_power_of_two,
)
from surgery.export.lokr_config import LokrPlan, plan_lokr
from surgery.export.shipped import shipped_contributions
from surgery.profiles.mismatch import find_mismatch
from surgery.spec.document import Scalar
from surgery.spec.places import Faults, Place
from surgery.spec.selector import read_selector

if TYPE_CHECKING:
    from surgery.profiles.layer_profile import Profile


@dataclass(frozen=True)
class Settings:
    """The steps from a profile to a config. `critical` are selectors of layers that are trained as much as can be.

    `multipliers` are by component, for factors; with a `budget` of parameters `max_factor` is solved for.
    """

    weighing: Weighing = field(default_factory=Weighing)
    max_factor: int = 16
    critical: tuple[str, ...] = ()
    multipliers: Mapping[str, int] = field(default_factory=dict)
    powers_of_two: bool = False
    budget: int | None = None


PRESETS: Mapping[str, Settings] = {
    "sd35-layerwise": Settings(
        weighing=Weighing(90.0, {"hidden_states": IMAGE_WEIGHT, "encoder_hidden_states": TEXT_WEIGHT}),
        max_factor=12,
        critical=("transformer_blocks[0, 31, 35]",),
        multipliers={"norm1": 1, "norm1_context": 1, "ff": 1, "ff_context": 1, "*": 2},
    )
}


@dataclass(frozen=True)
class WeightedLayers:
    """Of one model: contributions by stack, critical layers, and the modules of the blocks that can be trained."""

    class_name: str
    contributions: tuple[Contributions, ...]
    critical: Mapping[str, frozenset[int]]
    modules: tuple[TrainableModule, ...]
    grouped: tuple[str, ...]
    block_classes: tuple[str, ...]
    others: tuple[str, ...]  # stacks of the model that are not trained
    lengths: Mapping[str, int] = field(default_factory=dict)  # of all stacks of the model
    has_add_adapter: bool = True  # of PEFT, which not all classes of diffusers have

    def share(self, stack: str, block: int) -> float:
        """The contribution of a layer; that of a critical one is 1."""
        if block in self.critical.get(stack, ()):
            return 1.0
        return next(part.shares[block] for part in self.contributions if part.stack == stack)

    @property
    def stacks(self) -> tuple[str, ...]:
        """The names of those that are trained."""
        return tuple(part.stack for part in self.contributions)


def weigh_layers(
    profile: "Profile", model: Any, settings: Settings, stacks: Sequence[str] | None = None
) -> WeightedLayers:
    """The contributions of a profile for the layers of a model (which may be on the meta device).

    Raises:
        InputError: the profile is of another model, or not sound; see `measure_contributions`.
    """
    mismatch = find_mismatch(profile, type(model).__name__, _lengths_of(model))
    if mismatch is not None:
        raise InputError(f"{mismatch}; name the model that was profiled (--model), or profile this one")
    return join_contributions(measure_contributions(profile, settings.weighing, stacks), model, settings)


def weigh_by_preset(preset: str, model: Any, settings: Settings) -> WeightedLayers:
    """The contributions that come with a preset for the layers of a model; raises InputError where it is another."""
    return join_contributions(shipped_contributions(preset, type(model).__name__, _lengths_of(model)), model, settings)


def join_contributions(contributions: tuple[Contributions, ...], model: Any, settings: Settings) -> WeightedLayers:
    """Contributions of layers that the model has, with what can be trained of them."""
    lengths, class_name = _lengths_of(model), type(model).__name__
    chosen = [part.stack for part in contributions]
    classes = (type(block).__name__ for name in chosen for block in model.get_submodule(name).children())
    return WeightedLayers(
        class_name=class_name,
        contributions=contributions,
        critical=select_layers(settings.critical, {name: lengths[name] for name in chosen}, class_name),
        modules=list_trainable(model, chosen),
        grouped=list_grouped(model, chosen),
        block_classes=tuple(dict.fromkeys(classes)),
        others=tuple(name for name in lengths if name not in chosen),
        lengths=lengths,
        has_add_adapter=hasattr(model, "add_adapter"),
    )


def _lengths_of(model: Any) -> dict[str, int]:
    """The numbers of blocks of all stacks."""
    from surgery.tracing.steps import find_stack_names

    return {name: len(list(model.get_submodule(name).children())) for name in find_stack_names(model)}


def select_layers(selectors: Sequence[str], lengths: Mapping[str, int], class_name: str) -> dict[str, frozenset[int]]:
    """Selectors of layers, as specs write them -> the layers by stack; raises SpecError with all faults."""
    stacks = tuple(Stack(name, (), (0,) * length) for name, length in lengths.items())
    anatomy = Anatomy(class_name, stacks, 0, 0, "float32", has_weights=False)
    found: dict[str, frozenset[int]] = {}
    faults = Faults("--critical")
    for text in selectors:
        selection = read_selector(Scalar(text, text, Place(1, 1)), {}, faults)
        for layers in resolve_layers(selection, anatomy, faults):
            found[layers.stack.name] = found.get(layers.stack.name, frozenset()) | set(layers.indices)
    faults.raise_if_any()
    return found


def choose_factors(layers: WeightedLayers, settings: Settings) -> dict[str, tuple[int, ...]]:
    """The factor asked for by stack and layer; raises InputError where no factor keeps to the budget."""
    if not 1 <= settings.max_factor <= LARGEST_FACTOR:
        raise InputError(
            f"the largest factor must be from 1 to {LARGEST_FACTOR}, not {settings.max_factor}: above about the square "
            "root of a width, layers can't be loaded again"
        )
    if settings.budget is None:
        return _factors(layers, settings)
    best = solve_max_factor(lambda factor: _plan(layers, settings, factor).num_parameters, settings.budget)
    return _factors(layers, replace(settings, max_factor=best))


def plan_layers(layers: WeightedLayers, factors: Mapping[str, Sequence[int]], settings: Settings) -> LokrPlan:
    """The rules for these factors."""
    return plan_lokr(factors, layers.modules, settings.multipliers)


def _plan(layers: WeightedLayers, settings: Settings, max_factor: int) -> LokrPlan:
    return plan_layers(layers, _factors(layers, replace(settings, max_factor=max_factor)), settings)


def _factors(layers: WeightedLayers, settings: Settings) -> dict[str, tuple[int, ...]]:
    found = {}
    for part in layers.contributions:
        factors = factors_of_shares(part.shares, settings.max_factor, layers.critical.get(part.stack, ()))
        found[part.stack] = tuple(map(to_power_of_two, factors)) if settings.powers_of_two else factors
    return found
