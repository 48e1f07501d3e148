"""The TOML of sd-scripts -> a config: a preset of LyCORIS, or the options of a training run, which may name one."""

import ast
import contextlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgery.damage import told_as
from surgery.errors import InputError
from surgery.export.lycoris_apply import lycoris_version
from surgery.export.read_config import SD_SCRIPTS_MODULE
from surgery.files import is_file

PRESET_KEYS = frozenset(
    (
        *("enable_conv", "target_module", "target_name", "module_algo_map", "name_algo_map", "lora_prefix"),
        *("use_fnmatch", "unet_target_module", "unet_target_name", "text_encoder_target_module"),
        *("text_encoder_target_name", "exclude_name"),
    )
)
RENAMED = {"network_dim": "linear_dim", "network_alpha": "linear_alpha"}


def read_sd_scripts(path: Path) -> dict[str, Any]:
    """A config that names sd-scripts' module, with the preset as `apply_preset`.

    Raises:
        InputError: the file can't be read, is no TOML, is neither a preset nor options that load LyCORIS, or names a
            preset that is not there.
    """
    document = _read_toml(path)
    options = _flat(document)
    if "network_module" not in options:
        unknown = [key for key in document if key not in PRESET_KEYS]
        if unknown or not document:
            what = f'"{unknown[0]}" is no key of one' if unknown else "it is empty"
            raise InputError(f"{path} is no preset of LyCORIS: {what}; there are {', '.join(sorted(PRESET_KEYS))}")
        return {"network_module": SD_SCRIPTS_MODULE, "apply_preset": document}
    if options["network_module"] != SD_SCRIPTS_MODULE:
        raise InputError(
            f"{path} loads {options['network_module']}, which is not LyCORIS; a config of LyCORIS says "
            f'network_module = "{SD_SCRIPTS_MODULE}"'
        )
    return _options_to_config(options, path)


def _read_toml(path: Path) -> dict[str, Any]:
    with told_as(f"{path} can't be read"):
        text = path.read_text(encoding="utf-8")
    with told_as(f"{path} is no TOML"):
        return tomllib.loads(text)


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """The options of all sections: sd-scripts looks at no section's name."""
    flat = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    for section in (value for value in document.values() if isinstance(value, Mapping)):
        flat |= section
    return flat


def _options_to_config(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    config: dict[str, Any] = {"network_module": SD_SCRIPTS_MODULE}
    config |= {ours: options[theirs] for theirs, ours in RENAMED.items() if theirs in options}
    arguments = options.get("network_args") or []
    if not isinstance(arguments, list):
        raise InputError(f"{path}: network_args is {arguments!r}; write a list of texts, KEY=VALUE each")
    for argument in arguments:
        key, equals, value = str(argument).partition("=")
        if not equals:
            raise InputError(f'{path}: "{argument}" in network_args is no KEY=VALUE')
        config[key.strip()] = _value_of(value.strip())
    return {**config, "apply_preset": _preset_named(str(config.get("preset", "full")), path)}


def _value_of(text: str) -> Any:
    """A number or a switch; other words as they are."""
    with contextlib.suppress(InputError), told_as("it is a word"):
        return ast.literal_eval(text.capitalize() if text.lower() in ("true", "false") else text)
    return text


def _preset_named(name: str, path: Path) -> Mapping[str, Any]:
    """One that is built in, or of a file beside the config or in the working folder."""
    lycoris_version()
    from lycoris.config import PRESET

    if name in PRESET:
        built_in: Mapping[str, Any] = PRESET[name]
        return built_in
    file = next((file for file in (path.parent / name, Path(name)) if is_file(file)), None)
    if file is None:
        raise InputError(f'{path} names the preset "{name}", and there is no such file; there are {", ".join(PRESET)}')
    return _read_toml(file)


def preset_to_toml(preset: Mapping[str, Any]) -> str:
    """The text of a preset: what JSON and TOML write alike, and a table for each entry of a map.

    Raises:
        InputError: it holds what TOML has no word for.
    """
    maps = {key: value for key, value in preset.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in preset.items() if key not in maps]
    for key, entries in maps.items():
        for pattern, options in entries.items():
            lines += ["", f"[{_key(key)}.{_value(pattern)}]"]
            lines += [f"{_key(option)} = {_value(value)}" for option, value in options.items()]
    text = "\n".join(lines) + "\n"
    with told_as("the repair can't be written as TOML"):
        tomllib.loads(text)
    return text


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
