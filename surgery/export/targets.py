"""Contributions of layers -> the text that each trainer takes, with how finely that trainer can tell layers apart.

Names within blocks differ between trainers: those on diffusers' classes take its dotted names; sd-scripts and
musubi-tuner take the names of the model's authors.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from surgery.errors import InputError
from surgery.export.factors import TrainableModule
from surgery.export.lokr_config import LokrPlan
from surgery.export.weighted_layers import WeightedLayers

Granularity = Literal["factor per layer", "rank per layer", "on or off per layer"]


@dataclass(frozen=True)
class TargetRequest:
    """What a target's text is made from; `threshold` is the least share of a layer that is switched on."""

    layers: WeightedLayers
    plan: LokrPlan
    factors: Mapping[str, Sequence[int]]
    max_rank: int = 16
    threshold: float = 0.5

    def rank(self, stack: str, block: int) -> int:
        """From 1 for a share of 0 to `max_rank` for 1."""
        return round(self.layers.share(stack, block) * (self.max_rank - 1) + 1)

    def kept(self, stack: str) -> list[int]:
        """The layers that are switched on."""
        blocks = sorted({module.block for module in self.layers.modules if module.stack == stack})
        return [block for block in blocks if self.layers.share(stack, block) >= self.threshold]

    def kept_modules(self) -> list[TrainableModule]:
        """The linear layers of those."""
        kept = {stack: set(self.kept(stack)) for stack in self.layers.stacks}
        return [m for m in self.layers.modules if m.block in kept[m.stack] and len(m.shape) == 2]


@dataclass(frozen=True)
class TargetText:
    """`text` is ready to paste; `place` says where; `lost` what the trainer can't express."""

    name: str
    granularity: Granularity
    place: str
    text: str
    lost: str


ORIGINAL_STACKS: Mapping[str, Mapping[str, str]] = {  # of diffusers' class -> in the layout of the model's authors
    "FluxTransformer2DModel": {"transformer_blocks": "double_blocks", "single_transformer_blocks": "single_blocks"},
    "SD3Transformer2DModel": {"transformer_blocks": "joint_blocks"},
    "Lumina2Transformer2DModel": {name: name for name in ("layers", "noise_refiner", "context_refiner")},
    "ZImageTransformer2DModel": {name: name for name in ("layers", "noise_refiner", "context_refiner")},
    "WanTransformer3DModel": {"blocks": "blocks"},
    "QwenImageTransformer2DModel": {"transformer_blocks": "transformer_blocks"},
    "HunyuanVideoTransformer3DModel": {
        "transformer_blocks": "double_blocks",
        "single_transformer_blocks": "single_blocks",
    },
}
SD_SCRIPTS = ("FluxTransformer2DModel", "SD3Transformer2DModel", "Lumina2Transformer2DModel")
MUSUBI = (
    *("FluxTransformer2DModel", "WanTransformer3DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel"),
    "HunyuanVideoTransformer3DModel",
)


def _original_stacks(request: TargetRequest, trainer: str, known: Sequence[str]) -> dict[str, str]:
    class_name = request.layers.class_name
    if class_name not in known:
        names = ", ".join(known)
        raise InputError(f"{trainer} does not train {class_name} by names that are known here; it is known for {names}")
    return {stack: ORIGINAL_STACKS[class_name][stack] for stack in request.layers.stacks}


def _lost_by_threshold(request: TargetRequest, granularity: str) -> str:
    kept = {stack: len(request.kept(stack)) for stack in request.layers.stacks}
    total = {part.stack: len(part.shares) for part in request.layers.contributions}
    parts = ", ".join(f"{kept[stack]} of {total[stack]} {stack}" for stack in kept)
    if not sum(kept.values()):
        raise InputError(f"no layer has a share of {request.threshold:g} or more; lower --threshold")
    return (
        f"{granularity}: layers with a share of {request.threshold:g} (--threshold) or more are trained alike "
        f"({parts}), the others not at all"
    )


def _regex_of_kept(request: TargetRequest, names: Mapping[str, str]) -> str:
    """`transformer_blocks\\.(?:0|7|12)|...` of the layers that are switched on."""
    parts = []
    for stack in request.layers.stacks:
        blocks = request.kept(stack)
        if blocks:
            parts.append(rf"{names[stack].replace('.', chr(92) + '.')}\.(?:{'|'.join(map(str, blocks))})")
    return "|".join(parts)


def _same_names(request: TargetRequest) -> dict[str, str]:
    return {stack: stack for stack in request.layers.stacks}


def _layers(request: TargetRequest) -> list[tuple[str, int]]:
    return list(dict.fromkeys((module.stack, module.block) for module in request.layers.modules))


def to_peft(request: TargetRequest) -> TargetText:
    """A `LoraConfig` with rank and alpha patterns; alpha is the rank, so that each layer has scale 1."""
    ranks = {rf"{stack.replace('.', chr(92) + '.')}\.{n}\..*": request.rank(stack, n) for stack, n in _layers(request)}
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
    return TargetText("peft", "rank per layer", "Python, before training", text, lost)


