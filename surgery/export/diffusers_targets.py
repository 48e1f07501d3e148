"""Texts for trainers that take the dotted names of diffusers' classes."""

import json

from surgery.export.target_text import TargetRequest, TargetText, list_layers, lost_by_threshold, regex_of_kept


def to_peft(request: TargetRequest) -> TargetText:
    """A `LoraConfig` with rank and alpha patterns; alpha is the rank, so that each layer has scale 1."""
    ranks = {
        rf"{stack.replace('.', chr(92) + '.')}\.{n}\..*": request.rank(stack, n) for stack, n in list_layers(request)
    }
    entries = ",\n".join(f'    r"{pattern}": {rank}' for pattern, rank in ranks.items())
    stacks = "|".join(stack.replace(".", r"\.") for stack in request.layers.stacks)
    inside = "|".join(dict.fromkeys(m.inside.replace(".", r"\.") for m in request.layers.modules if len(m.shape) == 2))
    text = (
        "from peft import LoraConfig\n\n"
        f"ranks = {{\n{entries},\n}}\n"
        "config = LoraConfig(\n"
        f"    r={request.max_rank},\n    lora_alpha={request.max_rank},\n"
        f'    target_modules=r"(?:{stacks})\\.\\d+\\.(?:{inside})",\n'
        "    rank_pattern=ranks,\n    alpha_pattern=ranks,\n)\n"
        "transformer.add_adapter(config)\n"
    )
    lost = (
        f"factors: a layer has a rank from 1 to {request.max_rank} (--max-rank) by its share; convolutions are left out"
    )
    return TargetText("Python, before training", text, lost)


def to_simpletuner_peft(request: TargetRequest) -> TargetText:
    """`peft_lora_target_modules`: the full names of all linear layers that are trained."""
    names = [module.name for module in request.kept_modules()]
    text = json.dumps({"lora_type": "standard", "peft_lora_target_modules": names}, indent=2) + "\n"
    lost = lost_by_threshold(request, "rank and factor")
    return TargetText("SimpleTuner's config.json", text, lost)


def to_diffusers(request: TargetRequest) -> TargetText:
    """`--lora_layers` of the training scripts of diffusers; that of SD3 takes `--lora_blocks` as well."""
    lost = lost_by_threshold(request, "rank")
    place = "the command line of a train_dreambooth_lora script of diffusers"
    if request.layers.class_name == "SD3Transformer2DModel":
        blocks = request.kept(request.layers.stacks[0])
        names = list(dict.fromkeys(module.inside for module in request.kept_modules()))
        text = f'--lora_blocks "{",".join(map(str, blocks))}" --lora_layers "{",".join(names)}"\n'
        return TargetText(place, text, lost)
    text = f'--lora_layers "{",".join(module.name for module in request.kept_modules())}"\n'
    return TargetText(place, text, lost)


def to_ai_toolkit(request: TargetRequest) -> TargetText:
    """`only_if_contains`: substrings of names that begin with `transformer.`."""
    lines = ["network:", "  type: lora", f"  linear: {request.max_rank}", f"  linear_alpha: {request.max_rank}"]
    lines += ["  network_kwargs:", "    only_if_contains:"]
    lines += [f'      - "transformer.{stack}.{n}."' for stack in request.layers.stacks for n in request.kept(stack)]
    lost = lost_by_threshold(request, "rank and factor")
    return TargetText("the job's YAML", "\n".join(lines) + "\n", lost)


def to_onetrainer(request: TargetRequest) -> TargetText:
    """`layer_filter`: one regular expression that is searched for; a comma would split it."""
    lost = lost_by_threshold(request, "rank and factor")
    pattern = rf"^(?:{regex_of_kept(request, {stack: stack for stack in request.layers.stacks})})\."
    text = json.dumps({"layer_filter": pattern, "layer_filter_preset": "custom", "layer_filter_regex": True}, indent=2)
    return TargetText("OneTrainer's configuration", text + "\n", lost)
