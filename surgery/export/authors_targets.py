"""Texts for trainers that take the names of the model's authors; they know the classes that the table names."""

from surgery.anatomy.authors_layout import AUTHORS_STACKS
from surgery.export.target_text import TargetRequest, TargetText, list_layers, lost_by_threshold, regex_of_kept


def to_lycoris_toml(request: TargetRequest) -> TargetText:
    """The preset file of LyCORIS for sd-scripts; all names are those of the model's authors."""
    names = AUTHORS_STACKS[request.layers.class_name]
    patterns = {f"{names[stack]}.{n}.*": request.factors[stack][n] for stack, n in list_layers(request)}
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
    return TargetText(place, "\n".join(lines) + "\n", lost)


def to_reg_dims(request: TargetRequest) -> TargetText:
    """Of `networks.lora_flux` in sd-scripts: regular expressions on LoRA names, each with its rank."""
    names = AUTHORS_STACKS[request.layers.class_name]
    pairs = ",".join(f"{names[stack]}_{n}_={request.rank(stack, n)}" for stack, n in list_layers(request))
    lost = f"factors: a layer has a rank from 1 to {request.max_rank} (--max-rank) by its share"
    module = f"--network_module networks.lora_flux --network_dim {request.max_rank}"
    text = f'{module} --network_args "network_reg_dims={pairs}"\n'
    return TargetText("the command line of sd-scripts", text, lost)


def to_musubi(request: TargetRequest) -> TargetText:
    """`exclude_patterns` and `include_patterns`: regular expressions of whole names, in the authors' layout."""
    names = AUTHORS_STACKS[request.layers.class_name]
    lost = lost_by_threshold(request, "rank and factor")
    pattern = rf"(?:{regex_of_kept(request, names)})\..*"
    text = f"""--network_args "exclude_patterns=[r'.*']" "include_patterns=[r'{pattern}']"\n"""
    return TargetText("the command line of musubi-tuner", text, lost)
