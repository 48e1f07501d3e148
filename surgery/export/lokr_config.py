"""Factors of layers -> the LyCORIS config that SimpleTuner reads, in the one shape that trains what it says.

`target_module` must name no class of the model (`__none__`): a class claims all children of its modules before their
names are looked at. It must not be empty either: SimpleTuner's editor drops an empty list, and LyCORIS then takes all
linear layers. Of the patterns the first that matches wins, so special ones come before general ones.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from surgery.errors import InputError
from surgery.export.factors import LARGEST_FACTOR, TrainableModule, count_lokr_parameters

Layout = Literal["works", "published"]
NO_MODULE = "__none__"
REST = "*"
RANK = 10_000  # so large that every layer is a full matrix, also where `full_matrix` is not heeded
PUBLISHED_RANK = 1_000_000
PUBLISHED_RULES = (("norm1*", 1), ("norm1_context*", 1), ("ff*", 1), ("*", 2))
SIMPLETUNER_LINES = {"model_type": "lora", "lora_type": "lycoris"}


@dataclass(frozen=True)
class Rule:
    """A pattern of module names, and the factor of those that match it first."""

    pattern: str
    factor: int


@dataclass(frozen=True)
class LokrPlan:
    """What is to be trained: the rules in their order, and by module the factor asked for.

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
    """Rules for the blocks of each stack: components with their own multiplier first, then the rest of the block.

    `multipliers` are by the name of a component within a block; `*` stands for all others (1 where it is not named).

    Raises:
        InputError: a multiplier names a component that no block has.
    """
    own = dict(multipliers or {})
    rest = own.pop(REST, 1)
    rules: list[Rule] = []
    capped: list[str] = []
    asked: dict[TrainableModule, int] = {}
    used: set[str] = set()
    for (stack, block), members in _by_block(modules, factors).items():
        left = list(members)
        for name, multiplier in (*own.items(), (REST, rest)):
            taken = [module for module in left if name == REST or _is_within(module.inside, name)]
            if not taken:
                continue
            used.add(name)
            left = [module for module in left if module not in taken]
            wanted = factors[stack][block] * multiplier
            rules += [Rule(pattern, min(wanted, cap)) for pattern in _patterns(stack, block, name, taken)]
            capped += [rule.pattern for rule in rules[-1:] if wanted > cap]
            asked |= {module: min(wanted, cap) for module in taken}
    for name in own:
        if name not in used:
            raise InputError(
                f'no block has linear layers in "{name}"; blocks have {", ".join(_top_names(asked))}; `*` stands for '
                "all that is not named"
            )
    return LokrPlan(tuple(rules), asked, tuple(capped))


def _by_block(
    modules: Iterable[TrainableModule], factors: Mapping[str, Sequence[int]]
) -> dict[tuple[str, int], list[TrainableModule]]:
    found: dict[tuple[str, int], list[TrainableModule]] = {}
    for module in modules:
        if module.stack in factors:
            found.setdefault((module.stack, module.block), []).append(module)
    return found


def _is_within(inside: str, component: str) -> bool:
    return inside == component or inside.startswith(f"{component}.")


def _patterns(stack: str, block: int, name: str, taken: Sequence[TrainableModule]) -> list[str]:
    """`fnmatch` patterns of exactly these modules: a component that is itself a layer goes by its plain name."""
    path = f"{stack}.{block}.{name}"
    if name == REST:
        return [path]
    inner = [f"{path}.*"] * any(module.inside != name for module in taken)
    return [path] * any(module.inside == name for module in taken) + inner


def _top_names(modules: Iterable[TrainableModule]) -> list[str]:
    return list(dict.fromkeys(module.inside.split(".")[0] for module in modules))


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
