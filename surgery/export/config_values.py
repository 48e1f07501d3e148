"""Values in a LyCORIS config that LyCORIS takes without a word, and that mean something else than they say."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.export.read_config import SIMPLETUNER, Preset, loader_of
from surgery.spec.nearest import nearest

# What `create_lycoris` of LyCORIS 3.4.0 and 4.1.3 reads of the top level, and what the trainers read beside it
# (`tlora_*` SimpleTuner 4.10.1, the rest `create_network` for sd-scripts); everything else is dropped.
TOP_LEVEL = frozenset(
    (
        *("algo", "multiplier", "linear_dim", "linear_alpha", "conv_dim", "conv_alpha", "factor", "full_matrix"),
        *("dropout", "rank_dropout", "module_dropout", "apply_preset", "preset", "train_norm", "train_llm_adapter"),
        *("use_tucker", "use_scalar", "block_size", "constraint", "rescaled", "dora_wd", "wd_on_output"),
        *("bypass_mode", "unbalanced_factorization", "decompose_both", "rank_dropout_scale", "rs_lora"),
        *("disable_conv_cp", "use_conv_cp", "use_cp", "constrain", "warn_on_unmatched"),
        *("tlora_min_rank", "tlora_alpha", "network_module", "train_t5xxl"),
        *("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio"),
    )
)
# What it heeds in an entry of name_algo_map or module_algo_map; it drops everything else without a word.
HEEDED = frozenset(
    (
        *("algo", "dim", "alpha", "use_tucker", "use_scalar", "decompose_both", "factor", "rank_dropout_scale"),
        *("weight_decompose", "wd_on_out", "full_matrix", "bypass_mode", "rs_lora", "unbalanced_factorization"),
        *("block_size", "constraint", "rescaled", "train_on_input", "sig_type", "use_data_init", "mask_group_id"),
    )
)
DROPOUTS = ("dropout", "rank_dropout", "module_dropout")  # on which it fails there
MEANT_OPTIONS = {"linear_dim": "dim", "linear_alpha": "alpha", "dora_wd": "weight_decompose", "rank": "dim"}
ALGORITHMS = frozenset(
    ("lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft", "ia3", "tlora", "norm")
)


def refuse_ambiguous(path: Path) -> None:
    """Raise InputError where a JSON file names a key twice, or holds NaN or Infinity: readers differ about both."""
    json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_no_constant)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f'the key "{twice}" is there twice in one object; readers keep the last one: leave one')
    return found


def _no_constant(name: str) -> None:
    raise InputError(f"{name} is no JSON; write a number")


def list_bad_multipliers(config: Mapping[str, Any], _: Preset) -> Iterator[str]:
    """One that is cut to an integer, or is no number; sd-scripts takes it as it is."""
    if loader_of(config) is not SIMPLETUNER:
        return
    given = config.get("multiplier", 1)
    try:
        whole = int(given)
    except (TypeError, ValueError, OverflowError):
        yield f"multiplier is {given!r}, which is no number"
        return
    if whole == 0 or whole != given:
        effect = "and then nothing is trained" if whole == 0 else f"which makes it {whole}"
        yield f"multiplier is {given!r}; SimpleTuner takes the integer of it, {effect}"


def list_unknown_keys(config: Mapping[str, Any], _: Preset) -> Iterator[str]:
    """Keys of the top level that neither LyCORIS nor the trainer reads."""
    for key in config:
        if key not in TOP_LEVEL:
            meant = nearest(key, sorted(TOP_LEVEL))
            yield f'LyCORIS has no option "{key}", and drops it' + (f'; did you mean "{meant}"?' if meant else "")


def _entries(config: Mapping[str, Any], preset: Preset) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "the top level", config
    for pattern, options in (*preset.name_map.items(), *preset.class_map.items()):
        yield f'the entry "{pattern}"', options


def list_bad_algorithms(config: Mapping[str, Any], preset: Preset) -> Iterator[str]:
    """Algorithms that there are not."""
    for where, options in _entries(config, preset):
        algo = options.get("algo")
        if algo is not None and (not isinstance(algo, str) or algo.lower() not in ALGORITHMS):
            yield f"{where} asks for the algorithm {algo!r}, which LyCORIS does not have"


def list_bad_factors(config: Mapping[str, Any], preset: Preset) -> Iterator[str]:
    """Factors that are no integers, or that LyCORIS turns into others."""
    for where, options in _entries(config, preset):
        factor = options.get("factor", -1)
        if isinstance(factor, bool) or not isinstance(factor, int):
            yield f"{where} has the factor {factor!r}; write an integer"
        elif factor == 0 or factor < -1:
            yield (
                f"{where} has the factor {factor}, which LyCORIS turns into another; write 1 or more, or -1 for about "
                "the square root of each width"
            )


def heeded_options(options: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what is ignored or fails; a rank that was given by the top level's key gets the entry's key."""
    kept = {key: value for key, value in options.items() if key in HEEDED}
    if not options.get("full_matrix", config.get("full_matrix", False)):
        for ours, theirs in (("dim", "linear_dim"), ("alpha", "linear_alpha")):
            if theirs in options:
                kept.setdefault(ours, options[theirs])
    return kept
