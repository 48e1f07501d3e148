"""All kinds of faults of a LyCORIS config, as data: what tells one, what it says, and whether it alone makes it unfit.

A kind is added to KINDS and nowhere else, with the function that finds its cases: for each the words that its message
takes, and the modules whose difference it explains.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from surgery.export import class_faults, pattern_faults
from surgery.export.config_values import (
    DROPOUTS,
    HEEDED,
    MEANT_OPTIONS,
    list_bad_algorithms,
    list_bad_factors,
    list_bad_multipliers,
    list_unknown_keys,
)
from surgery.export.factors import LARGEST_FACTOR
from surgery.export.judgement import Cases, Fault, Judgement, count_words
from surgery.export.lokr_config import NO_MODULE
from surgery.export.read_config import Preset


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
        yield Fault("unexplained", UNEXPLAINED.format(**count_words(left)), decides=True, modules=frozenset(left))


def list_faults(judgement: Judgement) -> list[str]:
    """What is wrong, a sentence a fault."""
    return [fault.text for fault in judgement.faults]


def find_ignored_options(judgement: Judgement, *, fatal: bool) -> Cases:
    """Options in entries that LyCORIS drops, or (`fatal`) fails on."""
    entries: dict[str, list[str]] = {}
    for pattern, options in (*judgement.preset.name_map.items(), *judgement.preset.class_map.items()):
        for key in options:
            if key not in HEEDED and (key in DROPOUTS) is fatal:
                entries.setdefault(key, []).append(pattern)
    for key, patterns in entries.items():
        advice = f'the key is "{MEANT_OPTIONS[key]}"' if key in MEANT_OPTIONS else "LyCORIS has no such option"
        yield {"key": key, "count": len(patterns), "pattern": patterns[0], "advice": advice}, ()


def find_large_factors(judgement: Judgement) -> Cases:
    """Factors of which some layers can't be loaded again."""
    factors = [asked.factor for asked in judgement.asked.values() if asked.factor is not None]
    if factors and max(factors) > LARGEST_FACTOR:
        yield {"factor": max(factors), "largest": LARGEST_FACTOR}, ()


