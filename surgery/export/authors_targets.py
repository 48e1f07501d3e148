"""Texts for trainers whose classes have the names of the model's authors; the table of trainers has those names."""

from collections.abc import Iterable

from surgery.errors import InputError
from surgery.export.target_text import (
    TargetRequest,
    TargetText,
    TrainedLayer,
    list_layers,
    lost_by_threshold,
    ranked_layers,
    regex_of_kept,
    switched_layers,
)


def to_lycoris_toml(request: TargetRequest) -> TargetText:
    """The preset file of LyCORIS for sd-scripts; all names are those of the model's authors."""
    factors = {f"{request.name(stack, n)}.*": request.factors[stack][n] for stack, n in list_layers(request)}
    lines = ["enable_conv = false", "use_fnmatch = true", "unet_target_module = []", "unet_target_name = ["]
    lines += [*(f'  "{pattern}",' for pattern in factors), "]"]
    lines += ["text_encoder_target_module = []", "text_encoder_target_name = []"]
    for pattern, factor in factors.items():
        lines += ["", f'[name_algo_map."{pattern}"]', 'algo = "lokr"', f"factor = {factor}", "full_matrix = true"]
    place = (
        f"a file PRESET.toml, and: {_script(request)} --network_module lycoris.kohya --network_dim 10000 "
        '--network_alpha 1 --network_train_unet_only --network_args "preset=PRESET.toml" "algo=lokr" '
        '"full_matrix=True" "factor=16"'
    )
    lost = "components: all linear layers of a block have its factor, as those of the authors' blocks are other ones"
    layers = tuple(
        TrainedLayer(request.name(stack, n), request.layers.share(stack, n), f"factor {request.factors[stack][n]}")
        for stack, n in list_layers(request)
    )
    return TargetText(place, "\n".join(lines) + "\n", lost, layers)


def to_reg_dims(request: TargetRequest) -> TargetText:
    """Regular expressions on LoRA names, each with its rank; and with its learning rate, as alpha is one for all."""
    alpha = request.max_rank
    rates = {(stack, n): request.learning_rate * request.rank(stack, n) / alpha for stack, n in list_layers(request)}
    dims = [f"{_lora_name(request, stack, n)}={request.rank(stack, n)}" for stack, n in list_layers(request)]
    dims += [f"{name}_=0" for name in _other_stacks(request)]  # what no expression matches has the rank --network_dim
    arguments = f'"network_reg_dims={",".join(dims)}" "network_reg_lrs={_rates_text(request, rates)}"'
    lost = (
        f"factors: a layer has a rank from 1 to {request.max_rank} (--max-rank) by its share; and an alpha of each "
        f"layer: it is {alpha} for all, so that alpha / rank goes up to {alpha} where rank is low, which the learning "
        "rate offsets: their product is that of a layer of full rank"
    )
    layers = tuple(
        TrainedLayer(layer.name, layer.share, layer.trained, layer.scale, rate)
        for layer, rate in zip(ranked_layers(request, alpha), rates.values(), strict=True)
    )
    text = f"{_network(request)} {_rate(request)} --network_args {arguments}\n"
    return TargetText(_command_line(request), text, lost, layers)


def to_reg_lrs(request: TargetRequest) -> TargetText:
    """Regular expressions on LoRA names, each with its learning rate; all layers have the same rank."""
    rates = {
        (stack, n): request.learning_rate * request.rank(stack, n) / request.max_rank
        for stack, n in list_layers(request)
    }
    arguments = f'"network_reg_lrs={_rates_text(request, rates)}"'
    zeros = ",".join(f"{name}_=0" for name in _other_stacks(request))
    if zeros:
        arguments = f'"network_reg_dims={zeros}" {arguments}'
    lost = (
        f"rank and factor: a layer has a learning rate from 1/{request.max_rank} of --learning-rate to all of it, "
        "by its share"
    )
    layers = tuple(
        TrainedLayer(
            *(request.name(stack, n), request.layers.share(stack, n), f"rank {request.max_rank}"),
            scale=1.0,
            learning_rate=rate,
        )
        for (stack, n), rate in rates.items()
    )
    text = f"{_network(request)} {_rate(request)} --network_args {arguments}\n"
    return TargetText(_command_line(request), text, lost, layers)


def to_block_indices(request: TargetRequest) -> TargetText:
    """`train_double_block_indices` and its kind: the numbers of the layers of each stack that are trained."""
    lost = lost_by_threshold(request, "rank and factor")
    arguments = []
    for stack, name in request.family.stacks.items():
        kept = request.kept(stack) if stack in request.layers.stacks else []
        _refuse_more(request, stack)
        key = {"double_blocks": "train_double_block_indices", "single_blocks": "train_single_block_indices"}.get(
            name, "train_block_indices"
        )
        arguments.append(f'"{key}={",".join(map(str, kept)) or "none"}"')
    text = f"{_network(request)} --network_args {' '.join(arguments)}\n"
    return TargetText(_command_line(request), text, lost, switched_layers(request))


def _refuse_more(request: TargetRequest, stack: str) -> None:
    most = request.family.most_layers.get(stack)
    length = request.layers.lengths.get(stack, 0)
    if most is not None and length > most:
        raise InputError(f"sd-scripts takes indices of {most} {stack} at most, and there are {length}")


def _lora_name(request: TargetRequest, stack: str, block: int) -> str:
    """A part of the LoRA names of a layer that no other layer has: `double_blocks_1_`."""
    return f"{request.name(stack, block).replace('.', '_')}_"


def _other_stacks(request: TargetRequest) -> Iterable[str]:
    """The trainer's names of the stacks that are not chosen."""
    return (name for stack, name in request.family.stacks.items() if stack not in request.layers.stacks)


def _rates_text(request: TargetRequest, rates: dict[tuple[str, int], float]) -> str:
    return ",".join(f"{_lora_name(request, stack, n)}={rate:.6g}" for (stack, n), rate in rates.items())


def _network(request: TargetRequest) -> str:
    """Options of sd-scripts for a LoRA of the transformer alone, whose alpha is the largest rank."""
    rank = request.max_rank
    return (
        f"--network_module {request.family.module} --network_dim {rank} --network_alpha {rank} "
        "--network_train_unet_only"
    )


def _rate(request: TargetRequest) -> str:
    return f"--learning_rate {request.learning_rate:g} --unet_lr {request.learning_rate:g}"


def _command_line(request: TargetRequest) -> str:
    return f"the command line of sd-scripts: {_script(request)}"


def _script(request: TargetRequest) -> str:
    return f"{request.family.called} {request.family.options}".strip()


def to_musubi(request: TargetRequest) -> TargetText:
    """`exclude_patterns` of all and `include_patterns` of what is trained: regular expressions of whole names.

    The trainer no longer excludes what is included, so that only names are included that it trains by itself.
    """
    lost = lost_by_threshold(request, "rank and factor")
    inside = f"(?:{request.family.inside})" if request.family.inside else ".*"
    pattern = rf"(?:{regex_of_kept(request)})\.{inside}"
    text = (
        f"--network_module {request.family.module} --network_dim {request.max_rank} "
        f"--network_alpha {request.max_rank} "
        f"""--network_args "exclude_patterns=[r'.*']" "include_patterns=[r'{pattern}']"\n"""
    )
    place = f"the command line of musubi-tuner: {_script(request)}"
    return TargetText(place, text, lost, switched_layers(request))
