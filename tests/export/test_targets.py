"""Texts for other trainers, read as those trainers read them: which layers they train, and at which rank or factor."""

import importlib
import json
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from typer.testing import CliRunner

from surgery.commands import export
from surgery.errors import InputError
from surgery.export.target_text import TargetRequest, TargetText
from surgery.export.targets import TARGETS, Target, unread_options
from surgery.export.weighted_layers import Settings, choose_factors, plan_layers, weigh_layers
from surgery.profiles.profile_file import write_profile
from surgery.testing import build_tiny_model
from surgery.tracing.steps import find_stack_names

NUM_BLOCKS = 12  # so that 1, 10 and 11 are among them


def build(name, study, **changed):
    """A tiny model of 12 blocks a stack, and a request from a profile of it."""
    from surgery import testing

    stacks = {"num_single_layers": NUM_BLOCKS} if name == "flux" else {}
    model = {"sd3": testing._sd3, "flux": testing._flux}[name](num_layers=NUM_BLOCKS, **stacks)
    rng = np.random.default_rng(0)
    profiles = [
        study.profile_of({study.IMAGE: rng.random((2, NUM_BLOCKS))}, NUM_BLOCKS, stack=stack)
        for stack in find_stack_names(model)
    ]
    profile = profiles[0].__class__(
        {},
        tuple(stack for part in profiles for stack in part.stacks),
        2,
        {key: sums for part in profiles for key, sums in part.streams.items()},
        {},
    )
    settings = Settings(max_factor=8, critical=("transformer_blocks[10]",))
    layers = weigh_layers(profile, model, settings)
    factors = choose_factors(layers, settings)
    return model, TargetRequest(layers, plan_layers(layers, factors, settings), factors, **changed)


@pytest.fixture(scope="module")
def flux(study):
    return build("flux", study)


@pytest.fixture(scope="module")
def sd3(study):
    return build("sd3", study)


def linear_names(model, request, kept=None):
    """The linear layers of blocks (of those that are kept), by a way of its own: the names of the model's modules."""
    found = set()
    for name, module in model.named_modules():
        match = re.match(r"(\w+)\.(\d+)\.", name)
        of_block = isinstance(module, torch.nn.Linear) and match and match[1] in request.layers.stacks
        if of_block and (kept is None or int(match[2]) in kept[match[1]]):
            found.add(name)
    return found


def kept_of(request):
    return {
        stack: {block for block in range(NUM_BLOCKS) if request.layers.share(stack, block) >= request.threshold}
        for stack in request.layers.stacks
    }


