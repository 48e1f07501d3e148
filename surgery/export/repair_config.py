"""A LyCORIS config -> one that trains what the patterns of the first ask for. What was changed is said."""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

from surgery.errors import InputError
from surgery.export.check_config import Judgement, judge_config
from surgery.export.config_faults import claiming_classes, heeded_options, mend_pattern, takes_other_blocks
from surgery.export.config_values import TOP_LEVEL
from surgery.export.lokr_config import NO_MODULE
from surgery.export.lycoris_apply import refuse_invalid_preset
from surgery.export.read_config import MAPS, ModelModule, Preset, read_preset


def repair_config(judgement: Judgement, model: Any) -> Judgement:
    """The judgement of the repaired config.

    Raises:
        InputError: it names nothing that is in the model, or still trains something else.
    """
    config = {key: copy.deepcopy(value) for key, value in judgement.config.items() if key in TOP_LEVEL}
    preset = dict(config.get("apply_preset") or {})
    if preset:
        config["apply_preset"] = preset
    _mend_multiplier(config)
    _mend_patterns(config, preset, judgement)
    for key in MAPS:
        if key in preset:
            preset[key] = {name: heeded_options(entry, config) for name, entry in preset[key].items()}
    _unclaim(config, preset, judgement)
    refuse_invalid_preset(config)
    repaired = judge_config(config, model)
    if not repaired.as_asked:
        reason = (
            repaired.failure
            or "; ".join(repaired.value_faults)
            or (
                f"{repaired.num_as_asked} of {len(repaired.asked)} modules would be trained as asked"
                if repaired.asked
                else "nothing that it names is in the model"
            )
        )
        raise InputError(f"the config can't be repaired: {reason}")
    return repaired


def _mend_multiplier(config: dict[str, Any]) -> None:
    try:
        number = float(config.get("multiplier", 1.0))
    except (TypeError, ValueError):
        number = 1.0
    if not math.isfinite(number) or number != int(number) or number == 0:
        config["multiplier"] = float(max(int(number), 1)) if math.isfinite(number) else 1.0


def _mend_patterns(config: Mapping[str, Any], preset: dict[str, Any], judgement: Judgement) -> None:
    """Patterns of plain names become ones of `fnmatch`; those that match nothing are mended, or left out."""
    if "name_algo_map" not in preset:
        return
    names = [module.name for module in judgement.modules]
    read = read_preset(config)
    if any(takes_other_blocks(pattern, names, read) for pattern in read.name_map) and not any(
        set(pattern) & set("\\^$+?()[]{}|") for pattern in read.name_map
    ):
        preset["use_fnmatch"] = True
        read = read_preset(config)
    entries: dict[str, Any] = {}
    for pattern, entry in read.name_map.items():
        mended = mend_pattern(pattern, names, read)
        if mended is not None:
            entries.setdefault(mended, dict(entry))
    preset["name_algo_map"] = entries


def _unclaim(config: Mapping[str, Any], preset: dict[str, Any], judgement: Judgement) -> None:
    """No class claims what a pattern names; what only classes name gets patterns of its own."""
    read = read_preset(config)
    if "target_module" in preset:
        present = {name for module in judgement.modules for name in module.classes}
        preset["target_module"] = [name for name in read.classes if name in present] or [NO_MODULE]
        read = read_preset(config)
    if not claiming_classes(judgement.modules, read):
        return
    entries = dict(preset.get("name_algo_map", {}))
    for by, members in _by_class(judgement).items():
        options = {"algo": config.get("algo", "lora"), **read.class_map.get(by, {})}
        for key in ("factor", "full_matrix"):
            if key in config and options["algo"] == "lokr":
                options.setdefault(key, config[key])
        for pattern in _patterns_of(members, judgement.modules, read):
            entries.setdefault(pattern, options)
    if entries:
        preset["name_algo_map"] = entries
        if any("*" in pattern for pattern in entries):
            preset.setdefault("use_fnmatch", True)
    preset["target_module"] = [NO_MODULE]
    preset.pop("module_algo_map", None)


def _by_class(judgement: Judgement) -> dict[str, list[str]]:
    """The names of modules that only a class asks for, by class."""
    found: dict[str, list[str]] = {}
    for name, asked in judgement.asked.items():
        if asked.by_class:
            found.setdefault(asked.by, []).append(name)
    return found


def _patterns_of(members: Iterable[str], modules: Iterable[ModelModule], preset: Preset) -> list[str]:
    """`STACK.*` where no other module would be taken by it; otherwise the names one by one."""
    wanted = set(members)
    free = [module.name for module in modules if preset.pattern_of(module.name) is None]
    found: list[str] = []
    for container in dict.fromkeys(name.split(".")[0] for name in members):
        within = [name for name in free if name.startswith(f"{container}.")]
        if preset.use_fnmatch and set(within) <= wanted:
            found.append(f"{container}.*")
        else:
            found += [name for name in members if name == container or name.startswith(f"{container}.")]
    return found