def find_nothing(judgement: Judgement) -> Cases:
    """A config that asks for no module at all."""
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
        class_faults.find_claims,
        decides=False,
    ),
    FaultKind(
        "options leak",
        "the options of the last name that LyCORIS skipped leak into the next module that a class claims, so a block "
        "gets its predecessor's: {first} has factor {trained} instead of {asked} ({count} modules)",
        class_faults.find_leaks,
        decides=False,
    ),
    FaultKind(
        "range of characters",
        'in "{pattern}" {range} is no range of numbers, but stands for one character: the pattern {effect}; write '
        "{instead}",
        pattern_faults.find_ranges,
    ),
    FaultKind(
        "other blocks",
        'without "use_fnmatch": true patterns are regular expressions, and "{pattern}" takes blocks of other numbers '
        "too ({count} such patterns)",
        lambda judgement: pattern_faults.find_other_blocks(judgement, use_fnmatch=False),
    ),
    FaultKind(
        "other blocks by a star",
        'in "{pattern}" the star stands for digits too, and takes {blocks} ({count} such patterns); write "{instead}"',
        lambda judgement: pattern_faults.find_other_blocks(judgement, use_fnmatch=True),
    ),
    FaultKind(
        "shadowed",
        '"{pattern}" is never the first to match, and others say otherwise ({count} such patterns); LyCORIS takes the '
        'first, "{by}", so special patterns must come before general ones',
        lambda judgement: pattern_faults.find_shadowed(judgement, twins=False),
    ),
    FaultKind(
        "twin",
        '"{by}" and "{pattern}" take the same modules, and say otherwise ({count} such patterns); LyCORIS takes the '
        "first: leave one out",
        lambda judgement: pattern_faults.find_shadowed(judgement, twins=True),
    ),
    FaultKind(
        "unnamed modules",
        "{count} {modules} that the config does not name are trained too (first {first}), as LyCORIS takes classes of "
        f'its own where "{{class_key}}" is missing; to train what is named alone, write "{{class_key}}": '
        f'["{NO_MODULE}"]',
        class_faults.find_unnamed,
    ),
    FaultKind(
        "excluded container",
        '"{pattern}" in exclude_name leaves {path} out, and not the layers in it, which are trained ({count} modules); '
        'write "{instead}"',
        pattern_faults.find_excluded_containers,
    ),
    FaultKind(
        "keys of another loader",
        "{keys}: {program}'s loader ignores these keys{effect}; it reads {class_key} and {name_key}",
        class_faults.find_keys_of_others,
    ),
    FaultKind(
        "convolutions",
        '"enable_conv": false does nothing, as create_lycoris applies its preset "full" afterwards, which sets it to '
        "true: {effect}",
        class_faults.find_convolutions,
    ),
    FaultKind(
        "preset applied later",
        '"preset": "{name}" is applied after apply_preset, and names classes for sd-scripts alone, which '
        "SimpleTuner's loader ignores; "
        'name them in apply_preset, as "target_module"',
        class_faults.find_later_presets,
    ),
    FaultKind(
        "maps select nothing",
        '"{pattern}" is not reached, as maps of sd-scripts only give options to what is named elsewhere ({count} such '
        "entries); name it in {name_key} too",
        pattern_faults.find_unreached,
    ),
    FaultKind(
        "wrapped twice",
        "{count} {modules} would be wrapped twice, and trained twice (first {first}): a class around the whole model "
        "is targeted, and module_algo_map names classes within it ({classes}); target the classes of blocks instead",
        class_faults.find_twice,
    ),
    FaultKind(
        "absent class",
        "the model has no module of the class {names}, which {key} names{advice}",
        class_faults.find_absent_classes,
    ),
    FaultKind("bad multiplier", "{sentence}", _sentences(list_bad_multipliers)),
    FaultKind("unknown key", "{sentence}", _sentences(list_unknown_keys)),
    FaultKind("unknown algorithm", "{sentence}", _sentences(list_bad_algorithms)),
    FaultKind("bad factor", "{sentence}", _sentences(list_bad_factors)),
    FaultKind(
        "failing option",
        '"{key}" in {count} entries (first "{pattern}") makes LyCORIS fail with a TypeError; it belongs to the top '
        "level",
        lambda judgement: find_ignored_options(judgement, fatal=True),
    ),
    FaultKind(
        "ignored option",
        '"{key}" in {count} entries (first "{pattern}") is ignored, and refused by SimpleTuner\'s editor; {advice}',
        lambda judgement: find_ignored_options(judgement, fatal=False),
    ),
    FaultKind("matches nothing", '"{pattern}" matches nothing; {advice}', pattern_faults.find_matching_nothing),
    FaultKind("and more", "and {count} patterns more match nothing", pattern_faults.find_more_matching_nothing),
    FaultKind(
        "order of keys",
        "SimpleTuner's editor saves keys sorted, which changes the options of {count} {modules}: {first} is taken by "
        '"{now}" now, and then by "{then}"; write patterns that do not take the same modules',
        pattern_faults.find_changed_by_sorting,
        decides=False,
    ),
    FaultKind(
        "empty list",
        "target_module is an empty list, which SimpleTuner's editor deletes; LyCORIS then trains all linear layers: "
        f'write ["{NO_MODULE}"]',
        class_faults.find_empty_list,
        decides=False,
    ),
    FaultKind(
        "large factor",
        "factor {factor} is above {largest}; some layers can't be loaded again with it",
        find_large_factors,
        decides=False,
    ),
    FaultKind(
        "nothing",
        "no pattern, name or class of the config is in the model: nothing would be trained",
        find_nothing,
        decides=False,
    ),
)
UNEXPLAINED = (
    "{count} {modules} are trained otherwise than the config says, for a reason that is not known here (first {first})"
)
