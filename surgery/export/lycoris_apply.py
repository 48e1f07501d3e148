"""A LyCORIS config and a model -> what it really trains: the network is built as SimpleTuner builds it, without memory.

SimpleTuner calls `LycorisNetwork.apply_preset(config["apply_preset"])`, takes `multiplier`, `linear_dim` and
`linear_alpha` out (as integers), and gives the rest to `create_lycoris`. What a preset sets is kept on the class and
would be found by the next call in the process: here each call starts from what LyCORIS starts with.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from surgery.errors import InputError

INSTALL = "`pip install 'layer-surgery[lycoris]'` installs it, or leave the check out with --no-verify"
PRESET_AT_START: Mapping[str, Any] = {
    "ENABLE_CONV": True,
    "TARGET_REPLACE_MODULE": ["Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm"],
    "TARGET_REPLACE_NAME": [],
    "LORA_PREFIX": "lycoris",
    "MODULE_ALGO_MAP": {},
    "NAME_ALGO_MAP": {},
    "USE_FNMATCH": False,
    "TARGET_EXCLUDE_NAME": [],
}
NORM: Mapping[str, Any] = {"algo": "norm", "dim": 0}  # of what `train_norm` adds, which has no options
POSITIONAL = ("multiplier", "linear_dim", "linear_alpha")


@dataclass(frozen=True)
class Trained:
    """One module of the network: what it was built with, and of a LoKr the shape of w1 (None of others)."""

    name: str
    algo: str
    factor: int | None
    full_matrix: bool
    dim: int
    split: tuple[int, int] | None
    num_parameters: int


def lycoris_version() -> str:
    """The installed version; raises InputError where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lycoris-lora")
    except PackageNotFoundError:
        raise InputError(f"LyCORIS is not installed; {INSTALL}") from None


def apply_config(config: Mapping[str, Any], model: Any) -> tuple[Trained, ...]:
    """What a config trains of a model (which may be on the meta device), in the order in which LyCORIS makes it.

    Raises:
        InputError: LyCORIS is not installed, or fails on this config.
    """
    lycoris_version()
    from accelerate import init_empty_weights

    names = {id(module): name for name, module in model.named_modules()}
    with network_class_at_start(), _quiet(), _noting_options() as noted, init_empty_weights():
        try:
            network = create_as_simpletuner(config, model)
        except Exception as error:  # whatever a config makes it raise is the answer
            raise InputError(f"LyCORIS {lycoris_version()} fails on it: {type(error).__name__}: {error}") from None
    return tuple(_describe(lora, names[id(lora.org_module[0])], noted.get(id(lora), NORM)) for lora in network.loras)


def create_as_simpletuner(config: Mapping[str, Any], model: Any) -> Any:
    """The network, as SimpleTuner makes it of this config."""
    from lycoris import LycorisNetwork, create_lycoris

    rest = copy.deepcopy(dict(config))
    multiplier, dim, alpha = (int(rest.pop(key, default)) for key, default in zip(POSITIONAL, (1, 4, 1), strict=True))
    preset = rest.get("apply_preset")
    if preset is not None and preset != {}:
        LycorisNetwork.apply_preset(preset)
    return create_lycoris(model, multiplier, dim, alpha, **rest)


@contextlib.contextmanager
def network_class_at_start() -> Iterator[None]:
    """LyCORIS as a fresh process finds it; what was set before is put back afterwards."""
    from lycoris import LycorisNetwork

    before = {name: getattr(LycorisNetwork, name) for name in PRESET_AT_START}
    try:
        for name, value in PRESET_AT_START.items():
            setattr(LycorisNetwork, name, copy.deepcopy(value))
        yield
    finally:
        for name, value in before.items():
            setattr(LycorisNetwork, name, value)


@contextlib.contextmanager
def _noting_options() -> Iterator[dict[int, Mapping[str, Any]]]:
    """Notes by the identity of each module that is made with which algorithm and options that was."""
    from lycoris import wrapper

    noted: dict[int, Mapping[str, Any]] = {}

    def noting(algo: str, made: Any) -> Any:
        def make(*args: Any, **options: Any) -> Any:
            lora = made(*args, **options)
            noted[id(lora)] = {**options, "algo": algo, "dim": args[3]}
            return lora

        return make

    classes = dict(wrapper.network_module_dict)
    try:
        wrapper.network_module_dict.update({algo: noting(algo, made) for algo, made in classes.items()})
        yield noted
    finally:
        wrapper.network_module_dict.update(classes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what LyCORIS logs: what it trains is said by the caller."""
    from lycoris.logging import logger

    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _describe(lora: Any, name: str, options: Mapping[str, Any]) -> Trained:
    kronecker = options["algo"] == "lokr"
    return Trained(
        name=name,
        algo=str(options["algo"]),
        factor=int(options.get("factor", -1)) if kronecker else None,
        full_matrix=bool(getattr(lora, "use_w1", False) and getattr(lora, "use_w2", False)),
        dim=int(options["dim"] or 0),
        split=_split(lora) if kronecker else None,
        num_parameters=sum(value.numel() for value in lora.parameters()),
    )


def _split(lora: Any) -> tuple[int, int]:
    """The shape of w1."""
    if lora.use_w1:
        out, into = lora.lokr_w1.shape
        return int(out), int(into)
    return int(lora.lokr_w1_a.shape[0]), int(lora.lokr_w1_b.shape[1])


def refuse_invalid_preset(config: Mapping[str, Any]) -> None:
    """Raise InputError where the strict validator of LyCORIS, which SimpleTuner's editor uses, rejects the preset."""
    lycoris_version()
    from lycoris.config_sdk import PresetConfig, PresetValidationError

    try:
        PresetConfig.from_dict(config.get("apply_preset") or {}, strict=True)
    except PresetValidationError as error:
        raise InputError(f"LyCORIS {lycoris_version()} rejects the preset: {error}") from None
