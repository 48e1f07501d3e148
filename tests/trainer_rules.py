"""Which modules each trainer trains, by a small statement of its own of the rule that the trainer publishes.

The versions are those of the table of trainers. Names of the classes that are the trainers' own are those of one block.
"""

import ast
import json
import re
import shlex

import yaml

MUSUBI_EXCLUDES = {  # 0.3.4: by network module, the expressions that it adds to those given
    "networks.lora_flux": r".*(norm).*",
    "networks.lora_flux_2": r".*(norm).*",
    "networks.lora_wan": r".*(patch_embedding|text_embedding|time_embedding|time_projection|norm|head).*",
    "networks.lora_qwen_image": r".*(_mod_).*",
    "networks.lora_zimage": r".*(_modulation|_refiner).*",
    "networks.lora": r".*(img_mod|txt_mod|modulation).*",
    "networks.lora_hv_1_5": r".*(_in).*",
    "networks.lora_framepack": r".*(norm).*",
    "networks.lora_kandinsky": r".*modulation.*",
}
FLUX_MODULES = ("networks.lora_flux", "networks.lora_flux_2")  # these also leave out, where no expression is given:
FLUX_EXCLUDES = r".*(img_mod\.lin|txt_mod\.lin|modulation\.lin).*"


def arguments(text):
    """The values of options in a command line."""
    words = shlex.split(text)
    return {
        word.removeprefix("--"): [*iter_values(words[index + 1 :])]
        for index, word in enumerate(words)
        if word.startswith("--")
    }


def iter_values(words):
    for word in words:
        if word.startswith("--"):
            return
        yield word


def musubi(text, names):
    """`{name: scale}`: fullmatch of the names in blocks; what is excluded, and not included, is left out."""
    given = arguments(text)
    patterns = {key: ast.literal_eval(value) for key, value in (pair.split("=", 1) for pair in given["network_args"])}
    module = given["network_module"][0]
    excludes = [*patterns["exclude_patterns"], MUSUBI_EXCLUDES[module]]
    scale = float(given["network_alpha"][0]) / int(given["network_dim"][0])
    return {
        name: scale
        for name in names
        if not any(re.fullmatch(pattern, name) for pattern in excludes)
        or any(re.fullmatch(pattern, name) for pattern in patterns["include_patterns"])
    }


def musubi_by_itself(module, names):
    """The names that it trains where nothing is given."""
    excludes = [MUSUBI_EXCLUDES[module], *([FLUX_EXCLUDES] if module in FLUX_MODULES else [])]
    return {name for name in names if not any(re.fullmatch(pattern, name) for pattern in excludes)}


def sd_scripts(text, names):
    """`{name: (rank, scale, learning rate)}`: LoRA names are searched, the first expression that is found wins."""
    given = arguments(text)
    pairs = dict(pair.split("=", 1) for pair in given["network_args"])
    dims, rates = (_pairs(pairs.get(key, "")) for key in ("network_reg_dims", "network_reg_lrs"))
    alpha, rank = float(given["network_alpha"][0]), int(given["network_dim"][0])
    rate = float(given["unet_lr"][0]) if "unet_lr" in given else None
    found = {}
    for name in names:
        lora_name = f"lora_unet_{name}".replace(".", "_")
        dim = next((int(value) for key, value in dims.items() if re.search(key, lora_name)), None)
        if dim is None:
            dim = rank if _is_among(pairs, lora_name) else 0
        if dim:
            own = next((float(value) for key, value in rates.items() if re.search(key, lora_name)), rate)
            found[name] = (dim, alpha / dim, own)
    return found


def _pairs(text):
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


def _is_among(pairs, lora_name):
    """Of `train_*_block_indices`; without them every block is."""
    kind = next(kind for kind in ("double", "single", "joint", "") if kind in lora_name)
    chosen = pairs.get({"joint": "train_block_indices"}.get(kind, f"train_{kind}_block_indices"))
    number = lora_name.split("_")[4]
    return chosen is None or (chosen != "none" and number in chosen.split(","))


def ai_toolkit(text, names):
    """`{name: scale}`, and "full" for all weights: substrings of names that begin with `transformer.`."""
    network = yaml.safe_load(text)["network"]
    assert network["transformer_only"] is False  # else stacks are dropped that are named
    kwargs = network["network_kwargs"]
    scale = network["linear_alpha"] / network["linear"]
    taken = [name for name in names if any(part in f"transformer.{name}" for part in kwargs["only_if_contains"])]
    full = kwargs.get("full_if_contains", [])
    return {name: "full" if any(part in f"transformer.{name}" for part in full) else scale for name in taken}


def onetrainer(text, names):
    """`{name: scale}`: expressions between commas, each searched for; convolutions are among the names."""
    config = json.loads(text)
    assert config["training_method"] == config["peft_type"] == "LORA" and config["layer_filter_regex"] is True
    assert config["layer_filter_preset"] == "custom" and config["text_encoder"] == {"train": False}
    scale = config["lora_alpha"] / config["lora_rank"]
    patterns = config["layer_filter"].split(",")
    return {name: scale for name in names if any(re.search(pattern, name) for pattern in patterns)}


def ends(names, given):
    """PEFT's rule for a list: whole names, or their ends after a dot."""
    return {name for name in names if any(name == end or name.endswith(f".{end}") for end in given)}


def simpletuner(text, names):
    """`{name: scale}` of a LoRA by PEFT; `model_type` is full where it is not given."""
    config = json.loads(text)
    assert (config["model_type"], config["lora_type"]) == ("lora", "standard")
    scale = config["lora_alpha"] / config["lora_rank"]
    return dict.fromkeys(ends(names, config["peft_lora_target_modules"]), scale)


def diffusers_script(text, names, has_alpha):
    """`{name: scale}`: without `--lora_alpha` alpha is the rank; `--lora_blocks` stand before the layers."""
    given = arguments(text)
    assert ("lora_alpha" in given) == has_alpha  # an option that a script does not have is refused by it
    rank = int(given["rank"][0])
    layers = given["lora_layers"][0].split(",")
    if "lora_blocks" in given:
        blocks = given["lora_blocks"][0].split(",")
        layers = [f"transformer_blocks.{block}.{layer}" for block in blocks for layer in layers]
    alpha = int(given["lora_alpha"][0]) if has_alpha else rank
    return dict.fromkeys(ends(names, layers), alpha / rank)


def peft(config, names):
    """`{name: (rank, scale)}`: whole names match; the first pattern that matches up to the end says the rank."""
    found = {}
    for name in names:
        if re.fullmatch(config.target_modules, name):
            rank, alpha = (
                next((value for key, value in given.items() if re.match(rf"(.*\.)?({key})$", name)), default)
                for given, default in ((config.rank_pattern, config.r), (config.alpha_pattern, config.lora_alpha))
            )
            found[name] = (rank, alpha / rank)
    return found
