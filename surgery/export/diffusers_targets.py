"""Texts for trainers that take the dotted names of diffusers' classes, or names that are built like them."""

import json

from surgery.errors import InputError
from surgery.export.target_text import (
    TargetRequest,
    TargetText,
    TrainedLayer,
    escape,
    list_layers,
    lost_by_threshold,
    ranked_layers,
    regex_of_kept,
    switched_layers,
)

ADD_ADAPTER = ("from peft import LoraConfig", "transformer.add_adapter(config)")
INJECT_ADAPTER = (
    "from peft import LoraConfig, inject_adapter_in_model",
    "inject_adapter_in_model(config, transformer)",
)  # for classes of diffusers that have no `add_adapter`


def to_peft(request: TargetRequest) -> TargetText:
    """A `LoraConfig` with rank and alpha patterns; alpha is the rank, so that each layer has scale 1."""
    ranks = {rf"{escape(stack)}\.{n}\..*": request.rank(stack, n) for stack, n in list_layers(request)}
    entries = ",\n".join(f'    r"{pattern}": {rank}' for pattern, rank in ranks.items())
    first, last = ADD_ADAPTER if request.layers.has_add_adapter else INJECT_ADAPTER
    text = (
        f"{first}\n\n"
        f"ranks = {{\n{entries},\n}}\n"
        "config = LoraConfig(\n"
        f"    r={request.max_rank},\n    lora_alpha={request.max_rank},\n"
        f'    target_modules=r"{_regex_of_linear_layers(request)}",\n'
        "    rank_pattern=ranks,\n    alpha_pattern=ranks,\n)\n"
        f"{last}\n"
    )
    lost = (
        f"factors: a layer has a rank from 1 to {request.max_rank} (--max-rank) by its share; convolutions are left out"
    )
    return TargetText("Python, before training", text, lost, ranked_layers(request))


def _regex_of_linear_layers(request: TargetRequest) -> str:
    """One alternative for all blocks of a stack that have the same linear layers: a name that is a linear layer in one
    may be a list in another.
    """
    by_block: dict[tuple[str, int], list[str]] = {}
    for module in request.layers.modules:
        if len(module.shape) == 2:
            by_block.setdefault((module.stack, module.block), []).append(module.inside)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (stack, block), inside in by_block.items():
        alike.setdefault((stack, tuple(inside)), []).append(str(block))
    stacks = [stack for stack, _ in alike]
    parts = []
    for (stack, names), blocks in alike.items():
        numbers = r"\d+" if stacks.count(stack) == 1 else f"(?:{'|'.join(blocks)})"
        parts.append(rf"{escape(stack)}\.{numbers}\.(?:{'|'.join(map(escape, names))})")
    return "|".join(parts)


def to_simpletuner_peft(request: TargetRequest) -> TargetText:
    """`peft_lora_target_modules`: the full names of all linear layers that are trained."""
    lost = lost_by_threshold(request, "rank and factor")
    text = json.dumps(_simpletuner_lora(request), indent=2) + "\n"
    return TargetText(_config_json(request), text, lost, switched_layers(request))


def to_simpletuner_blocks(request: TargetRequest) -> TargetText:
    """`blocks_to_train` of DiffusionBlocks: numbers of layers, counted through all stacks."""
    lost = lost_by_threshold(request, "rank and factor")
    config = {
        "layers_per_block": 1,
        "block_paths": list(request.family.counted),
        "blocks_to_train": [_count(request, stack, n) for stack in request.layers.stacks for n in request.kept(stack)],
    }
    text = json.dumps({**_simpletuner_lora(request), "diffusion_blocks_config": config}, indent=2) + "\n"
    lost += "; DiffusionBlocks runs one layer in a training step, each on noise of its own range"
    return TargetText(_config_json(request), text, lost, switched_layers(request))


def to_simpletuner_tread(request: TargetRequest) -> TargetText:
    """Routes of TREAD: runs of layers of one stack that do little, around which half of the tokens are led."""
    routes = [
        {
            "selection_ratio": 0.5,
            "start_layer_idx": _count(request, stack, run[0]),
            "end_layer_idx": _count(request, stack, run[-1]),
        }
        for stack in sorted(request.layers.stacks, key=request.family.counted.index)
        for run in _runs_of_little(request, stack)
    ]
    if not routes:
        raise InputError(
            f"no two layers in a row have a share below {request.threshold:g}, so there is no route; raise --threshold"
        )
    led = {n for route in routes for n in range(int(route["start_layer_idx"]), int(route["end_layer_idx"]) + 1)}
    layers = tuple(
        TrainedLayer(
            *(request.name(stack, n), request.layers.share(stack, n)),
            trained="half of the tokens" if _count(request, stack, n) in led else "all tokens",
        )
        for stack, n in list_layers(request)
    )
    lost = (
        f"factors and ranks: in training, half of the tokens pass by runs of layers with a share below "
        f"{request.threshold:g} (--threshold), but not by the first and the last layer of a stack"
    )
    text = json.dumps({"tread_config": {"routes": routes}}, indent=2) + "\n"
    return TargetText(_config_json(request), text, lost, layers)