def to_lycoris_toml(request: TargetRequest) -> TargetText:
    """The preset file of LyCORIS for sd-scripts; all names are those of the model's authors."""
    names = _original_stacks(request, "sd-scripts", SD_SCRIPTS)
    patterns = {f"{names[stack]}.{n}.*": request.factors[stack][n] for stack, n in _layers(request)}
    lines = ["enable_conv = false", "use_fnmatch = true", "unet_target_module = []", "unet_target_name = ["]
    lines += [*(f'  "{pattern}",' for pattern in patterns), "]"]
    lines += ["text_encoder_target_module = []", "text_encoder_target_name = []"]
    for pattern, factor in patterns.items():
        lines += ["", f'[name_algo_map."{pattern}"]', 'algo = "lokr"', f"factor = {factor}", "full_matrix = true"]
    place = (
        "a file PRESET.toml, and: --network_module lycoris.kohya --network_dim 10000 --network_alpha 1 --network_args "
        '"preset=PRESET.toml" "algo=lokr" "full_matrix=True" "factor=16"'
    )
    lost = "components: all linear layers of a block have its factor, as those of the authors' blocks are other ones"
    return TargetText("sd-scripts", "factor per layer", place, "\n".join(lines) + "\n", lost)


def to_reg_dims(request: TargetRequest) -> TargetText:
    """Of `networks.lora_flux` in sd-scripts: regular expressions on LoRA names, each with its rank."""
    names = _original_stacks(request, "network_reg_dims of sd-scripts", SD_SCRIPTS[:1])
    pairs = ",".join(f"{names[stack]}_{n}_={request.rank(stack, n)}" for stack, n in _layers(request))
    lost = f"factors: a layer has a rank from 1 to {request.max_rank} (--max-rank) by its share"
    module = f"--network_module networks.lora_flux --network_dim {request.max_rank}"
    text = f'{module} --network_args "network_reg_dims={pairs}"\n'
    return TargetText("sd-scripts-reg-dims", "rank per layer", "the command line of sd-scripts", text, lost)


def to_simpletuner_peft(request: TargetRequest) -> TargetText:
    """`peft_lora_target_modules`: the full names of all linear layers that are trained."""
    names = [module.name for module in request.kept_modules()]
    text = json.dumps({"lora_type": "standard", "peft_lora_target_modules": names}, indent=2) + "\n"
    lost = _lost_by_threshold(request, "rank and factor")
    return TargetText("simpletuner-peft", "on or off per layer", "SimpleTuner's config.json", text, lost)


def to_diffusers(request: TargetRequest) -> TargetText:
    """`--lora_layers` of the training scripts of diffusers; that of SD3 takes `--lora_blocks` as well."""
    lost = _lost_by_threshold(request, "rank")
    place = "the command line of a train_dreambooth_lora script of diffusers"
    if request.layers.class_name == "SD3Transformer2DModel":
        blocks = request.kept(request.layers.stacks[0])
        names = list(dict.fromkeys(module.inside for module in request.kept_modules()))
        text = f'--lora_blocks "{",".join(map(str, blocks))}" --lora_layers "{",".join(names)}"\n'
        return TargetText("diffusers", "on or off per layer", place, text, lost)
    text = f'--lora_layers "{",".join(module.name for module in request.kept_modules())}"\n'
    return TargetText("diffusers", "on or off per layer", place, text, lost)


def to_ai_toolkit(request: TargetRequest) -> TargetText:
    """`only_if_contains`: substrings of names that begin with `transformer.`."""
    lines = ["network:", "  type: lora", f"  linear: {request.max_rank}", f"  linear_alpha: {request.max_rank}"]
    lines += ["  network_kwargs:", "    only_if_contains:"]
    lines += [f'      - "transformer.{stack}.{n}."' for stack in request.layers.stacks for n in request.kept(stack)]
    lost = _lost_by_threshold(request, "rank and factor")
    return TargetText("ai-toolkit", "on or off per layer", "the job's YAML", "\n".join(lines) + "\n", lost)


def to_onetrainer(request: TargetRequest) -> TargetText:
    """`layer_filter`: one regular expression that is searched for; a comma would split it."""
    lost = _lost_by_threshold(request, "rank and factor")
    pattern = rf"^(?:{_regex_of_kept(request, _same_names(request))})\."
    text = json.dumps({"layer_filter": pattern, "layer_filter_preset": "custom", "layer_filter_regex": True}, indent=2)
    return TargetText("onetrainer", "on or off per layer", "OneTrainer's configuration", text + "\n", lost)


def to_musubi(request: TargetRequest) -> TargetText:
    """`exclude_patterns` and `include_patterns`: regular expressions of whole names, in the authors' layout."""
    names = _original_stacks(request, "musubi-tuner", MUSUBI)
    lost = _lost_by_threshold(request, "rank and factor")
    pattern = rf"(?:{_regex_of_kept(request, names)})\..*"
    text = f"""--network_args "exclude_patterns=[r'.*']" "include_patterns=[r'{pattern}']"\n"""
    return TargetText("musubi-tuner", "on or off per layer", "the command line of musubi-tuner", text, lost)


TARGETS: Mapping[str, Callable[[TargetRequest], TargetText]] = {
    "peft": to_peft,
    "sd-scripts": to_lycoris_toml,
    "sd-scripts-reg-dims": to_reg_dims,
    "simpletuner-peft": to_simpletuner_peft,
    "diffusers": to_diffusers,
    "ai-toolkit": to_ai_toolkit,
    "onetrainer": to_onetrainer,
    "musubi-tuner": to_musubi,
}
