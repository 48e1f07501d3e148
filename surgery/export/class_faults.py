"""What is wrong with the classes that a LyCORIS config names, and with keys that its loader ignores.

Cases of the kinds that `config_faults` lists.
"""

from collections.abc import Iterable
from typing import Any

from surgery.export.judgement import Cases, Judgement, count_words, unasked_modules
from surgery.export.read_config import LINEAR_PRESETS, SIMPLETUNER, ModelModule, Preset
from surgery.spec.nearest import nearest

SHOWN = 3


def find_claims(judgement: Judgement) -> Cases:
    """Classes that take modules away from patterns."""
    preset = judgement.preset
    for name, taken in claimed_modules(judgement.modules, preset).items():
        key = "module_algo_map" if name in preset.class_map and name not in preset.classes else preset.loader.class_key
        yield {"key": key, "class_key": preset.loader.class_key, "name": name, "count": len(taken)}, taken


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


def find_leaks(judgement: Judgement) -> Cases:
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


def find_unnamed(judgement: Judgement) -> Cases:
    """What is trained as LyCORIS's own classes count where the config names none."""
    preset = judgement.preset
    if preset.loader.class_key in preset.given or preset.classes:
        return
    more = [module.name for module in unasked_modules(judgement) if set(module.classes) & set(preset.claiming)]
    more = [name for name in more if not preset.is_excluded(name) and not _is_taken_by_mistake(preset, name)]
    if more:
        yield {**count_words(more), "class_key": preset.loader.class_key}, more


def _is_taken_by_mistake(preset: Preset, name: str) -> bool:
    return any(preset.takes(pattern, name) for pattern in preset.name_map)


def find_keys_of_others(judgement: Judgement) -> Cases:
    """Keys of a preset that another program reads."""
    preset = judgement.preset
    keys = [key for key in preset.loader.ignored if key in preset.given]
    if keys:
        more = (
            [module.name for module in unasked_modules(judgement)]
            if preset.loader.class_key not in preset.given
            else []
        )
        effect = f", and trains {len(more)} modules that they leave out" if more else ""
        words = {"keys": ", ".join(keys), "program": preset.loader.program, "effect": effect}
        yield {**words, "class_key": preset.loader.class_key, "name_key": preset.loader.name_key}, more


def find_convolutions(judgement: Judgement) -> Cases:
    """A switch that is put back."""
    preset = judgement.preset
    if preset.loader is not SIMPLETUNER or preset.given.get("enable_conv", True):
        return
    if judgement.config.get("preset") in LINEAR_PRESETS:
        return
    more = [module.name for module in unasked_modules(judgement) if len(module.shape) > 2 and module.shape[2] != 1]
    names = ", ".join(f'"{name}"' for name in more[:SHOWN]) + ", ..." * (len(more) > SHOWN)
    effect = (
        f'convolutions are trained ({len(more)}, first {more[0]}); name them in "exclude_name": [{names}]'
        if more
        else "there is no convolution that it would leave out; leave the key out"
    )
    yield {"effect": effect}, more


def find_later_presets(judgement: Judgement) -> Cases:
    """A preset of LyCORIS that is applied over the config's own."""
    name = judgement.config.get("preset", "full")
    if judgement.preset.loader is SIMPLETUNER and name not in ("full", "full-lin"):
        yield {"name": name}, [item.module.name for item in judgement.differences if not judgement.preset.given]


def find_absent_classes(judgement: Judgement) -> Cases:
    """Classes that the model lacks, by the key that names them."""
    preset = judgement.preset
    present = {name for module in judgement.modules for name in module.classes}
    targeted = _class_lists(judgement)
    for key, names in (*targeted.items(), ("module_algo_map", list(preset.class_map))):
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


def find_twice(judgement: Judgement) -> Cases:
    """Modules that are wrapped more than once."""
    if judgement.twice:
        names = [module.name for module in judgement.modules if module.name in judgement.twice]
        yield {**count_words(names), "classes": ", ".join(judgement.preset.class_map)}, names


def find_empty_list(judgement: Judgement) -> Cases:
    """A list that SimpleTuner's editor drops."""
    preset = judgement.preset
    if preset.loader is SIMPLETUNER and "target_module" in preset.given and not preset.given["target_module"]:
        yield {}, ()
