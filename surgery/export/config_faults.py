"""All kinds of faults of a LyCORIS config, as data: what tells one, what it says, and whether it alone makes it unfit.

A kind is added to KINDS and nowhere else, with the function that finds its cases: for each the words that its message
takes, and the modules whose difference it explains.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from surgery.export.config_values import list_bad_algorithms, list_bad_factors, list_bad_multipliers, list_unknown_keys
from surgery.export.factors import LARGEST_FACTOR
from surgery.export.judgement import Fault, Judgement
from surgery.export.lokr_config import NO_MODULE
from surgery.export.name_patterns import is_within
from surgery.export.pattern_meaning import number_runs, ranges_in, spell_meaning
from surgery.export.read_config import (
    LINEAR_PRESETS,
    SIMPLETUNER,
    ModelModule,
    Preset,
    mended_patterns,
    read_options,
)
from surgery.spec.nearest import nearest

# What LyCORIS heeds in an entry of name_algo_map or module_algo_map; it drops everything else without a word.
HEEDED = frozenset(
    (
        *("algo", "dim", "alpha", "use_tucker", "use_scalar", "decompose_both", "factor", "rank_dropout_scale"),
        *("weight_decompose", "wd_on_out", "full_matrix", "bypass_mode", "rs_lora", "unbalanced_factorization"),
        *("block_size", "constraint", "rescaled", "train_on_input", "sig_type", "use_data_init", "mask_group_id"),
    )
)
DROPOUTS = ("dropout", "rank_dropout", "module_dropout")
MEANT_OPTIONS = {"linear_dim": "dim", "linear_alpha": "alpha", "dora_wd": "weight_decompose", "rank": "dim"}
SHOWN = 3

Words = Mapping[str, object]
Cases = Iterator[tuple[Words, Iterable[str]]]  # words of the message, and names of modules


@dataclass(frozen=True)
class FaultKind:
    """`message` has places for the words of a case. A kind that does not decide is a warning, or tells differences."""

    name: str
    message: str
    find: Callable[[Judgement], Cases]
    decides: bool = True


def find_faults(judgement: Judgement) -> Iterator[Fault]:
    """All faults of a config, those that explain differences first."""
    explained: set[str] = set()
    for kind in KINDS:
        for words, modules in kind.find(judgement):
            explained.update(modules)
            yield Fault(kind.name, kind.message.format(**words), kind.decides, frozenset(modules))
    left = [item.module.name for item in judgement.differences if item.module.name not in explained]
    if left and judgement.failure is None:
        yield Fault(UNEXPLAINED.name, UNEXPLAINED.message.format(**_count(left)), decides=True, modules=frozenset(left))


def list_faults(judgement: Judgement) -> list[str]:
    """What is wrong, a sentence a fault."""
    return [fault.text for fault in judgement.faults]


def _count(names: Iterable[str]) -> Words:
    names = list(names)
    return {"count": len(names), "first": names[0], "modules": "module" if len(names) == 1 else "modules"}


def _unasked(judgement: Judgement) -> list[ModelModule]:
    return [item.module for item in judgement.differences if item.asked is None]


def claimed_modules(modules: Iterable[ModelModule], preset: Preset) -> dict[str, list[str]]:
    """Classes that take modules away from the patterns that name them -> the modules."""
    found: dict[str, list[str]] = {}
    for module in modules:
        if preset.pattern_of(module.name) is None:
            continue
        parts = module.name.split(".")
        for depth, name in enumerate(module.classes[:-1]):
            if name in preset.claiming and preset.pattern_of(".".join(parts[:depth])) is None:
                found.setdefault(name, []).append(module.name)
                break
    return found


def _claims(judgement: Judgement) -> Cases:
    preset = judgement.preset
    for name, taken in claimed_modules(judgement.modules, preset).items():
        key = "module_algo_map" if name in preset.class_map and name not in preset.classes else preset.loader.class_key
        yield {"key": key, "class_key": preset.loader.class_key, "name": name, "count": len(taken)}, taken


def _leaks(judgement: Judgement) -> Cases:
    """A module whose factor is neither its own nor the top level's has that of a name that was skipped before."""
    hidden = {name for item in judgement.shadowed for name in item.names}
    claimed = [item for item in judgement.differences if set(item.module.classes[:-1]) & set(judgement.preset.claiming)]
    leaked = [
        (item.module.name, item.asked.factor, item.trained.factor)
        for item in claimed
        if item.module.name not in hidden
        and item.asked is not None
        and item.trained is not None
        and item.trained.factor not in (None, item.asked.factor, _number(judgement.config.get("factor")))
    ]
    if leaked:
        name, asked, trained = leaked[0]
        yield {"first": name, "asked": asked, "trained": trained, "count": len(leaked)}, [name for name, *_ in leaked]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _all_patterns(preset: Preset) -> list[str]:
    return list(dict.fromkeys((*preset.name_map, *preset.names, *preset.excluded)))


