"""What an adapter's file says of its modules (diffusers' `lora_adapter_metadata`) -> the same under the new names.

PEFT matches modules by lists of suffixes and by regular expressions (`rank_pattern`). What still says the same of the
new modules stays as it is; otherwise the modules are written out, one by one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from surgery.errors import InputError, RefusedError
from surgery.pattern_time import refuse_slow_patterns

PEFT_KEY = "lora_adapter_metadata"
TARGETS = "target_modules"
PATTERNS = ("rank_pattern", "alpha_pattern")
NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern")  # of no use once modules are written out
NAMING = ("modules_to_save", "target_parameters", "layer_replication", "trainable_token_indices")
PREFIXES = ("", "transformer.")
NAMES_A_LAYER = re.compile(r"(^|[._\\])\d+($|[._\\])")

Moves = Mapping[str, tuple[str, ...]]  # modules of the original -> their names now


def remap_metadata(metadata: Mapping[str, str], moves: Moves, present: Sequence[str]) -> dict[str, str]:
    """The metadata of a file for the modules' new names. `present` are all modules of the pruned class.

    Raises:
        InputError: PEFT's entry is none.
        RefusedError: it names layers in a way that can't follow.
    """
    if PEFT_KEY not in metadata:
        return dict(metadata)
    config = _parse(metadata[PEFT_KEY])
    for prefix in PREFIXES:
        if f"{prefix}{TARGETS}" in config:
            own = {name.removeprefix(prefix): value for name, value in config.items() if name.startswith(prefix)}
            config |= {prefix + name: value for name, value in _remap_config(own, moves, present).items()}
    return {**metadata, PEFT_KEY: json.dumps(config, indent=2)}  # not sorted: the first pattern that matches counts


def _parse(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its {PEFT_KEY} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"its {PEFT_KEY} is no JSON object")
    return config


def _remap_config(config: Mapping[str, Any], moves: Moves, present: Sequence[str]) -> dict[str, Any]:
    """The fields of a PEFT config that change."""
    for name in NAMING:
        if config.get(name) and (name == "layer_replication" or _names_a_layer(config[name])):
            raise RefusedError(
                f"its {PEFT_KEY} has {name} {config[name]!r}, whose layers can't be renumbered here; save the adapter "
                "without it"
            )
    changed: dict[str, Any] = {}
    wanted = {place for places in moves.values() for place in places}
    if any(config.get(name) for name in NARROWING) or not _selects(config[TARGETS], wanted, present):
        changed[TARGETS] = sorted(wanted)
        changed |= {name: None for name in NARROWING if name in config}
    for name in PATTERNS:
        patterns = config.get(name) or {}
        if not isinstance(patterns, dict):
            raise InputError(f"its {PEFT_KEY} has a {name} that is no map from patterns to numbers")
        places = [place for found in moves.values() for place in found]
        refuse_slow_patterns(map(_anchored, patterns), [*moves, *places])
        before = {module: _match(patterns, name, module) for module in moves}
        after = {place: before[module] for module, places in moves.items() for place in places}
        is_same = all(_match(patterns, name, place) == pattern for place, pattern in after.items())
        if not is_same or set(before.values()) != set(after.values()):
            changed[name] = {f"^{re.escape(p)}": patterns[m] for p, m in after.items() if m is not None}
    return changed


def _names_a_layer(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and NAMES_A_LAYER.search(text) for text in texts)


def _selects(targets: Any, wanted: set[str], present: Sequence[str]) -> bool:
    """Whether a list of names and suffixes selects, as PEFT does it, these modules, and no entry of it is idle."""
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return False
    selected = {target: {m for m in present if m == target or m.endswith(f".{target}")} for target in targets}
    return all(selected.values()) and set().union(*selected.values()) == wanted


def _match(patterns: Mapping[str, Any], name: str, module: str) -> str | None:
    """The first pattern that matches a module, as PEFT does it; None without one."""
    for pattern in patterns:
        try:
            found = re.match(_anchored(pattern), module)
        except re.error as error:
            raise RefusedError(f"its {PEFT_KEY} has {pattern!r} in {name}, which is no pattern: {error}") from None
        if found:
            return pattern
    return None


def _anchored(pattern: str) -> str:
    """A pattern as PEFT matches it: with any beginning, to the end of the name."""
    return rf"(.*\.)?({pattern})$"
