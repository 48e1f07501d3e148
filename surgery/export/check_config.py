"""A LyCORIS config and a model -> what it trains beside what its patterns ask for, and why the two differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import read_json
from surgery.errors import InputError
from surgery.export.config_values import list_value_faults, refuse_ambiguous
from surgery.export.factors import count_lokr_parameters
from surgery.export.lycoris_apply import Trained, apply_config, lycoris_version
from surgery.export.read_config import AskedModule, ModelModule, list_model_modules, read_asked, read_preset


@dataclass(frozen=True)
class Difference:
    """A module that is not trained as asked; None where it was not asked for, or is not trained."""

    module: ModelModule
    asked: AskedModule | None
    trained: Trained | None


@dataclass(frozen=True)
class Judgement:
    """`failure` is what LyCORIS says where it can't build the network; then nothing is trained.

    `value_faults` are values that say something else than LyCORIS makes of them, even where both readings agree.
    """

    config: Mapping[str, Any]
    modules: tuple[ModelModule, ...]
    asked: Mapping[str, AskedModule]
    trained: Mapping[str, Trained]
    differences: tuple[Difference, ...]
    failure: str | None
    lycoris: str
    value_faults: tuple[str, ...] = ()

    @property
    def num_as_asked(self) -> int:
        """How many of the modules that were asked for are trained as asked."""
        return len(self.asked) - sum(item.asked is not None for item in self.differences)

    @property
    def as_asked(self) -> bool:
        """Whether the config trains what it says, and anything at all."""
        return not (self.differences or self.value_faults or self.failure) and bool(self.asked)

    @property
    def num_parameters(self) -> int:
        """That are trained."""
        return sum(module.num_parameters for module in self.trained.values())

    @property
    def num_parameters_asked(self) -> int | None:
        """That would be trained as asked; None where not all is full-matrix LoKr."""
        shapes = {module.name: module.shape for module in self.modules}
        total = 0
        for name, asked in self.asked.items():
            if asked.factor is None or not _is_full(asked, shapes[name]):
                return None
            total += count_lokr_parameters(shapes[name], asked.factor)
        return total


def read_config(path: Path) -> dict[str, Any]:
    """A LyCORIS config; raises InputError where the file is no JSON object, or one of another kind."""
    config = read_json(path)
    refuse_ambiguous(path)
    if "algo" not in config and "apply_preset" not in config:
        named = config.get("lycoris_config")
        advice = f"; it names one: {named}" if isinstance(named, str) else ""
        raise InputError(f'{path} is no LyCORIS config: it has neither "algo" nor "apply_preset"{advice}')
    return config


def judge_config(config: Mapping[str, Any], model: Any) -> Judgement:
    """Read a config, build its network, and compare them module by module.

    Raises:
        InputError: LyCORIS is not installed, the config can't be read at all, or a pattern of it takes too long.
    """
    read_preset(config).refuse_slow([name for name, _ in model.named_modules()])
    modules = list_model_modules(model)
    asked = read_asked(config, modules)
    version = lycoris_version()
    failure = None
    trained: dict[str, Trained] = {}
    try:
        trained = {item.name: item for item in apply_config(config, model)}
    except InputError as error:
        failure = str(error)
    differences = tuple(
        Difference(module, asked.get(module.name), trained.get(module.name))
        for module in modules
        if not _agree(module, asked.get(module.name), trained.get(module.name))
    )
    value_faults = tuple(list_value_faults(config, read_preset(config)))
    return Judgement(config, modules, asked, trained, differences, failure, version, value_faults)


def _agree(module: ModelModule, asked: AskedModule | None, trained: Trained | None) -> bool:
    """The same algorithm, and the same factor and rank where they matter."""
    if asked is None or trained is None:
        return asked is None and trained is None
    if (asked.algo, asked.factor) != (trained.algo, trained.factor):
        return False
    if asked.algo == "lokr" and trained.full_matrix:
        return _is_full(asked, module.shape)
    return asked.algo in ("full", "ia3") or (not asked.full_matrix and asked.dim == trained.dim)


def _is_full(asked: AskedModule, shape: Sequence[int]) -> bool:
    """Whether a LoKr has no low-rank part: by request, or because its rank is so large."""
    split = asked.split(shape)
    if split is None:
        return False
    return asked.full_matrix or asked.dim >= max(shape[0] // split[0], shape[1] // split[1]) / 2