def _misread(judgement: Judgement, pattern: str) -> tuple[list[str], list[str]]:
    """The modules that a pattern is meant to take and does not, and those that it takes and is not meant to."""
    preset = judgement.preset
    left, more = [], []
    for name in (module.name for module in judgement.modules):
        meant, taken = preset.matches(pattern, name), preset.takes(pattern, name)
        left += [name] * (meant and not taken)
        more += [name] * (taken and not meant)
    return left, more


def _ranges(judgement: Judgement) -> Cases:
    preset = judgement.preset
    for pattern in _all_patterns(preset):
        written = ranges_in(pattern)
        left, more = _misread(judgement, pattern) if written else ([], [])
        if left or more:
            instead = spell_meaning(pattern, use_fnmatch=preset.use_fnmatch)
            words = {"pattern": pattern, "range": written[0], "effect": _effect_of_range(left, more)}
            yield {**words, "instead": ", ".join(f'"{other}"' for other in instead)}, [*left, *more]


def _effect_of_range(left: list[str], more: list[str]) -> str:
    parts = [f"leaves out {_blocks_of(left)}"] * bool(left) + [f"takes {_blocks_of(more)}"] * bool(more)
    return ", and ".join(parts)


def _blocks_of(names: Iterable[str]) -> str:
    """`the blocks 10 to 27 of transformer_blocks`: where modules lie."""
    found: dict[str, list[int]] = {}
    for name in names:
        parts = name.split(".")
        number = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        if number is not None:
            found.setdefault(".".join(parts[:number]), []).append(int(parts[number]))
    return " and ".join(f"{_numbered(numbers)} of {stack}" for stack, numbers in found.items())


def _numbered(blocks: Iterable[int]) -> str:
    runs = number_runs(blocks)
    return f"block {runs[0]}" if runs == [runs[0]] and runs[0].isdecimal() else f"the blocks {', '.join(runs)}"


def _other_blocks(judgement: Judgement, *, use_fnmatch: bool) -> Cases:
    """Patterns without a range, of whose numbers a part is read alone."""
    preset = judgement.preset
    if preset.use_fnmatch is not use_fnmatch:
        return
    wide = {p: _misread(judgement, p)[1] for p in _all_patterns(preset) if not ranges_in(p)}
    wide = {pattern: more for pattern, more in wide.items() if more}
    if wide:
        pattern = next(iter(wide))
        instead = spell_meaning(pattern, use_fnmatch=use_fnmatch)[0]
        words = {"pattern": pattern, "instead": instead, "blocks": _blocks_of(wide[pattern]), "count": len(wide)}
        yield words, [name for more in wide.values() for name in more]


def _shadowed(judgement: Judgement, *, twins: bool) -> Cases:
    hidden = [item for item in judgement.shadowed if item.is_twin is twins]
    in_order = sorted(hidden, key=lambda item: list(judgement.preset.name_map).index(item.pattern))
    if hidden:
        words = {"pattern": in_order[0].pattern, "by": in_order[0].by, "count": len(hidden)}
        yield words, [name for item in hidden for name in item.names]


def _unnamed(judgement: Judgement) -> Cases:
    """What is trained as LyCORIS's own classes count where the config names none."""
    preset = judgement.preset
    if preset.loader.class_key in preset.given or preset.classes:
        return
    more = [module.name for module in _unasked(judgement) if set(module.classes) & set(preset.claiming)]
    more = [name for name in more if not preset.is_excluded(name) and not _is_taken_by_mistake(preset, name)]
    if more:
        yield {**_count(more), "class_key": preset.loader.class_key}, more


def _is_taken_by_mistake(preset: Preset, name: str) -> bool:
    return any(preset.takes(pattern, name) for pattern in preset.name_map)


def _excluded_containers(judgement: Judgement) -> Cases:
    """`exclude_name` takes a container out of the walk over the model, and not what lies in it."""
    taken: dict[tuple[str, str], list[str]] = {}
    for module in _unasked(judgement):
        found = judgement.preset.excluding(module.name)
        if found is not None and found[1] != module.name:
            taken.setdefault(found, []).append(module.name)
    if taken:
        (pattern, path), names = next(iter(taken.items()))
        more = [name for members in taken.values() for name in members]
        yield {"pattern": pattern, "path": path, "count": len(more), "instead": f"{path}.*"}, more


