"""What the author of a LyCORIS config means it to train, read without LyCORIS.

For each module: the entry of `name_algo_map` with exactly its name, else the first whose pattern takes it (`fnmatch`
where `use_fnmatch` is set, otherwise `re.match`), but for a pattern that stands behind a wider one and would never be
heeded; else the top level, where a name in `target_name` matches; else the nearest module around it (or itself) whose
class `target_module` or `module_algo_map` names; else nothing. Without any names, LyCORIS's own classes count; where
something is named, what is not named is not meant. Numbers in patterns are whole numbers of blocks.
"""

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Any

from surgery.errors import InputError
from surgery.export.factors import count_lokr_parameters, shape_of, split_shape
from surgery.export.pattern_meaning import meant_expression
from surgery.pattern_time import refuse_slow_patterns

LISTS = ("target_module", "target_name", "unet_target_module", "unet_target_name", "exclude_name")
PREFIXES = ("transformer.", "unet.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", "module.")
MAPS = ("name_algo_map", "module_algo_map")
LINEAR_PRESETS = ("full-lin", "attn-mlp", "attn-only", "unet-transformer-only", "ia3")  # built in, without convolutions


@functools.lru_cache(maxsize=65_536)  # fnmatch keeps 256, and a config has more
def _of_fnmatch(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@dataclass(frozen=True)
class Loader:
    """A program's way into LyCORIS: which keys of a preset it heeds, and which classes it takes without a preset.

    `maps_select`: whether what the maps name is trained without being named elsewhere too.
    """

    program: str
    class_key: str
    name_key: str
    ignored: tuple[str, ...]
    default_classes: tuple[str, ...]
    maps_select: bool


SIMPLETUNER = Loader(
    *("SimpleTuner", "target_module", "target_name"),
    ignored=("unet_target_module", "unet_target_name", "text_encoder_target_module", "text_encoder_target_name"),
    default_classes=("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm"),
    maps_select=True,
)
SD_SCRIPTS = Loader(
    *("sd-scripts", "unet_target_module", "unet_target_name"),
    ignored=("target_module", "target_name", "lora_prefix"),
    default_classes=(
        *("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D", "HunYuanDiTBlock"),
        *("DoubleStreamBlock", "SingleStreamBlock", "SingleDiTBlock", "MMDoubleStreamBlock", "MMSingleStreamBlock"),
        *("WanAttentionBlock", "HunyuanVideoTransformerBlock", "HunyuanVideoSingleTransformerBlock"),
        *("JointTransformerBlock", "FinalLayer", "QwenImageTransformerBlock", "LensTransformerBlock"),
        *("Ideogram4TransformerBlock", "ZImageTransformerBlock", "AceStepEncoderLayer", "AceStepDiTLayer"),
        *("TextFusionBlock", "Block", "PatchEmbed", "TimestepEmbedding"),
    ),
    maps_select=False,
)
SD_SCRIPTS_MODULE = "lycoris.kohya"  # what `network_module` names in a config of sd-scripts


def loader_of(config: Mapping[str, Any]) -> Loader:
    """Who reads a config: it is of sd-scripts where it names the module of LyCORIS that sd-scripts loads."""
    return SD_SCRIPTS if config.get("network_module") == SD_SCRIPTS_MODULE else SIMPLETUNER


@dataclass(frozen=True)
class ModelModule:
    """A module that LyCORIS can train: name, shape (out, in, *kernel), and the classes around it, outermost first."""

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class AskedModule:
    """What a config asks for one module; `by` is the pattern or class that says so.

    `extra` counts the parameters beside the factors of the weight: a scalar, and a magnitude for each output or input.
    """

    algo: str
    factor: int | None
    full_matrix: bool
    dim: int
    by: str
    by_class: bool = False
    extra: int = 0

    def split(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """The shape of w1; None of what is no LoKr."""
        return None if self.factor is None else split_shape(shape, self.factor)

    def is_full(self, shape: Sequence[int]) -> bool:
        """Whether it is a LoKr without a low-rank part: by request, or because its rank is so large."""
        split = self.split(shape)
        if split is None:
            return False
        return self.full_matrix or self.dim >= max(shape[0] // split[0], shape[1] // split[1]) / 2

    def num_parameters(self, shape: Sequence[int]) -> int | None:
        """Of a full LoKr; None of others."""
        if self.factor is None or not self.is_full(shape):
            return None
        return count_lokr_parameters(shape, self.factor) + self.extra

    def same_training(self, other: "AskedModule") -> bool:
        """Whether two entries ask for the same."""
        mine, others = ((one.algo, one.factor, one.full_matrix, one.dim) for one in (self, other))
        return mine == others


@dataclass(frozen=True)
class Preset:
    """The part of a config that says which modules are trained: what its author means, and what its loader takes.

    `classes` are those that are meant, `claiming` those whose children the loader trains whatever their names.
    """

    classes: tuple[str, ...]
    claiming: tuple[str, ...]
    names: tuple[str, ...]
    excluded: tuple[str, ...]
    name_map: Mapping[str, Mapping[str, Any]]
    class_map: Mapping[str, Mapping[str, Any]]
    use_fnmatch: bool
    with_convolutions: bool
    given: Mapping[str, Any]
    loader: Loader

    def matches(self, pattern: str, name: str) -> bool:
        """Whether a pattern is meant to take a name."""
        return meant_expression(pattern, use_fnmatch=self.use_fnmatch).match(name) is not None

    def takes(self, pattern: str, name: str) -> bool:
        """Whether LyCORIS lets a pattern take a name; it fails on what is no regular expression, which takes none."""
        if self.use_fnmatch:
            return _of_fnmatch(pattern).match(name) is not None
        with contextlib.suppress(re.error):
            return re.match(pattern, name) is not None
        return False

    def refuse_slow(self, names: Sequence[str]) -> None:
        """Raise InputError where a pattern, or one that it may be mended to, takes too long to match these names."""
        if self.use_fnmatch:  # which does not go back
            return
        patterns = (*self.name_map, *self.names, *self.excluded)
        refuse_slow_patterns((mended for pattern in patterns for mended in mended_patterns(pattern)), names)

    def pattern_of(self, name: str) -> str | None:
        """The key of `name_algo_map` that is the first to be meant for a name."""
        if name in self.name_map:
            return name
        return next((pattern for pattern in self.name_map if self.matches(pattern, name)), None)

    def first_taking(self, name: str, order: Iterable[str] | None = None) -> str | None:
        """The key of `name_algo_map` whose entry LyCORIS finds for a name, in the given order of keys or another."""
        if name in self.name_map:
            return name
        return next((pattern for pattern in order or self.name_map if self.takes(pattern, name)), None)

    def excluding(self, name: str) -> tuple[str, str] | None:
        """The pattern of `exclude_name` that is meant to leave a module out, and the module or container it takes."""
        parts = name.split(".")
        paths = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)] if self.excluded else []
        taken = ((pattern, path) for path in paths for pattern in self.excluded if self._is(pattern, path))
        return next(taken, None)

    def is_excluded(self, name: str) -> bool:
        """Whether a module is meant to be left out: by its name, or that of a container that it lies in."""
        return self.excluding(name) is not None

    def _is(self, pattern: str, name: str) -> bool:
        return pattern == name or self.matches(pattern, name)


def mended_patterns(pattern: str) -> Iterator[str]:
    """A pattern, and those without a prefix or with an ending that people forget: the ones that may be meant."""
    for start in (pattern, *(pattern.removeprefix(prefix) for prefix in PREFIXES if pattern.startswith(prefix))):
        yield from (start, f"{start}.*")


def read_preset(config: Mapping[str, Any]) -> Preset:
    """The preset of a config; raises InputError where its parts are of the wrong kind."""
    given = config.get("apply_preset")
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise InputError("apply_preset is no JSON object")
    for key in LISTS:
        value = given.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f'apply_preset.{key} is no list of names; write ["..."]')
    for key in MAPS:
        value = given.get(key, {})
        if not isinstance(value, Mapping) or not all(isinstance(item, Mapping) for item in value.values()):
            raise InputError(f'apply_preset.{key} does not map names to options; write {{"...": {{"factor": 4}}}}')
    loader, class_map = loader_of(config), given.get("module_algo_map", {})
    names = _first_given(given, loader.name_key, *loader.ignored[1:2])
    targeted = given.get(loader.class_key, loader.default_classes)
    return Preset(
        classes=_meant_classes(given, loader, is_naming=bool(given.get("name_algo_map") or class_map or names)),
        claiming=(*targeted, *(name for name in class_map if loader.maps_select and name not in targeted)),
        names=tuple(names or ()),
        excluded=tuple(given.get("exclude_name", ())),
        name_map=given.get("name_algo_map", {}),
        class_map=class_map,
        use_fnmatch=bool(given.get("use_fnmatch", False)),
        with_convolutions=bool(given.get("enable_conv", True)) and config.get("preset") not in LINEAR_PRESETS,
        given=given,
        loader=loader,
    )


