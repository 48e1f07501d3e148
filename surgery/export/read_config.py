"""What the patterns of a LyCORIS config ask for, read on their own: no LyCORIS, only its documented rules.

For each module: the entry of `name_algo_map` with exactly its name, else the first whose pattern matches (`fnmatch`
where `use_fnmatch` is set, otherwise `re.match`); else the top level, where a name in `target_name` matches; else the
nearest module around it (or itself) whose class `target_module` or `module_algo_map` names; else nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from surgery.errors import InputError
from surgery.export.factors import shape_of, split_shape
from surgery.pattern_time import refuse_slow_patterns

DEFAULT_CLASSES = ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm")  # of LyCORIS without a preset
LISTS = ("target_module", "target_name", "exclude_name")
PREFIXES = ("transformer.", "unet.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "module.")
MAPS = ("name_algo_map", "module_algo_map")


@dataclass(frozen=True)
class ModelModule:
    """A module that LyCORIS can train: name, shape (out, in, *kernel), and the classes around it, outermost first."""

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class AskedModule:
    """What a config asks for one module; `by` is the pattern or class that says so."""

    algo: str
    factor: int | None
    full_matrix: bool
    dim: int
    by: str
    by_class: bool = False

    def split(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """The shape of w1; None of what is no LoKr."""
        return None if self.factor is None else split_shape(shape, self.factor)


@dataclass(frozen=True)
class Preset:
    """The part of a config that says which modules are trained, with LyCORIS's defaults."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    excluded: tuple[str, ...]
    name_map: Mapping[str, Mapping[str, Any]]
    class_map: Mapping[str, Mapping[str, Any]]
    use_fnmatch: bool

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a pattern takes a name."""
        if self.use_fnmatch:
            return fnmatch(name, pattern)
        try:
            return re.match(pattern, name) is not None
        except re.error as error:
            raise InputError(f'the pattern "{pattern}" is no regular expression: {error}') from None

    def refuse_slow(self, names: Sequence[str]) -> None:
        """Raise InputError where a pattern, or one that it may be mended to, takes too long to match these names."""
        if self.use_fnmatch:  # which does not go back
            return
        patterns = (*self.name_map, *self.names, *self.excluded)
        refuse_slow_patterns((mended for pattern in patterns for mended in mended_patterns(pattern)), names)

    def pattern_of(self, name: str) -> str | None:
        """The key of `name_algo_map` that decides for a name."""
        if name in self.name_map:
            return name
        return next((pattern for pattern in self.name_map if self.matches(pattern, name)), None)


def mended_patterns(pattern: str) -> Iterator[str]:
    """A pattern, and those without a prefix or with an ending that people forget: the ones that may be meant."""
    for start in (pattern, *(pattern.removeprefix(prefix) for prefix in PREFIXES if pattern.startswith(prefix))):
        yield from (start, f"{start}.*")


def read_preset(config: Mapping[str, Any]) -> Preset:
    """The preset of a config; raises InputError where its parts are of the wrong kind."""
    preset = config.get("apply_preset")
    preset = {} if preset is None else preset
    if not isinstance(preset, Mapping):
        raise InputError("apply_preset is no JSON object")
    for key in LISTS:
        value = preset.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f'apply_preset.{key} is no list of names; write ["..."]')
    for key in MAPS:
        value = preset.get(key, {})
        if not isinstance(value, Mapping) or not all(isinstance(item, Mapping) for item in value.values()):
            raise InputError(f'apply_preset.{key} does not map names to options; write {{"...": {{"factor": 4}}}}')
    return Preset(
        classes=tuple(preset.get("target_module", DEFAULT_CLASSES)),
        names=tuple(preset.get("target_name", ())),
        excluded=tuple(preset.get("exclude_name", ())),
        name_map=preset.get("name_algo_map", {}),
        class_map=preset.get("module_algo_map", {}),
        use_fnmatch=bool(preset.get("use_fnmatch", False)),
    )


def list_model_modules(model: Any) -> tuple[ModelModule, ...]:
    """All modules of a model that LyCORIS can train."""
    classes: dict[str, tuple[str, ...]] = {}
    found = []
    for name, module in model.named_modules():
        around = classes.get(name.rpartition(".")[0], ()) if name else ()
        classes[name] = (*around, type(module).__name__)
        shape = shape_of(module)
        if shape is not None:
            found.append(ModelModule(name, shape, classes[name]))
    return tuple(found)


def read_asked(config: Mapping[str, Any], modules: Iterable[ModelModule]) -> dict[str, AskedModule]:
    """By name, what the config asks for each module that it asks anything for."""
    preset = read_preset(config)
    found = {}
    for module in modules:
        asked = _asked_for(module, preset, config)
        if asked is not None:
            found[module.name] = asked
    return found


def _asked_for(module: ModelModule, preset: Preset, config: Mapping[str, Any]) -> AskedModule | None:
    if any(pattern == module.name or preset.matches(pattern, module.name) for pattern in preset.excluded):
        return None
    pattern = preset.pattern_of(module.name)
    if pattern is not None:
        return _options(preset.name_map[pattern], config, pattern)
    name = next((name for name in preset.names if name == module.name or preset.matches(name, module.name)), None)
    if name is not None:
        return _options({}, config, name)
    for around in reversed(module.classes):
        if around in preset.class_map:
            return _options(preset.class_map[around], config, around, by_class=True)
    around = next((name for name in reversed(module.classes) if name in preset.classes), "")
    return _options({}, config, around, by_class=True) if around else None


def _options(own: Mapping[str, Any], config: Mapping[str, Any], by: str, *, by_class: bool = False) -> AskedModule:
    """An entry over the top level. `linear_dim` in an entry means `dim` to its author."""
    algo = str(own.get("algo") or config.get("algo") or "lora").lower()
    try:
        dim = int(own.get("dim") or own.get("linear_dim") or config.get("linear_dim", 4))
        factor = int(own.get("factor", config.get("factor", -1)))
    except (TypeError, ValueError):
        raise InputError(f'the entry "{by}" has a factor or dim that is no number') from None
    full_matrix = bool(own.get("full_matrix", config.get("full_matrix", False)))
    return AskedModule(algo, factor if algo == "lokr" else None, full_matrix, dim, by, by_class)