def _keys_of_others(judgement: Judgement) -> Cases:
    preset = judgement.preset
    keys = [key for key in preset.loader.ignored if key in preset.given]
    if keys:
        more = [module.name for module in _unasked(judgement)] if preset.loader.class_key not in preset.given else []
        effect = f", and trains {len(more)} modules that they leave out" if more else ""
        words = {"keys": ", ".join(keys), "program": preset.loader.program, "effect": effect}
        yield {**words, "class_key": preset.loader.class_key, "name_key": preset.loader.name_key}, more


def _convolutions(judgement: Judgement) -> Cases:
    preset = judgement.preset
    if preset.loader is not SIMPLETUNER or preset.given.get("enable_conv", True):
        return
    if judgement.config.get("preset") in LINEAR_PRESETS:
        return
    more = [module.name for module in _unasked(judgement) if len(module.shape) > 2 and module.shape[2] != 1]
    names = ", ".join(f'"{name}"' for name in more[:SHOWN]) + ", ..." * (len(more) > SHOWN)
    effect = (
        f'convolutions are trained ({len(more)}, first {more[0]}); name them in "exclude_name": [{names}]'
        if more
        else "there is no convolution that it would leave out; leave the key out"
    )
    yield {"effect": effect}, more


def _later_presets(judgement: Judgement) -> Cases:
    name = judgement.config.get("preset", "full")
    if judgement.preset.loader is SIMPLETUNER and name not in ("full", "full-lin"):
        yield {"name": name}, [item.module.name for item in judgement.differences if not judgement.preset.given]


def _unreached(judgement: Judgement) -> Cases:
    """Entries of maps, of a loader that takes them for options of what is named elsewhere."""
    preset = judgement.preset
    if preset.loader.maps_select:
        return
    left = [item for item in judgement.differences if item.asked is not None and item.trained is None]
    by = dict.fromkeys(item.asked.by for item in left if item.asked is not None)
    if by:
        words = {"pattern": next(iter(by)), "count": len(by), "name_key": preset.loader.name_key}
        yield words, [item.module.name for item in left]


def _absent_classes(judgement: Judgement) -> Cases:
    preset = judgement.preset
    present = {name for module in judgement.modules for name in module.classes}
    targeted = _class_lists(judgement)
    for key, names in (*targeted.items(), ("module_algo_map", [n for n in preset.class_map])):
        absent = [name for name in names if name not in present and not is_placeholder(name)]
        if key == "module_algo_map":
            absent = [name for name in absent if not any(name in others for others in targeted.values())]
        if absent:
            meant = nearest(absent[0], sorted(present))
            advice = f'; did you mean "{meant}" for {absent[0]}?' if meant else ""
            yield {"names": ", ".join(absent), "key": key, "advice": advice}, ()


def _class_lists(judgement: Judgement) -> dict[str, list[str]]:
    """The lists of classes that the config itself writes out."""
    if judgement.preset.loader is not SIMPLETUNER and "preset" in judgement.config:
        return {}
    keys = (judgement.preset.loader.class_key, judgement.preset.loader.ignored[0])
    return {key: list(judgement.preset.given[key]) for key in keys if key in judgement.preset.given}


def is_placeholder(name: str) -> bool:
    """Whether a name stands for no class, like `__none__`: those of models begin with a letter."""
    return name.startswith("_")


def _twice(judgement: Judgement) -> Cases:
    if judgement.twice:
        names = [module.name for module in judgement.modules if module.name in judgement.twice]
        yield {**_count(names), "classes": ", ".join(judgement.preset.class_map)}, names


def _ignored_options(judgement: Judgement, *, fatal: bool) -> Cases:
    entries: dict[str, list[str]] = {}
    for pattern, options in (*judgement.preset.name_map.items(), *judgement.preset.class_map.items()):
        for key in options:
            if key not in HEEDED and (key in DROPOUTS) is fatal:
                entries.setdefault(key, []).append(pattern)
    for key, patterns in entries.items():
        advice = f'the key is "{MEANT_OPTIONS[key]}"' if key in MEANT_OPTIONS else "LyCORIS has no such option"
        yield {"key": key, "count": len(patterns), "pattern": patterns[0], "advice": advice}, ()