def _runs_of_little(request: TargetRequest, stack: str) -> list[list[int]]:
    """Runs of two layers or more below the threshold, without the ends of the stack."""
    kept = set(request.kept(stack))
    blocks = [block for found, block in list_layers(request) if found == stack][1:-1]
    runs: list[list[int]] = []
    for block in blocks:
        if block in kept:
            continue
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return [run for run in runs if len(run) > 1]


def _count(request: TargetRequest, stack: str, block: int) -> int:
    """The number of a layer, counted through all stacks."""
    before = request.family.counted[: request.family.counted.index(stack)]
    return sum(request.layers.lengths[name] for name in before) + block


def _config_json(request: TargetRequest) -> str:
    return f"SimpleTuner's config.json (model_family {request.family.called}, or its kin)"


def _simpletuner_lora(request: TargetRequest) -> dict[str, object]:
    """The keys of a LoRA of all linear layers that are switched on."""
    return {
        "model_type": "lora",
        "lora_type": "standard",
        "lora_rank": request.max_rank,
        "lora_alpha": request.max_rank,
        "peft_lora_target_modules": [module.name for module in request.kept_modules()],
    }


def to_diffusers(request: TargetRequest) -> TargetText:
    """`--lora_layers` of the training scripts of diffusers; that of SD3 takes `--lora_blocks` as well."""
    lost = lost_by_threshold(request, "rank")
    rank = f"--rank {request.max_rank}"
    if "alpha" in request.family.has:  # elsewhere it is the rank
        rank += f" --lora_alpha {request.max_rank}"
    place = f"the command line of {request.family.called}, a script of diffusers"
    if "lora_blocks" in request.family.has:
        blocks = request.kept(request.layers.stacks[0])
        names = list(dict.fromkeys(module.inside for module in request.kept_modules()))
        text = f'{rank} --lora_blocks "{",".join(map(str, blocks))}" --lora_layers "{",".join(names)}"\n'
    else:
        text = f'{rank} --lora_layers "{",".join(module.name for module in request.kept_modules())}"\n'
    return TargetText(place, text, lost, switched_layers(request))


def to_ai_toolkit(request: TargetRequest) -> TargetText:
    """`only_if_contains`: substrings of names that begin with `transformer.`."""
    lost = lost_by_threshold(request, "rank and factor")
    names = [f"{request.name(stack, n)}." for stack in request.layers.stacks for n in request.kept(stack)]
    text = "\n".join(_ai_toolkit_lines(request, names)) + "\n"
    return TargetText(_job(request), text, lost, switched_layers(request))


def to_ai_toolkit_full(request: TargetRequest) -> TargetText:
    """`full_if_contains`: all weights of the critical layers, and a LoRA of the others that are switched on."""
    lost = lost_by_threshold(request, "rank and factor")
    critical = [(stack, n) for stack in request.layers.stacks for n in sorted(request.layers.critical.get(stack, ()))]
    if not critical:
        raise InputError("no layer is critical, so none is trained in full; name those that are (--critical)")
    names = [f"{request.name(stack, n)}." for stack in request.layers.stacks for n in request.kept(stack)]
    lines = [*_ai_toolkit_lines(request, names), "    full_if_contains:"]
    lines += [f'      - "{request.family.prefix}{request.name(stack, n)}."' for stack, n in critical]
    full = {request.name(stack, n) for stack, n in critical}
    layers = tuple(
        TrainedLayer(layer.name, layer.share, "all weights") if layer.name in full else layer
        for layer in switched_layers(request)
    )
    return TargetText(_job(request), "\n".join(lines) + "\n", f"{lost}; of critical layers all weights", layers)


def _job(request: TargetRequest) -> str:
    return f"the job's YAML (arch {request.family.called}, or its kin)"


def _ai_toolkit_lines(request: TargetRequest, names: list[str]) -> list[str]:
    """Of the network; `transformer_only`, which is on by default, would drop stacks that are named here."""
    lines = ["network:", "  type: lora", f"  linear: {request.max_rank}", f"  linear_alpha: {request.max_rank}"]
    lines += ["  transformer_only: false", "  network_kwargs:", "    only_if_contains:"]
    return lines + [f'      - "{request.family.prefix}{name}"' for name in names]


def to_onetrainer(request: TargetRequest) -> TargetText:
    """`layer_filter`: one regular expression that is searched for; a comma would split it."""
    lost = lost_by_threshold(request, "rank and factor")
    pattern = rf"^(?:{regex_of_kept(request)})\.{_without_convolutions(request)}"
    config = {
        "training_method": "LORA",
        "peft_type": "LORA",
        "lora_rank": request.max_rank,
        "lora_alpha": float(request.max_rank),
        "layer_filter": pattern,
        "layer_filter_preset": "custom",
        "layer_filter_regex": True,
        **{name: {"train": False} for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")},
    }
    text = json.dumps(config, indent=2)
    place = f"OneTrainer's configuration (model_type {request.family.called}, or its kin)"
    return TargetText(place, text + "\n", lost, switched_layers(request))


def _without_convolutions(request: TargetRequest) -> str:
    """OneTrainer takes convolutions as well; no other target does."""
    grouped = [name.split(".*.", 1)[1] for name in request.layers.grouped]
    convolutions = [module.inside for module in request.layers.modules if len(module.shape) != 2]
    names = list(dict.fromkeys((*convolutions, *grouped)))
    return rf"(?!(?:{'|'.join(map(escape, names))})$)" if names else ""
