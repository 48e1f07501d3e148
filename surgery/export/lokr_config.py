"""Factors of layers -> the LyCORIS config that SimpleTuner reads, in the one shape that trains what it says.

`target_module` must name no class of the model (`__none__`): a class claims all children of its modules before their
names are looked at. It must not be empty either: SimpleTuner's editor drops an empty list, and LyCORIS then takes all
linear layers. Of the patterns the first that matches wins, and SimpleTuner's editor sorts them: no two take the same.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from surgery.errors import InputError
from surgery.export.factors import LARGEST_FACTOR, TrainableModule, count_lokr_parameters
from surgery.export.name_patterns import cover_names, is_within

Layout = Literal["works", "published"]
NO_MODULE = "__none__"
REST = "*"
RANK = 10_000  # so large that every layer is a full matrix, also where `full_matrix` is not heeded
PUBLISHED_RANK = 1_000_000
PUBLISHED_RULES = (("norm1*", 1), ("norm1_context*", 1), ("ff*", 1), ("*", 2))
SIMPLETUNER_LINES = {"model_type": "lora", "lora_type": "lycoris"}


@dataclass(frozen=True)
class Rule:
    """A pattern of module names, and the factor of those that match it."""

    pattern: str
    factor: int


@dataclass(frozen=True)
class LokrPlan:
    """What is to be trained: the rules, of which no two take the same module, and by module the factor asked for.

    `capped` are the rules whose factor was lowered to the largest that can be loaded again.
    """

    rules: tuple[Rule, ...]
    asked: Mapping[TrainableModule, int]
    capped: tuple[str, ...] = field(default=())

    @property
    def num_parameters(self) -> int:
        """All that is trained, in closed form."""
        return sum(count_lokr_parameters(module.shape, factor) for module, factor in self.asked.items())


def plan_lokr(
    factors: Mapping[str, Sequence[int]],
    modules: Iterable[TrainableModule],
    multipliers: Mapping[str, int] | None = None,
    *,
    cap: int = LARGEST_FACTOR,
) -> LokrPlan:
    """Rules for the blocks of each stack: one where all of a block has one factor, otherwise one a component.

    `multipliers` are by the name of a component within a block; `*` stands for all others (1 where it is not named).
    No module is taken by two rules, so that their order does not matter.

    Raises:
        InputError: a multiplier names a component that no block has.
    """
    own = dict(multipliers or {})
    wanted = {module: factors[module.stack][module.block] for module in modules if module.stack in factors}
    _refuse_unused(own, wanted)
    rules: list[Rule] = []
    capped: list[str] = []
    for (stack, block), members in _by_block(wanted).items():
        names = [module.name for module in members]
        by_factor: dict[int, list[str]] = {}
        for module in members:
            wanted[module] *= _multiplier_of(module.inside, own)
            by_factor.setdefault(wanted[module], []).append(module.name)
        for factor, taken in by_factor.items():
            patterns = cover_names(taken, names, f"{stack}.{block}")
            rules += [Rule(pattern, min(factor, cap)) for pattern in patterns]
            capped += patterns if factor > cap else []
    asked = {module: min(factor, cap) for module, factor in wanted.items()}
    return LokrPlan(tuple(rules), asked, tuple(capped))


def _refuse_unused(multipliers: Mapping[str, int], modules: Iterable[TrainableModule]) -> None:
    names = [module.inside for module in modules]
    for component in multipliers:
        if component != REST and not any(is_within(name, component) for name in names):
            top = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise InputError(
                f'no block has linear layers in "{component}"; blocks have {top}; `*` stands for all that is not named'
            )


def _multiplier_of(inside: str, multipliers: Mapping[str, int]) -> int:
    """Of the narrowest component that a module lies in."""
    named = [name for name in multipliers if name != REST and is_within(inside, name)]
    return multipliers[max(named, key=len)] if named else multipliers.get(REST, 1)


def _by_block(modules: Iterable[TrainableModule]) -> dict[tuple[str, int], list[TrainableModule]]:
    found: dict[tuple[str, int], list[TrainableModule]] = {}
    for module in modules:
        found.setdefault((module.stack, module.block), []).append(module)
    return found


def lokr_config(rules: Iterable[Rule], excluded: Sequence[str] = (), *, default_factor: int = 16) -> dict[str, Any]:
    """The config that trains what the rules say but for what is excluded, and nothing else."""
    return {
        "algo": "lokr",
        "multiplier": 1.0,
        "linear_dim": RANK,
        "linear_alpha": 1,
        "factor": default_factor,
        "full_matrix": True,
        "apply_preset": {
            "target_module": [NO_MODULE],
            "use_fnmatch": True,
            **({"exclude_name": list(excluded)} if excluded else {}),
            "name_algo_map": {
                rule.pattern: {"algo": "lokr", "factor": rule.factor, "full_matrix": True} for rule in rules
            },
        },
    }


def published_config(factors: Mapping[str, Sequence[int]], block_classes: Sequence[str]) -> dict[str, Any]:
    """The config of the SD3.5 study, which LyCORIS misreads: to compare with, not to train with."""
    rules = {
        f"{stack}.{block}.{inside}": {
            "algo": "lokr",
            "factor": factor * multiplier,
            "linear_dim": PUBLISHED_RANK,
            "linear_alpha": 1,
            "full_matrix": True,
        }
        for stack, of_stack in factors.items()
        for block, factor in enumerate(of_stack)
        for inside, multiplier in PUBLISHED_RULES
    }
    return {
        "algo": "lokr",
        "multiplier": 1.0,
        "linear_dim": PUBLISHED_RANK,
        "linear_alpha": 1,
        "factor": 1,
        "full_matrix": True,
        "apply_preset": {"target_module": list(block_classes), "name_algo_map": rules, "use_fnmatch": True},
    }


def config_text(config: Mapping[str, Any], layout: Layout = "works") -> str:
    """JSON; the published file ends without a line break."""
    return json.dumps(config, indent=4) + ("" if layout == "published" else "\n")


def simpletuner_lines(path: str) -> dict[str, str]:
    """What SimpleTuner's config.json must say for the file to be used."""
    return {**SIMPLETUNER_LINES, "lycoris_config": path}