def _matching_nothing(judgement: Judgement) -> Cases:
    preset = judgement.preset
    names = [module.name for module in judgement.modules]
    nothing = [
        pattern
        for pattern in dict.fromkeys((*preset.name_map, *preset.names))
        if not any(pattern == name or preset.matches(pattern, name) for name in names)
    ]
    for pattern in nothing[:SHOWN]:
        better = mend_pattern(pattern, names, preset)
        advice = (
            f'write "{better}"' if better else "names are dotted, relative to the transformer, and of linear layers"
        )
        yield {"pattern": pattern, "advice": advice}, [n for n in names if preset.takes(pattern, n)]


def _matching_nothing_too(judgement: Judgement) -> Cases:
    found = [p for p in judgement.preset.name_map if not any(judgement.preset.matches(p, m.name) for m in judgement.modules)]
    if len(found) > SHOWN:
        yield {"count": len(found) - SHOWN}, ()


def mend_pattern(pattern: str, names: Iterable[str], preset: Preset) -> str | None:
    """A pattern that matches, where this one fails for its prefix or for being a bare container; else None."""
    names = list(names)
    return next((m for m in mended_patterns(pattern) if any(preset.matches(m, name) for name in names)), None)


def changed_by_sorting(judgement: Judgement) -> list[str]:
    """The modules that have another entry's options once the keys are sorted."""
    preset, found = judgement.preset, []
    for module in judgement.modules:
        keys = [preset.first_taking(module.name, order) for order in (preset.name_map, sorted(preset.name_map))]
        if keys[0] != keys[1]:
            one, other = (
                read_options(preset.name_map[key or ""], judgement.config, key or "", module.shape, preset) for key in keys
            )
            if one is None or other is None or not one.same_training(other):
                found.append(module.name)
    return found


def _sorted(judgement: Judgement) -> Cases:
    changed = changed_by_sorting(judgement)
    if changed:
        preset = judgement.preset
        now, then = (preset.first_taking(changed[0], order) for order in (preset.name_map, sorted(preset.name_map)))
        yield {**_count(changed), "now": now, "then": then}, ()


def _empty_list(judgement: Judgement) -> Cases:
    preset = judgement.preset
    if preset.loader is SIMPLETUNER and "target_module" in preset.given and not preset.given["target_module"]:
        yield {}, ()


def _large_factors(judgement: Judgement) -> Cases:
    factors = [asked.factor for asked in judgement.asked.values() if asked.factor is not None]
    if factors and max(factors) > LARGEST_FACTOR:
        yield {"factor": max(factors), "largest": LARGEST_FACTOR}, ()


def _nothing(judgement: Judgement) -> Cases:
    if not judgement.asked:
        yield {}, ()


def _sentences(listed: Callable[[Mapping[str, Any], Preset], Iterator[str]]) -> Callable[[Judgement], Cases]:
    return lambda judgement: (({"sentence": sentence}, ()) for sentence in listed(judgement.config, judgement.preset))


