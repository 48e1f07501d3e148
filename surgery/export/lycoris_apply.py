"""A LyCORIS config and a model -> what it really trains: the network is built as the trainer builds it, without memory.

SimpleTuner calls `LycorisNetwork.apply_preset(config["apply_preset"])`, takes `multiplier`, `linear_dim`,
`linear_alpha` and its own keys out, and gives the rest to `create_lycoris`; sd-scripts calls `create_network` of
`lycoris.kohya`. What a preset sets is kept on the class and would be found by the next call in the process: here each
call starts from what LyCORIS starts with.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from surgery.errors import InputError
from surgery.export.read_config import SD_SCRIPTS, loader_of

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
SD_SCRIPTS_AT_START: Mapping[str, Any] = {
    "ENABLE_CONV": True,
    "UNET_TARGET_REPLACE_MODULE": [*SD_SCRIPTS.default_classes, "LLMAdapterTransformerBlock"],
    "UNET_TARGET_REPLACE_NAME": ["conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"],
    "MODULE_ALGO_MAP": {},
    "NAME_ALGO_MAP": {},
    "USE_FNMATCH": False,
    "TARGET_EXCLUDE_NAME": [],
}
NORM: Mapping[str, Any] = {"algo": "norm", "dim": 0}  # of what `train_norm` adds, which has no options
POSITIONAL = ("multiplier", "linear_dim", "linear_alpha")
OF_THE_TRAINER = ("tlora_min_rank", "tlora_alpha")  # SimpleTuner 4.10.1 reads these itself and does not hand them on
GIVEN_PRESET = "given"  # the name under which sd-scripts' preset is handed over


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
    create = create_as_sd_scripts if loader_of(config) is SD_SCRIPTS else create_as_simpletuner
    with network_class_at_start(), _quiet(), _without_weights(), _noting_options() as noted, init_empty_weights():
        try:
            network = create(config, model)
        except Exception as error:  # whatever a config makes it raise is the answer
            raise InputError(f"LyCORIS {lycoris_version()} fails on it: {type(error).__name__}: {error}") from None
    return tuple(_describe(lora, names[id(lora.org_module[0])], noted.get(id(lora), NORM)) for lora in network.loras)


def create_as_simpletuner(config: Mapping[str, Any], model: Any) -> Any:
    """The network, as SimpleTuner makes it of this config."""
    from lycoris import LycorisNetwork, create_lycoris

    rest = copy.deepcopy(dict(config))
    multiplier, dim, alpha = (int(rest.pop(key, default)) for key, default in zip(POSITIONAL, (1, 4, 1), strict=True))
    for key in OF_THE_TRAINER:
        rest.pop(key, None)
    preset = rest.get("apply_preset")
    if preset is not None and preset != {}:
        LycorisNetwork.apply_preset(preset)
    return create_lycoris(model, multiplier, dim, alpha, **rest)


def create_as_sd_scripts(config: Mapping[str, Any], model: Any) -> Any:
    """The network, as sd-scripts makes it of this preset and these arguments, without text encoders."""
    from lycoris import kohya
    from lycoris.config_sdk import PresetConfig

    rest = copy.deepcopy(dict(config))
    multiplier, dim, alpha = (rest.pop(key, default) for key, default in zip(POSITIONAL, (1.0, 4, 1), strict=True))
    preset = PresetConfig.from_dict(rest.pop("apply_preset", None) or {}).to_dict()
    for key in ("network_module", "preset"):
        rest.pop(key, None)
    try:
        kohya.PRESET[GIVEN_PRESET] = preset
        network = kohya.create_network(multiplier, dim, alpha, None, None, model, preset=GIVEN_PRESET, **rest)
    finally:
        kohya.PRESET.pop(GIVEN_PRESET, None)
    network.loras = network.unet_loras
    return network


@contextlib.contextmanager
def network_class_at_start() -> Iterator[None]:
    """LyCORIS as a fresh process finds it; what was set before is put back afterwards."""
    from lycoris import LycorisNetwork
    from lycoris.kohya import LycorisNetworkKohya

    at_start = ((LycorisNetwork, PRESET_AT_START), (LycorisNetworkKohya, SD_SCRIPTS_AT_START))
    before = [(owner, {name: getattr(owner, name) for name in values}) for owner, values in at_start]
    try:
        for owner, values in at_start:
            _set_all(owner, copy.deepcopy(dict(values)))
        yield
    finally:
        for owner, values in before:
            _set_all(owner, values)


def _set_all(owner: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


@contextlib.contextmanager
def _without_weights() -> Iterator[None]:
    """Lets algorithms be made that copy weights to the processor: on the meta device there is nothing to copy."""
    import torch

    copy_to_cpu = torch.Tensor.cpu

    def stay(tensor: Any, *args: Any, **options: Any) -> Any:
        return tensor if tensor.is_meta else copy_to_cpu(tensor, *args, **options)

    with _collecting_nothing(), mock.patch.object(torch.Tensor, "cpu", stay):
        yield


@contextlib.contextmanager
def _collecting_nothing() -> Iterator[None]:
    """T-LoRA collects garbage after each module, a second each in a large process, though no weights are freed here."""
    try:
        from lycoris.modules import tlora
    except ImportError:  # LyCORIS before 4
        yield
        return
    with mock.patch.object(tlora, "gc", SimpleNamespace(collect=lambda: 0)):
        yield


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
