"""The config of a DiT -> what in it does not go together, all at once; the same of weights and a config."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from surgery.dit.blocks import ACTIVATIONS, ADAPTIVE, CONDITIONINGS
from surgery.spec.nearest import unknown_text

COUNTS = ("sample_size", "patch_size", "in_channels", "hidden_size", "num_layers", "num_attention_heads")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ValueError where a DiT can't be built from a config; its text names every fault."""
    faults = faults_of_config(config)
    if faults:
        raise ValueError("; ".join(faults))


def faults_of_config(config: Mapping[str, Any]) -> list[str]:
    """The texts of all faults, none where a DiT can be built."""
    faults = list(_faults_of_values(config))
    return faults or [*_faults_of_shape(config), *_faults_of_label(config)]  # sums are of numbers only


def check_weights(place: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Raise ValueError where weights are not those of the config beside them, by the names of either's alone."""
    faults = []
    if missing:
        faults.append(f"have no {_some(missing)}")
    if unexpected:
        faults.append(f"have {_some(unexpected)}, which it has not")
    if faults:
        text = f"the weights in {place} are not those of a DiT with the config beside them: they {' and '.join(faults)}"
        raise ValueError(f"{text}; put the config there that they were saved with")


def _some(names: Collection[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first


def _faults_of_values(config: Mapping[str, Any]) -> Iterator[str]:
    for name in COUNTS:
        if not _is_count(config[name]):
            yield f"{name} is {config[name]!r}; write a whole number from 1 on"
    for name in ("num_classes", "pooled_projection_dim"):
        if config[name] is not None and not _is_count(config[name]):
            yield f"{name} is {config[name]!r}; write a whole number from 1 on, or leave it out"
    ratio = config["mlp_ratio"]
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not ratio > 0:
        yield f"mlp_ratio is {ratio!r}; write a number above 0, like 4.0"
    for name, known in (("conditioning", CONDITIONINGS), ("activation", tuple(ACTIVATIONS))):
        if config[name] not in known:
            yield unknown_text(name, str(config[name]), known, "of a DiT")
    if config["cross_attention_tokens"] not in (1, 2):
        yield f"cross_attention_tokens is {config['cross_attention_tokens']!r}; write 2, or 1 as the study has it"


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _faults_of_shape(config: Mapping[str, Any]) -> Iterator[str]:
    size, patch = config["sample_size"], config["patch_size"]
    if size % patch:
        yield f"a sample_size of {size} can't be cut into patches of {patch}; write a patch_size that divides it"
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if width % heads:
        yield f"{heads} heads do not divide a hidden_size of {width}; write a number of heads that does"
    if width % 4:
        yield f"a hidden_size of {width} has no quarters, which positions take (sine and cosine of row and column)"


def _faults_of_label(config: Mapping[str, Any]) -> Iterator[str]:
    is_text, is_classes = config["pooled_projection_dim"] is not None, config["num_classes"] is not None
    if is_text == is_classes:
        has = (
            "both num_classes and pooled_projection_dim" if is_text else "neither num_classes nor pooled_projection_dim"
        )
        yield f"the config has {has}; a DiT is conditioned on the number of a class or on an encoded text: write one"
    for name in ("own_projections", "unused_layers"):
        if config[name] and not is_text:
            yield f"{name} are of encoded texts; write pooled_projection_dim, or leave it out"
    if config["own_projections"] and config["conditioning"] == "in_context":
        yield "own_projections are of blocks that are given the label; in_context it joins the tokens once"
    if config["own_projections"] and config["conditioning"] in ADAPTIVE and not config["plain_head"]:
        yield "with own_projections only blocks project the label, so that the head can't use it; write plain_head too"