KINDS = (
    FaultKind(
        "class claims",
        "{key} names the class {name}, which claims all its children before their names are looked at: {count} modules "
        "that patterns name are taken by it; write a name that no class has, like "
        f'"{{class_key}}": ["{NO_MODULE}"]',
        _claims,
        decides=False,
    ),
    FaultKind(
        "options leak",
        "the options of the last name that LyCORIS skipped leak into the next module that a class claims, so a block "
        "gets its predecessor's: {first} has factor {trained} instead of {asked} ({count} modules)",
        _leaks,
        decides=False,
    ),
    FaultKind(
        "range of characters",
        'in "{pattern}" {range} is no range of numbers, but stands for one character: the pattern {effect}; write '
        "{instead}",
        _ranges,
    ),
    FaultKind(
        "other blocks",
        'without "use_fnmatch": true patterns are regular expressions, and "{pattern}" takes blocks of other numbers '
        "too ({count} such patterns)",
        lambda judgement: _other_blocks(judgement, use_fnmatch=False),
    ),
    FaultKind(
        "other blocks by a star",
        'in "{pattern}" the star stands for digits too, and takes {blocks} ({count} such patterns); write "{instead}"',
        lambda judgement: _other_blocks(judgement, use_fnmatch=True),
    ),
    FaultKind(
        "shadowed",
        '"{pattern}" is never the first to match, and others say otherwise ({count} such patterns); LyCORIS takes the '
        'first, "{by}", so special patterns must come before general ones',
        lambda judgement: _shadowed(judgement, twins=False),
    ),
    FaultKind(
        "twin",
        '"{by}" and "{pattern}" take the same modules, and say otherwise ({count} such patterns); LyCORIS takes the '
        "first: leave one out",
        lambda judgement: _shadowed(judgement, twins=True),
    ),
    FaultKind(
        "unnamed modules",
        '{count} {modules} that the config does not name are trained too (first {first}), as LyCORIS takes classes of '
        f'its own where "{{class_key}}" is missing; to train what is named alone, write "{{class_key}}": ["{NO_MODULE}"]',
        _unnamed,
    ),
    FaultKind(
        "excluded container",
        '"{pattern}" in exclude_name leaves {path} out, and not the layers in it, which are trained ({count} modules); '
        'write "{instead}"',
        _excluded_containers,
    ),
    FaultKind(
        "keys of another loader",
        "{keys}: {program}'s loader ignores these keys{effect}; it reads {class_key} and {name_key}",
        _keys_of_others,
    ),
    FaultKind(
        "convolutions",
        '"enable_conv": false does nothing, as create_lycoris applies its preset "full" afterwards, which sets it to '
        "true: {effect}",
        _convolutions,
    ),
    FaultKind(
        "preset applied later",
        '"preset": "{name}" is applied after apply_preset, and names classes for sd-scripts alone, which SimpleTuner\'s '
        'loader ignores; name them in apply_preset, as "target_module"',
        _later_presets,
    ),
    FaultKind(
        "maps select nothing",
        '"{pattern}" is not reached, as maps of sd-scripts only give options to what is named elsewhere ({count} such '
        "entries); name it in {name_key} too",
        _unreached,
    ),
    FaultKind(
        "wrapped twice",
        "{count} {modules} would be wrapped twice, and trained twice (first {first}): a class around the whole model is "
        "targeted, and module_algo_map names classes within it ({classes}); target the classes of blocks instead",
        _twice,
    ),
    FaultKind(
        "absent class",
        "the model has no module of the class {names}, which {key} names{advice}",
        _absent_classes,
    ),
    FaultKind("bad multiplier", "{sentence}", _sentences(list_bad_multipliers)),
    FaultKind("unknown key", "{sentence}", _sentences(list_unknown_keys)),
    FaultKind("unknown algorithm", "{sentence}", _sentences(list_bad_algorithms)),
    FaultKind("bad factor", "{sentence}", _sentences(list_bad_factors)),
    FaultKind(
        "failing option",
        '"{key}" in {count} entries (first "{pattern}") makes LyCORIS fail with a TypeError; it belongs to the top level',
        lambda judgement: _ignored_options(judgement, fatal=True),
    ),
    FaultKind(
        "ignored option",
        '"{key}" in {count} entries (first "{pattern}") is ignored, and refused by SimpleTuner\'s editor; {advice}',
        lambda judgement: _ignored_options(judgement, fatal=False),
    ),
    FaultKind("matches nothing", '"{pattern}" matches nothing; {advice}', _matching_nothing),
    FaultKind("and more", "and {count} patterns more match nothing", _matching_nothing_too),
    FaultKind(
        "order of keys",
        "SimpleTuner's editor saves keys sorted, which changes the options of {count} {modules}: {first} is taken by "
        '"{now}" now, and then by "{then}"; write patterns that do not take the same modules',
        _sorted,
        decides=False,
    ),
    FaultKind(
        "empty list",
        "target_module is an empty list, which SimpleTuner's editor deletes; LyCORIS then trains all linear layers: "
        f'write ["{NO_MODULE}"]',
        _empty_list,
        decides=False,
    ),
    FaultKind(
        "large factor",
        "factor {factor} is above {largest}; some layers can't be loaded again with it",
        _large_factors,
        decides=False,
    ),
    FaultKind(
        "nothing",
        "no pattern, name or class of the config is in the model: nothing would be trained",
        _nothing,
        decides=False,
    ),
)
UNEXPLAINED = FaultKind(
    "unexplained",
    "{count} {modules} are trained otherwise than the config says, for a reason that is not known here (first {first})",
    lambda judgement: iter(()),
)


def heeded_options(options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what is ignored or fails; a rank that was given by the top level's key gets the entry's key."""
    kept = {key: value for key, value in options.items() if key in HEEDED}
    if not options.get("full_matrix", config.get("full_matrix", False)):
        for ours, theirs in (("dim", "linear_dim"), ("alpha", "linear_alpha")):
            if theirs in options:
                kept.setdefault(ours, options[theirs])
    return kept
