"""What is wrong with the patterns of a LyCORIS config: cases of the kinds that `config_faults` lists."""

from collections.abc import Iterable

from surgery.export.judgement import Cases, Judgement, count_words, unasked_modules
from surgery.export.pattern_meaning import number_runs, ranges_in, spell_meaning
from surgery.export.read_config import Preset, mended_patterns, read_options

SHOWN = 3


def find_ranges(judgement: Judgement) -> Cases:
    """Ranges of numbers that stand for single characters, where that takes other modules."""
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


def find_other_blocks(judgement: Judgement, *, use_fnmatch: bool) -> Cases:
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


def find_shadowed(judgement: Judgement, *, twins: bool) -> Cases:
    """Patterns that are never heeded; `twins` take the same modules as another."""
    hidden = [item for item in judgement.shadowed if item.is_twin is twins]
    in_order = sorted(hidden, key=lambda item: list(judgement.preset.name_map).index(item.pattern))
    if hidden:
        words = {"pattern": in_order[0].pattern, "by": in_order[0].by, "count": len(hidden)}
        yield words, [name for item in hidden for name in item.names]


def find_excluded_containers(judgement: Judgement) -> Cases:
    """`exclude_name` takes a container out of the walk over the model, and not what lies in it."""
    taken: dict[tuple[str, str], list[str]] = {}
    for module in unasked_modules(judgement):
        found = judgement.preset.excluding(module.name)
        if found is not None and found[1] != module.name:
            taken.setdefault(found, []).append(module.name)
    if taken:
        pattern, path = next(iter(taken))
        more = [name for members in taken.values() for name in members]
        yield {"pattern": pattern, "path": path, "count": len(more), "instead": f"{path}.*"}, more


def find_unreached(judgement: Judgement) -> Cases:
    """Entries of maps, of a loader that takes them for options of what is named elsewhere."""
    preset = judgement.preset
    if preset.loader.maps_select:
        return
    left = [item for item in judgement.differences if item.asked is not None and item.trained is None]
    by = dict.fromkeys(item.asked.by for item in left if item.asked is not None)
    if by:
        words = {"pattern": next(iter(by)), "count": len(by), "name_key": preset.loader.name_key}
        yield words, [item.module.name for item in left]


def find_matching_nothing(judgement: Judgement) -> Cases:
    """Patterns of names that no module of the model has, the first few."""
    preset, names = judgement.preset, [module.name for module in judgement.modules]
    for pattern in _patterns_of_nothing(judgement)[:SHOWN]:
        better = mend_pattern(pattern, names, preset)
        advice = (
            f'write "{better}"' if better else "names are dotted, relative to the transformer, and of linear layers"
        )
        yield {"pattern": pattern, "advice": advice}, [name for name in names if preset.takes(pattern, name)]


def find_more_matching_nothing(judgement: Judgement) -> Cases:
    """How many more there are."""
    found = _patterns_of_nothing(judgement)
    if len(found) > SHOWN:
        yield {"count": len(found) - SHOWN}, ()


def _patterns_of_nothing(judgement: Judgement) -> list[str]:
    preset = judgement.preset
    names = [module.name for module in judgement.modules]
    return [
        pattern
        for pattern in dict.fromkeys((*preset.name_map, *preset.names))
        if not any(pattern == name or preset.matches(pattern, name) for name in names)
    ]


def mend_pattern(pattern: str, names: Iterable[str], preset: Preset) -> str | None:
    """A pattern that matches, where this one fails for its prefix or for being a bare container; else None."""
    names = list(names)
    return next((m for m in mended_patterns(pattern) if any(preset.matches(m, name) for name in names)), None)


def find_changed_by_sorting(judgement: Judgement) -> Cases:
    """Modules whose options depend on the order of keys."""
    changed = changed_by_sorting(judgement)
    if changed:
        preset = judgement.preset
        now, then = (preset.first_taking(changed[0], order) for order in (preset.name_map, sorted(preset.name_map)))
        yield {**count_words(changed), "now": now, "then": then}, ()


def changed_by_sorting(judgement: Judgement) -> list[str]:
    """The modules that have another entry's options once the keys are sorted."""
    preset, found = judgement.preset, []
    for module in judgement.modules:
        keys = [preset.first_taking(module.name, order) for order in (preset.name_map, sorted(preset.name_map))]
        if keys[0] != keys[1]:
            one, other = (
                read_options(preset.name_map[key or ""], judgement.config, key or "", module.shape, preset)
                for key in keys
            )
            if one is None or other is None or not one.same_training(other):
                found.append(module.name)
    return found
