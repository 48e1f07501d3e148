"""A LyCORIS config and a model -> what it trains beside what its author means, and why the two differ."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import read_json
from surgery.errors import InputError
from surgery.export.config_faults import find_faults
from surgery.export.config_values import refuse_ambiguous
from surgery.export.judgement import Difference, Judgement
from surgery.export.lycoris_apply import Trained, apply_config, lycoris_version
from surgery.export.read_config import AskedModule, ModelModule, list_model_modules, read_asked, read_preset
from surgery.export.sd_scripts_config import read_sd_scripts


def read_config(path: Path) -> dict[str, Any]:
    """A LyCORIS config: the JSON of SimpleTuner, or the TOML of sd-scripts.

    Raises:
        InputError: the file is neither, or one of another kind.
    """
    if path.suffix == ".toml":
        return read_sd_scripts(path)
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
    built: tuple[Trained, ...] = ()
    try:
        built = apply_config(config, model)
    except InputError as error:
        failure = str(error)
    judgement = Judgement(type(model).__name__, config, modules, asked, built, (), failure, version)
    differences = tuple(
        Difference(module, asked.get(module.name), judgement.trained.get(module.name))
        for module in modules
        if module.name in judgement.twice
        or not _agree(module, asked.get(module.name), judgement.trained.get(module.name))
    )
    judgement = replace(judgement, differences=differences)
    return replace(judgement, faults=tuple(find_faults(judgement)))


def _agree(module: ModelModule, asked: AskedModule | None, trained: Trained | None) -> bool:
    """The same algorithm, and the same factor and rank where they matter."""
    if asked is None or trained is None:
        return asked is None and trained is None
    if (asked.algo, asked.factor) != (trained.algo, trained.factor):
        return False
    if asked.algo in ("full", "ia3"):
        return True
    if asked.algo != "lokr":
        return asked.dim == trained.dim
    return asked.is_full(module.shape) if trained.full_matrix else not asked.full_matrix and asked.dim == trained.dim
