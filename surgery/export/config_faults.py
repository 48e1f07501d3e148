"""What is wrong with a LyCORIS config, a sentence a fault: why it does not train what it says, or may surprise."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from surgery.export.check_config import Judgement
from surgery.export.factors import LARGEST_FACTOR
from surgery.export.lokr_config import NO_MODULE
from surgery.export.read_config import ModelModule, Preset, mended_patterns, read_preset

# What LyCORIS heeds in an entry of name_algo_map or module_algo_map; it drops everything else without a word.
HEEDED = frozenset(
    (
        *("algo", "dim", "alpha", "use_tucker", "use_scalar", "decompose_both", "factor", "rank_dropout_scale"),
        *("weight_decompose", "wd_on_out", "full_matrix", "bypass_mode", "rs_lora", "unbalanced_factorization"),
        *("block_size", "constraint", "rescaled", "train_on_input", "sig_type", "use_data_init", "mask_group_id"),
    )
)
DROPOUTS = ("dropout", "rank_dropout", "module_dropout")
SHOWN = 3


def list_faults(judgement: Judgement) -> list[str]:
    """All faults of a config, those that explain a difference first."""
    preset = read_preset(judgement.config)
    return [
        *_claims(judgement, preset),
        *_stale(judgement),
        *judgement.value_faults,
        *_options(preset),
        *_patterns(judgement, preset),
        *_top_level(judgement, preset),
    ]


def claiming_classes(modules: Iterable[ModelModule], preset: Preset) -> dict[str, int]:
    """Classes that take modules away from the patterns that name them -> how many."""
    targeted = {*preset.classes, *preset.class_map}
    found: dict[str, int] = {}
    for module in modules:
        if preset.pattern_of(module.name) is None:
            continue
        parts = module.name.split(".")
        for depth, name in enumerate(module.classes[:-1]):
            path = ".".join(parts[:depth])
            if name in targeted and preset.pattern_of(path) is None:
                found[name] = found.get(name, 0) + 1
                break
    return found


def _claims(judgement: Judgement, preset: Preset) -> list[str]:
    found = []
    for name, count in claiming_classes(judgement.modules, preset).items():
        key = "target_module" if name in preset.classes else "module_algo_map"
        found.append(
            f"{key} names the class {name}, which claims all its children before their names are looked at: {count} "
            f"modules that patterns name are taken by it; write a name that no class has, like "
            f'"target_module": ["{NO_MODULE}"]'
        )
    return found


def _stale(judgement: Judgement) -> list[str]:
    """A module whose factor is neither its own nor the top level's has that of a name that was skipped before."""
    leaked = [
        item
        for item in judgement.differences
        if item.asked is not None
        and item.trained is not None
        and item.asked.by_class is False
        and item.trained.factor not in (item.asked.factor, _number(judgement.config.get("factor")))
    ]
    if not leaked:
        return []
    first = leaked[0]
    assert first.asked is not None and first.trained is not None
    return [
        "the options of the last name that LyCORIS skipped leak into the next module that a class claims, so a block "
        f"gets its predecessor's: {first.module.name} has factor {first.trained.factor} instead of "
        f"{first.asked.factor} ({len(leaked)} modules)"
    ]


def _options(preset: Preset) -> list[str]:
    entries: dict[str, list[str]] = {}
    for pattern, options in (*preset.name_map.items(), *preset.class_map.items()):
        for key in options:
            if key not in HEEDED:
                entries.setdefault(key, []).append(pattern)
    meant = {"linear_dim": "dim", "linear_alpha": "alpha", "dora_wd": "weight_decompose", "rank": "dim"}
    found = []
    for key, patterns in entries.items():
        where = f'in {len(patterns)} entries (first "{patterns[0]}")'
        if key in DROPOUTS:
            found.append(f'"{key}" {where} makes LyCORIS fail with a TypeError; it belongs to the top level')
        else:
            advice = f'the key is "{meant[key]}"' if key in meant else "LyCORIS has no such option"
            found.append(f'"{key}" {where} is ignored, and refused by SimpleTuner\'s editor; {advice}')
    return found