def _first_given(given: Mapping[str, Any], *keys: str) -> Sequence[str] | None:
    """What the first key says that is there: the one that the loader heeds, or that of another loader."""
    return next((given[key] for key in keys if key in given), None)


def _meant_classes(given: Mapping[str, Any], loader: Loader, *, is_naming: bool) -> tuple[str, ...]:
    classes = _first_given(given, loader.class_key, *loader.ignored[:1])
    if classes is not None:
        return tuple(classes)
    return () if is_naming else loader.default_classes


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


def read_asked(config: Mapping[str, Any], modules: Sequence[ModelModule]) -> dict[str, AskedModule]:
    """By name, what the config asks for each module that it asks anything for."""
    preset = read_preset(config)
    hidden = [item.pattern for item in list_shadowed(config, preset, modules) if not item.is_twin]
    found = {}
    for module in modules:
        asked = _asked_for(module, preset, config, hidden)
        if asked is not None:
            found[module.name] = asked
    return found


def _asked_for(
    module: ModelModule, preset: Preset, config: Mapping[str, Any], hidden: Sequence[str]
) -> AskedModule | None:
    if preset.is_excluded(module.name):
        return None
    own = module.name in preset.name_map
    special = None if own else next((pattern for pattern in hidden if preset.matches(pattern, module.name)), None)
    pattern = special or preset.pattern_of(module.name)
    if pattern is not None:
        return read_options(preset.name_map[pattern], config, pattern, module.shape, preset)
    name = next((name for name in preset.names if name == module.name or preset.matches(name, module.name)), None)
    if name is not None:
        return read_options({}, config, name, module.shape, preset)
    around = next((name for name in reversed(module.classes) if name in preset.class_map), None)
    if around is None:
        around = next((name for name in reversed(module.classes) if name in preset.classes), None)
    if around is None:
        return None
    return read_options(preset.class_map.get(around, {}), config, around, module.shape, preset, by_class=True)


