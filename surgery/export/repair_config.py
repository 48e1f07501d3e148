"""A LyCORIS config -> one that trains what the first is meant to, whatever the order of its keys."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from surgery.errors import InputError
from surgery.export.check_config import judge_config
from surgery.export.class_faults import is_placeholder
from surgery.export.config_values import TOP_LEVEL, heeded_options
from surgery.export.judgement import Judgement
from surgery.export.lokr_config import NO_MODULE, config_text
from surgery.export.lycoris_apply import refuse_invalid_preset
from surgery.export.name_patterns import cover_names
from surgery.export.pattern_faults import changed_by_sorting, mend_pattern
from surgery.export.pattern_meaning import spell_meaning
from surgery.export.read_config import MAPS, SIMPLETUNER, Preset, loader_of, read_preset
from surgery.export.sd_scripts_config import preset_to_toml

NOT_LITERAL = frozenset("\\^$+?()[]{}|")  # in a regular expression that is no plain name with stars


def repair_config(judgement: Judgement, model: Any) -> Judgement:
    """The judgement of the repaired config: mended where it stands, or else written anew, name by name.

    Raises:
        InputError: it says two things of the same modules, names nothing that is in the model, or still trains
            something else.
    """
    contradictions = [fault.text for fault in judgement.faults if fault.kind == "twin"]
    if contradictions:
        raise InputError(f"the config can't be repaired: {contradictions[0]}")
    repaired = judge_config(_mend(judgement), model)
    if repaired.asked and (not repaired.as_asked or changed_by_sorting(repaired)):
        repaired = judge_config(_by_names(repaired), model)
    if not repaired.as_asked:
        raise InputError(f"the config can't be repaired: {_why_not(repaired)}")
    refuse_invalid_preset(repaired.config)
    return repaired


def repaired_text(config: Mapping[str, Any]) -> str:
    """The text of a repaired config: JSON for SimpleTuner, a preset in TOML for sd-scripts.

    Raises:
        InputError: the config holds options of a training run of sd-scripts, which name a preset and are none.
    """
    if loader_of(config) is SIMPLETUNER:
        return config_text(config)
    if set(config) - {"network_module", "apply_preset", "multiplier"}:
        raise InputError(
            "options of a training run name a preset; give the preset itself to --fix, and then name its repair"
        )
    return preset_to_toml(config["apply_preset"])


def _why_not(repaired: Judgement) -> str:
    if not repaired.asked:
        return "nothing that it names is in the model"
    deciding = [fault.text for fault in repaired.faults if fault.decides]
    counted = f"{repaired.num_as_asked} of {len(repaired.asked)} modules would be trained as asked"
    return repaired.failure or "; ".join(deciding) or counted


def _mend(judgement: Judgement) -> dict[str, Any]:
    """The config without what is ignored, with patterns that say what they mean, and no classes but those it names."""
    config = {key: copy.deepcopy(value) for key, value in judgement.config.items() if key in TOP_LEVEL}
    preset = copy.deepcopy(dict(judgement.preset.given))
    if preset or judgement.config.get("apply_preset") is not None:
        config["apply_preset"] = preset
    _mend_multiplier(config)
    _mend_convolutions(config, preset, judgement)
    _mend_keys(preset, judgement)
    _mend_patterns(config, preset, judgement)
    for key in MAPS:
        if key in preset:
            preset[key] = {name: heeded_options(entry, config) for name, entry in preset[key].items()}
    if preset:
        config["apply_preset"] = preset
    return config


def _mend_multiplier(config: dict[str, Any]) -> None:
    try:
        number = float(config.get("multiplier", 1.0))
    except (TypeError, ValueError):
        number = 1.0
    if not math.isfinite(number) or number != int(number) or number == 0:
        config["multiplier"] = float(max(int(number), 1)) if math.isfinite(number) else 1.0


def _mend_convolutions(config: dict[str, Any], preset: dict[str, Any], judgement: Judgement) -> None:
    """What SimpleTuner's loader can't leave out by a switch is left out by its name."""
    if judgement.preset.loader is not SIMPLETUNER:
        return
    preset.pop("enable_conv", None)
    if config.get("preset") != "full":
        config.pop("preset", None)
    if not judgement.preset.with_convolutions:
        asked = judgement.asked
        more = [m.name for m in judgement.modules if len(m.shape) > 2 and m.shape[2] != 1 and m.name not in asked]
        exact = more if judgement.preset.use_fnmatch else [f"{name.replace('.', chr(92) + '.')}$" for name in more]
        excluded = [*judgement.preset.excluded, *(name for name in exact if name not in judgement.preset.excluded)]
        if excluded:
            preset["exclude_name"] = excluded


def _mend_keys(preset: dict[str, Any], judgement: Judgement) -> None:
    """Classes and names under the keys that the loader reads; of the classes those that the model has."""
    read = judgement.preset
    present = {name for module in judgement.modules for name in module.classes}
    kept = [name for name in read.classes if name in present or is_placeholder(name)]
    for key in read.loader.ignored:
        preset.pop(key, None)
    if read.names:
        preset[read.loader.name_key] = list(read.names)
    if read.loader.class_key in read.given or read.classes != read.loader.default_classes:
        preset[read.loader.class_key] = kept or [NO_MODULE]
    if "module_algo_map" in preset:
        preset["module_algo_map"] = {name: value for name, value in read.class_map.items() if name in present}


def _mend_patterns(config: Mapping[str, Any], preset: dict[str, Any], judgement: Judgement) -> None:
    """Patterns of plain names become ones of `fnmatch`; those that match nothing are mended, or left out."""
    names = [module.name for module in judgement.modules]
    read = judgement.preset
    patterns = (*read.name_map, *read.names, *read.excluded)
    is_wide = any(read.takes(p, name) and not read.matches(p, name) for p in patterns for name in names)
    if is_wide and not read.use_fnmatch and not any(set(pattern) & NOT_LITERAL for pattern in patterns):
        preset["use_fnmatch"] = True
        read = read_preset({**config, "apply_preset": preset})
    if "name_algo_map" in preset:
        entries: dict[str, Any] = {}
        for pattern, entry in read.name_map.items():
            for mended in _mended(pattern, names, read):
                entries.setdefault(mended, dict(entry))
        preset["name_algo_map"] = entries
    for key in (read.loader.name_key, "exclude_name"):
        if key in preset:
            preset[key] = [mended for pattern in preset[key] for mended in _mended(pattern, names, read)]


def _mended(pattern: str, names: list[str], preset: Preset) -> list[str]:
    """The patterns that take what one is meant to."""
    if pattern in names:
        return [pattern]
    better = mend_pattern(pattern, names, preset)
    if better is None:
        return []
    misread = any(preset.takes(better, name) != preset.matches(better, name) for name in names)
    spelled = spell_meaning(better, use_fnmatch=preset.use_fnmatch) if misread else [better]
    return [other for other in spelled if any(preset.takes(other, name) for name in names)]


def _by_names(judgement: Judgement) -> dict[str, Any]:
    """What is asked for as patterns of names, of which no two take the same module; no class is named."""
    config, read = copy.deepcopy(dict(judgement.config)), judgement.preset
    names = [module.name for module in judgement.modules]
    excluded = [name for name in names if read.is_excluded(name)]
    trainable = [name for name in names if name not in set(excluded)]
    groups: dict[tuple[str, bool], list[str]] = {}
    for name, asked in judgement.asked.items():
        groups.setdefault((asked.by, asked.by_class), []).append(name)
    entries = {
        pattern: _entry(config, read, by, by_class=by_class)
        for (by, by_class), members in groups.items()
        for pattern in cover_names(members, trainable)
    }
    preset = {key: value for key, value in read.given.items() if key not in (*MAPS, "exclude_name")}
    preset |= {read.loader.class_key: [NO_MODULE], "use_fnmatch": True}
    preset |= {"exclude_name": cover_names(excluded, trainable)} if excluded else {}
    preset.pop(read.loader.name_key, None)
    preset |= {} if read.loader.maps_select else {read.loader.name_key: list(entries)}
    config["apply_preset"] = {**preset, "name_algo_map": entries}
    return config


def _entry(config: Mapping[str, Any], preset: Preset, by: str, *, by_class: bool) -> dict[str, Any]:
    """The options that a pattern, name or class has, with those of the top level that tell a LoKr."""
    own = (preset.class_map if by_class else preset.name_map).get(by)
    options = {"algo": config.get("algo", "lora"), **(own or {})}
    if not own or by_class:
        for key in ("factor", "full_matrix"):
            if key in config and options["algo"] == "lokr":
                options.setdefault(key, config[key])
    return options