def _patterns(judgement: Judgement, preset: Preset) -> list[str]:
    names = [module.name for module in judgement.modules]
    first: dict[str, int] = dict.fromkeys(preset.name_map, 0)
    for name in names:
        pattern = preset.pattern_of(name)
        if pattern is not None:
            first[pattern] += 1
    nothing: list[str] = []
    hidden: list[str] = []
    for pattern in (pattern for pattern, count in first.items() if count == 0):
        taken = [name for name in names if pattern == name or preset.matches(pattern, name)]
        if not taken:
            nothing.append(pattern)
        elif any(_deciding(preset, name) != preset.name_map[pattern] for name in taken):
            hidden.append(pattern)
    found = [_matches_nothing(pattern, names, preset) for pattern in nothing[:SHOWN]]
    if len(nothing) > SHOWN:
        found.append(f"and {len(nothing) - SHOWN} patterns more match nothing")
    if hidden:
        found.append(
            f'"{hidden[0]}" is never the first to match, and others say otherwise ({len(hidden)} such patterns); '
            "LyCORIS takes the first, so special patterns must come before general ones"
        )
    wide = [pattern for pattern in preset.name_map if takes_other_blocks(pattern, names, preset)]
    if wide:
        found.append(
            f'without "use_fnmatch": true patterns are regular expressions, and "{wide[0]}" takes blocks of other '
            f"numbers too ({len(wide)} such patterns)"
        )
    return found


def _deciding(preset: Preset, name: str) -> Mapping[str, Any]:
    """The entry of `name_algo_map` for a name that some pattern takes."""
    pattern = preset.pattern_of(name)
    return {} if pattern is None else preset.name_map[pattern]


def _matches_nothing(pattern: str, names: Iterable[str], preset: Preset) -> str:
    better = mend_pattern(pattern, names, preset)
    advice = (
        f'; write "{better}"' if better else "; names are dotted, relative to the transformer, and of linear layers"
    )
    return f'"{pattern}" matches nothing{advice}'


def mend_pattern(pattern: str, names: Iterable[str], preset: Preset) -> str | None:
    """A pattern that matches, where this one fails for its prefix or for being a bare container; else None."""
    names = list(names)
    return next((m for m in mended_patterns(pattern) if any(preset.matches(m, name) for name in names)), None)


def takes_other_blocks(pattern: str, names: Iterable[str], preset: Preset) -> bool:
    """Whether a regular expression with one number in it takes modules of other numbers, as `blocks.1.*` does."""
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", pattern)
    if preset.use_fnmatch or len(numbers) != 1:
        return False
    taken = (re.search(r"(?<=\.)\d+(?=\.)", name) for name in names if preset.matches(pattern, name))
    return any(match is not None and match[0] != numbers[0] for match in taken)


def _top_level(judgement: Judgement, preset: Preset) -> list[str]:
    config = judgement.config
    found: list[str] = []
    if config.get("apply_preset") is not None and "target_module" in config["apply_preset"] and not preset.classes:
        found.append(
            "target_module is an empty list, which SimpleTuner's editor deletes; LyCORIS then trains all linear "
            f'layers: write ["{NO_MODULE}"]'
        )
    present = {name for module in judgement.modules for name in module.classes}
    absent = [name for name in preset.classes if name not in present and name != NO_MODULE]
    if absent and "target_module" in (config.get("apply_preset") or {}):
        found.append(f"the model has no module of the class {', '.join(absent)}, which target_module names")
    large = sorted({a.factor for a in judgement.asked.values() if a.factor is not None and a.factor > LARGEST_FACTOR})
    if large:
        found.append(f"factor {large[-1]} is above {LARGEST_FACTOR}; some layers can't be loaded again with it")
    if not judgement.asked:
        found.append("no pattern, name or class of the config is in the model: nothing would be trained")
    return found


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def heeded_options(options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what is ignored or fails; a rank that was given by the top level's key gets the entry's key."""
    kept = {key: value for key, value in options.items() if key in HEEDED}
    if not options.get("full_matrix", config.get("full_matrix", False)):
        for ours, theirs in (("dim", "linear_dim"), ("alpha", "linear_alpha")):
            if theirs in options:
                kept.setdefault(ours, options[theirs])
    return kept