@dataclass(frozen=True)
class Shadowed:
    """A pattern that is never heeded, as `by`, which stands before it, takes all of its modules and says otherwise."""

    pattern: str
    by: str
    names: tuple[str, ...]
    is_twin: bool


def list_shadowed(config: Mapping[str, Any], preset: Preset, modules: Iterable[ModelModule]) -> list[Shadowed]:
    """The shadowed patterns, the narrowest first: one that stands behind a wider one, or one as wide, is meant to win.

    A pattern for what is left behind special ones takes more than they do, and is no such case.
    """
    shapes = {module.name: module.shape for module in modules}
    taken = {pattern: [name for name in shapes if preset.matches(pattern, name)] for pattern in preset.name_map}
    first = {name: preset.pattern_of(name) for name in shapes}
    heeded = set(first.values())
    found = []
    for pattern, names in taken.items():
        if pattern in heeded:
            continue
        for name in names:
            by = first[name] or ""
            mine, others = (
                read_options(preset.name_map[key], config, key, shapes[name], preset) for key in (pattern, by)
            )
            is_twin, is_wider = taken[by] == names, not set(taken[by]) <= set(names)
            if (is_twin or is_wider) and not _ask_for_the_same(mine, others):
                found.append(Shadowed(pattern, by, tuple(names), is_twin))
                break
    return sorted(found, key=lambda item: len(item.names))


def _ask_for_the_same(one: AskedModule | None, other: AskedModule | None) -> bool:
    return one is other if one is None or other is None else one.same_training(other)


def read_options(
    own: Mapping[str, Any],
    config: Mapping[str, Any],
    by: str,
    shape: Sequence[int],
    preset: Preset,
    *,
    by_class: bool = False,
) -> AskedModule | None:
    """An entry over the top level, for a weight; None of a convolution that is left out by `enable_conv: false`.

    `linear_dim` in an entry means `dim` to its author.
    """
    algo = str(own.get("algo") or config.get("algo") or "lora").lower()
    is_convolution = len(shape) > 2 and shape[2] != 1
    dim = own.get("dim") or own.get("linear_dim")
    if is_convolution and not dim and not preset.with_convolutions:
        return None
    try:
        rank = int(dim or (is_convolution and config.get("conv_dim")) or config.get("linear_dim", 4))
        factor = int(own.get("factor", config.get("factor", -1)))
    except (TypeError, ValueError):
        raise InputError(f'the entry "{by}" has a factor or dim that is no number') from None
    full_matrix = _flag(own, config, "full_matrix")
    extra = int(_flag(own, config, "use_scalar"))
    if _flag(own, {"weight_decompose": config.get("dora_wd", False)}, "weight_decompose"):
        per_output = _flag(own, {"wd_on_out": config.get("wd_on_output", True)}, "wd_on_out")
        extra += shape[0] if per_output else shape[1]
    return AskedModule(algo, factor if algo == "lokr" else None, full_matrix, rank, by, by_class, extra)


def _flag(own: Mapping[str, Any], config: Mapping[str, Any], key: str) -> bool:
    """A switch of an entry, or else of the top level, where LyCORIS takes all but `false` for a yes."""
    return bool(own[key]) if key in own else str(config.get(key, False)).lower() != "false"