def arguments(text):
    """The values of options in a command line."""
    words = shlex.split(text)
    return {word.removeprefix("--"): words[index + 1 :] for index, word in enumerate(words) if word.startswith("--")}


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_peft_gives_each_layer_its_rank(name, study):
    model, request = build(name, study)
    expected = linear_names(model, request)
    exec(TARGETS["peft"].write(request).text, {"transformer": model})
    found = {n: module for n, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert found.keys() == expected
    ranks = set()
    for module_name, module in found.items():
        stack, block = module_name.split(".")[:2]
        rank = request.rank(stack, int(block))
        ranks.add(rank)
        assert (module.r["default"], module.scaling["default"]) == (rank, 1.0), module_name
        assert module.lora_A["default"].weight.shape[0] == rank
    assert {1, 16} <= ranks and len(ranks) > 4
    assert all(m.r["default"] == 16 for n, m in found.items() if n.startswith("transformer_blocks.10."))


def test_simpletuner_peft_and_diffusers_name_whole_modules(flux):
    model, request = flux
    expected = linear_names(model, request, kept_of(request))
    names = json.loads(TARGETS["simpletuner-peft"].write(request).text)["peft_lora_target_modules"]
    assert set(names) == expected and len(names) == len(expected)
    assert arguments(TARGETS["diffusers"].write(request).text)["lora_layers"][0].split(",") == names


def test_peft_takes_exactly_the_named_modules(study):
    """A name is the end of a path: `transformer_blocks.1.x` must not take `single_transformer_blocks.1.x`."""
    model, request = build("flux", study)
    names = json.loads(TARGETS["simpletuner-peft"].write(request).text)["peft_lora_target_modules"]
    model.add_adapter(LoraConfig(r=2, target_modules=names))
    assert {n for n, module in model.named_modules() if isinstance(module, LoraLayer)} == set(names)


def test_the_sd3_script_of_diffusers_takes_blocks_and_layers(study):
    model, request = build("sd3", study)
    found = arguments(TARGETS["diffusers"].write(request).text)
    blocks, layers = found["lora_blocks"][0].split(","), found["lora_layers"][0].split(",")
    targets = [f"transformer_blocks.{block}.{layer}" for block in blocks for layer in layers]
    expected = linear_names(model, request, kept_of(request))
    model.add_adapter(LoraConfig(r=2, target_modules=targets))
    assert {n for n, module in model.named_modules() if isinstance(module, LoraLayer)} == expected


def test_ai_toolkit_looks_for_substrings(flux):
    yaml = pytest.importorskip("yaml")
    model, request = flux
    kwargs = yaml.safe_load(TARGETS["ai-toolkit"].write(request).text)["network"]["network_kwargs"]
    names = linear_names(model, request)
    taken = {n for n in names if any(part in f"transformer.{n}" for part in kwargs["only_if_contains"])}
    assert taken == linear_names(model, request, kept_of(request))


def test_onetrainer_searches_for_one_expression_without_a_comma(flux):
    model, request = flux
    found = json.loads(TARGETS["onetrainer"].write(request).text)
    assert "," not in found["layer_filter"] and found["layer_filter_regex"] is True
    taken = {n for n in linear_names(model, request) if re.search(found["layer_filter"], n)}
    assert taken == linear_names(model, request, kept_of(request))


@pytest.mark.parametrize(("share", "rank"), [(0, 1), (0.2, 4), (0.6, 10), (0.99, 16), (1, 16)])
def test_ranks_go_from_one_to_the_largest_by_share(share, rank):
    layers = SimpleNamespace(share=lambda stack, block: share)
    assert TargetRequest(layers, plan=None, factors={}, max_rank=16).rank("blocks", 0) == rank


def test_the_toml_gives_each_block_of_the_authors_model_its_factor(flux, tmp_path):
    kohya = pytest.importorskip("lycoris.kohya", reason="LyCORIS is not installed")
    _, request = flux
    preset = tmp_path / "PRESET.toml"
    target = TARGETS["sd-scripts"].write(request)
    preset.write_text(target.text)
    blocks = {
        name: torch.nn.ModuleList(torch.nn.ModuleDict({"qkv": torch.nn.Linear(840, 840)}) for _ in range(NUM_BLOCKS))
        for name in ("double_blocks", "single_blocks")
    }
    model = torch.nn.ModuleDict({**blocks, "final": torch.nn.Linear(840, 840)})
    options = dict(part.split("=", 1) for part in arguments(target.place)["network_args"])
    assert options.pop("preset") == "PRESET.toml"
    start = {name: value for name, value in vars(kohya.LycorisNetworkKohya).items() if name.isupper()}
    try:
        network = kohya.create_network(1.0, 10000, 1, None, [], model, preset=str(preset), **options)
    finally:
        for name, value in start.items():
            setattr(kohya.LycorisNetworkKohya, name, value)
    found = {lora.lora_name: lora.lokr_w1.shape[0] for lora in network.unet_loras}
    assert found == {
        f"lora_unet_{author}_{block}_qkv": request.factors[stack][block]
        for stack, author in (("transformer_blocks", "double_blocks"), ("single_transformer_blocks", "single_blocks"))
        for block in range(NUM_BLOCKS)
    }


@pytest.mark.parametrize("name", [name for name in TARGETS if "lycoris" not in name and name != "simpletuner"])
def test_every_target_says_how_finely_it_can_tell_layers_apart_and_what_is_lost(name, flux):
    _, request = flux
    target, written = TARGETS[name], TARGETS[name].write(request)
    assert written.place and written.lost and written.text.endswith("\n")
    if target.granularity == "on or off per layer":
        kept = {stack: len(blocks) for stack, blocks in kept_of(request).items()}
        assert f"{kept['transformer_blocks']} of 12 transformer_blocks" in written.lost
        assert f"{kept['single_transformer_blocks']} of 12 single_transformer_blocks" in written.lost


def test_the_config_for_simpletuner_names_its_file(flux):
    _, request = flux
    written = TARGETS["simpletuner"].write(replace(request, path="my.json"))
    assert json.loads(written.text) == written.config and written.verified is None
    assert written.lines["lycoris_config"] == "my.json"


@pytest.mark.parametrize("name", ["onetrainer", "musubi-tuner", "diffusers", "ai-toolkit", "simpletuner-peft"])
def test_a_threshold_that_leaves_nothing_is_refused(name, study):
    _, request = build("flux", study)
    nothing = TargetRequest(request.layers, request.plan, request.factors, threshold=1.5)
    with pytest.raises(InputError, match=re.escape("no layer has a share of 1.5 or more; lower --threshold")):
        TARGETS[name].write(nothing)


def test_a_trainer_whose_names_are_not_known_is_refused(study):
    model = build_tiny_model("pixart")
    profile = study.profile_of({study.IMAGE: np.random.default_rng(0).random((2, 5))}, 5)
    layers = weigh_layers(profile, model, Settings())
    factors = choose_factors(layers, Settings())
    request = TargetRequest(layers, plan_layers(layers, factors, Settings()), factors)
    with pytest.raises(
        InputError, match="musubi-tuner does not train PixArtTransformer2DModel by names that are known"
    ):
        TARGETS["musubi-tuner"].write(request)


def parameters_of(app):
    """The parameters of `lokr`."""
    return {item.name: item for item in typer.main.get_command(app).commands["lokr"].params}


def test_every_option_that_a_target_reads_is_one_of_the_command():
    read = {option for target in TARGETS.values() for option in target.reads}
    assert read <= parameters_of(export.app).keys()
    for target in TARGETS.values():
        assert unread_options(target) == read - set(target.reads)


@pytest.fixture
def _clay(monkeypatch):
    """A trainer in the table, for one test."""
    clay = Target("clay", "on or off per layer", ("threshold",), lambda request: TargetText("a kiln", "mud\n", "hope"))
    with monkeypatch.context() as patch:
        patch.setitem(TARGETS, "clay", clay)
        yield
    importlib.reload(export)


@pytest.mark.usefixtures("_clay")
def test_a_new_target_is_in_help_messages_and_refused_options(study, tmp_path):
    app = importlib.reload(export).app  # as of a program that has just been started
    assert "clay" in parameters_of(app)["trainer"].help
    model = tmp_path / "model"
    build_tiny_model("pixart").save_config(model)
    values = np.random.default_rng(0).random((2, 5))
    write_profile(study.profile_of({study.IMAGE: values}, 5, recipe={"model": str(model)}), tmp_path / "p.safetensors")

    def run(*options):
        return CliRunner().invoke(app, ["lokr", str(tmp_path / "p.safetensors"), *options])

    done = run("--for", "clay", "--threshold", "0.1")
    assert (done.exit_code, done.stdout.strip()) == (0, "mud")
    assert done.stderr == "clay: on or off per layer; for a kiln\nlost: hope\n"
    document = json.loads(run("--for", "clay", "--json").stdout)
    assert (document["for"], document["granularity"], document["text"]) == ("clay", "on or off per layer", "mud\n")
    assert "--max-rank: clay reads none of it; leave it out" in run("--for", "clay", "--max-rank", "3").stderr
    assert isinstance(run("--for", "cley").exception, InputError)
    assert "onetrainer, musubi-tuner, clay" in str(run("--for", "cley").exception)
