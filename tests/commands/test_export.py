"""`surgery export lokr` and `surgery export check`: files, texts, exit statuses, and what is refused."""

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest

from surgery.commands import export
from surgery.export import lycoris_apply, verify_lokr
from surgery.export.contributions import measure_contributions
from surgery.export.shipped import shipped_contributions, shipped_model
from surgery.export.weighted_layers import PRESETS
from surgery.profiles.profile_file import write_profile
from surgery.testing import build_tiny_model

pytest.importorskip("lycoris", reason="LyCORIS is not installed")
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests" / "configs"
SD35 = CONFIGS / "sd3.5-large" / "transformer"
STUDY = ("--preset", "sd35-layerwise")


@pytest.fixture(scope="module", autouse=True)
def _built_once():
    """Each model is built once for all tests; no command changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "build_transformer", functools.cache(export.build_transformer))
        yield


@pytest.fixture(scope="session")
def study_profile(study, tmp_path_factory):
    """The file of the profile that the study's heat maps make."""
    path = tmp_path_factory.mktemp("profiles") / "sd35.safetensors"
    write_profile(study.profile_of_the_study(), path)
    return path


@pytest.fixture
def pixart_profile(study, tmp_path):
    """Writes a profile of PixArt-alpha; keywords change it."""

    def write(num_blocks=28, heatmap=None, **changed):
        rng = np.random.default_rng(0)
        values = rng.random((4, num_blocks)) if heatmap is None else heatmap
        model = str(CONFIGS / "pixart-alpha" / "transformer")
        profile = study.profile_of({study.IMAGE: values}, num_blocks, recipe={"samples": [], "model": model})
        path = tmp_path / "pixart.safetensors"
        write_profile(replace(profile, **changed), path)
        return path

    return write


@pytest.fixture
def lokr(surgery_command):
    def run(*arguments):
        return surgery_command("export", "lokr", *arguments)

    return run


@pytest.fixture
def check(surgery_command):
    def run(file, *options):
        return surgery_command("export", "check", file, *options)

    return run


def test_the_study_is_exported_verified_and_equal_to_what_is_checked_in(lokr, study_profile, tmp_path, study):
    out = tmp_path / "lycoris_config.json"
    result = lokr(study_profile, "--model", SD35, *STUDY, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert out.read_text() == (ROOT / "exports" / "sd35-large" / "lycoris_config.json").read_text()
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "transformer_blocks of SD3Transformer2DModel: encoder_hidden_states x 0.333, hidden_states x 0.667; "
        "measured to layer 36"
    )
    assert lines[2].split() == ["0", "critical", "1|2", "as", "asked", "177,438,758"]
    assert lines[5].split() == ["3", "0.086", "11|22", "2432:", "8|19", "9728:", "8", "14592:", "8", "2,721,992"]
    assert lines[40:] == [
        "trained: 529 modules, 765,636,738 parameters in all",
        f"verified: LyCORIS {lycoris_apply.lycoris_version()} builds exactly these modules, factors and parameters",
        "SimpleTuner's config.json must say:",
        '  "model_type": "lora",',
        '  "lora_type": "lycoris",',
        f'  "lycoris_config": "{out}"',
        f"written to {out}",
    ]
    asked = [int(line.split()[2].split("|")[0]) for line in lines[2:40]]
    assert tuple(asked) == study.FACTORS


def test_without_a_profile_a_preset_has_its_contributions(lokr, tmp_path, study):
    """What comes with the package is what the study's heat maps give, and so is the export."""
    out = tmp_path / "lycoris_config.json"
    result = lokr(*STUDY, "--no-verify", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert out.read_text() == (ROOT / "exports" / "sd35-large" / "lycoris_config.json").read_text()
    config = Path(shipped_model("sd35-layerwise"), "config.json")
    assert config.read_text() == (SD35 / "config.json").read_text()
    weighing = PRESETS["sd35-layerwise"].weighing
    measured = measure_contributions(study.profile_of_the_study(), weighing)
    assert shipped_contributions("sd35-layerwise", "SD3Transformer2DModel", {"transformer_blocks": 38}) == measured


def test_a_preset_without_a_profile_wants_its_own_model(lokr, tmp_path):
    build_tiny_model("sd3").save_config(tmp_path / "other")
    refused(lokr(), "give a profile (`surgery profile` writes one), or a --preset, which has contributions")
    refused(
        lokr(*STUDY, "--model", tmp_path / "other"),
        "are those of Stable Diffusion 3.5 Large, a SD3Transformer2DModel with 38 transformer_blocks; this is a "
        "SD3Transformer2DModel with 5 transformer_blocks: give a profile of it",
    )
    result = lokr(*STUDY, "--model", SD35, "--part", "conditional")
    assert result.exit_code == 2 and "--part: it is of a profile, and there is none; leave it out" in result.stderr


@pytest.mark.slow
def test_the_published_layout_is_not_what_it_says(lokr, check, study_profile, tmp_path):
    out, fixed = tmp_path / "peft_config.json", tmp_path / "fixed.json"
    result = lokr(study_profile, "--model", SD35, *STUDY, "--layout", "published", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "builds 529 modules of it with 1,123,057,848 parameters, which is not what is asked" in result.stdout
    judged = check(out, "--model", SD35)
    assert judged.exit_code == 1
    assert judged.stdout.startswith(f"{out} for SD3Transformer2DModel: 64 of 529 modules are trained as asked; 1.12 G")
    assert "- target_module names the class JointTransformerBlock, which claims all its children" in judged.stdout
    mended = check(out, "--model", SD35, "--fix", fixed)
    assert mended.exit_code == 0, mended.stderr
    assert f"repaired in {fixed}: 529 of 529 modules are trained as asked; 766 M parameters" in mended.stdout
    again = check(fixed, "--model", SD35, "--json")
    document = json.loads(again.stdout)
    assert (again.exit_code, document["as_asked"], document["asked"], document["faults"]) == (0, 529, 529, [])
    model = export.build_transformer(str(SD35))
    roads = [fixed, ROOT / "exports" / "sd35-large" / "lycoris_config.json"]  # two roads: repaired, and exported
    trained = [lycoris_apply.apply_config(json.loads(road.read_text()), model) for road in roads]
    assert [[replace(item, dim=0) for item in found] for found in trained] == [
        [replace(item, dim=0) for item in trained[0]]
    ] * 2


def test_a_profile_says_of_which_model_it_is(lokr, pixart_profile, tmp_path):
    result = lokr(pixart_profile(), "--out", tmp_path / "out.json", "--json")
    document = json.loads(result.stdout)
    assert (document["model_class"], document["modules"], document["for"]) == (
        "PixArtTransformer2DModel",
        280,
        "simpletuner",
    )
    assert document["parameters"] == document["verified"]["parameters"]
    assert len(document["stacks"]["transformer_blocks"]["factors"]) == 28
    assert json.loads((tmp_path / "out.json").read_text()) == document["config"]


def test_without_out_the_text_alone_is_on_standard_output(lokr, pixart_profile):
    result = lokr(pixart_profile())
    config = json.loads(result.stdout)
    assert config["apply_preset"]["target_module"] == ["__none__"] and "verified: LyCORIS" in result.stderr


def test_a_budget_is_kept_and_used(lokr, pixart_profile):
    profile = pixart_profile()

    def parameters(*options):
        return json.loads(lokr(profile, "--json", "--no-verify", *options).stdout)["parameters"]

    by_factor = sorted(parameters("--max-factor", factor) for factor in (4, 8, 16, 32))
    assert parameters("--budget", by_factor[2]) >= by_factor[2] * 0.9
    assert parameters("--budget", by_factor[2]) <= by_factor[2]
    result = lokr(profile, "--budget", 1000)
    assert result.exit_code == 1 and "no factor up to 32 trains 1,000 parameters or fewer" in result.stderr


def test_steps_are_options(lokr, study_profile, study):
    """The preset's values, written out, give the preset's factors."""
    written = [
        *("--clip-percentile", 90, "--weight", f"{study.IMAGE}=2/3", "--weight", f"{study.TEXT}=1/3"),
        *("--max-factor", 12, "--critical", "transformer_blocks[0, 31, 35]", "--normalize", "apart"),
        *(part for name in ("norm1", "norm1_context", "ff", "ff_context") for part in ("--multiply", f"{name}=1")),
        *("--multiply", "*=2"),
    ]
    common = ("--model", SD35, "--no-verify", "--json")
    found, preset = (json.loads(lokr(study_profile, *options, *common).stdout) for options in (written, STUDY))
    assert found["config"] == preset["config"]
    assert tuple(found["stacks"]["transformer_blocks"]["factors"]) == study.FACTORS


def test_powers_of_two_are_exact(lokr, study_profile):
    options = ("--model", SD35, *STUDY, "--powers-of-two", "--no-verify", "--json")
    factors = json.loads(lokr(study_profile, *options).stdout)["stacks"]["transformer_blocks"]["factors"]
    assert set(factors) <= {1, 2, 4, 8, 16}


@pytest.mark.parametrize("trainer", ["peft", "simpletuner-peft", "ai-toolkit", "onetrainer"])
def test_other_trainers_get_their_text(lokr, pixart_profile, trainer, tmp_path):
    result = lokr(pixart_profile(), "--for", trainer, "--out", tmp_path / "text")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{trainer}: ") and any(line.startswith("lost: ") for line in lines)
    assert lines[1].split() == ["layer", "share", "trained", "alpha", "/", "rank"]
    assert {line.split()[-1] for line in lines[2:30]} <= {"1", "no"}  # the scale of each layer that is trained
    assert re.search(r"^compared with \S+ \S.* on \d{4}-\d\d-\d\d$", lines[-2])
    assert "transformer_blocks" in (tmp_path / "text").read_text()


def test_lycoris_is_asked_for_where_it_is_missing(lokr, pixart_profile, tmp_path, monkeypatch):
    def missing():
        raise lycoris_apply.InputError(f"LyCORIS is not installed; {lycoris_apply.INSTALL}")

    monkeypatch.setattr(lycoris_apply, "lycoris_version", missing)
    monkeypatch.setattr(verify_lokr, "lycoris_version", missing)
    out = tmp_path / "out.json"
    result = lokr(pixart_profile(), "--out", out)
    assert (result.exit_code, out.exists()) == (1, False)
    assert result.stderr == (
        "LyCORIS is not installed; `pip install 'layer-surgery[lycoris]'` installs it, or leave the check out with "
        "--no-verify\n"
    )
    assert lokr(pixart_profile(), "--out", out, "--no-verify").exit_code == 0 and out.exists()


@pytest.mark.slow
def test_no_verify_needs_no_lycoris(pixart_profile, tmp_path):
    code = (
        "import sys\nsys.modules['lycoris'] = None\n"
        f"sys.argv = ['surgery', 'export', 'lokr', {str(pixart_profile())!r}, '--no-verify', '--json']\n"
        "from surgery.commands.main import main\nmain()"
    )
    environment = {**os.environ, "SURGERY_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is None


def refused(result, message):
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr, result.stderr


def test_a_profile_of_another_model_is_refused(lokr, pixart_profile, study_profile):
    refused(
        lokr(pixart_profile(), "--model", SD35),
        "the profile is of another model: it has 28 blocks of transformer_blocks, and this SD3Transformer2DModel",
    )
    refused(
        lokr(study_profile, "--model", CONFIGS / "z-image" / "transformer"),
        'the profile is of another model: there is no stack "transformer_blocks" in ZImageTransformer2DModel',
    )
    model = str(CONFIGS / "pixart-alpha" / "transformer")
    recipe = {"samples": [], "model": model, "identity": {"class_name": "DiTTransformer2DModel"}}
    refused(
        lokr(pixart_profile(recipe=recipe)),
        "the profile is of another model: a DiTTransformer2DModel, and this is a PixArtTransformer2DModel",
    )


def test_profiles_that_are_damaged_are_refused(lokr, pixart_profile, tmp_path):
    profile = pixart_profile()
    content = profile.read_bytes()
    profile.write_bytes(content[:-8])
    refused(lokr(profile), f"the profile {profile} can't be read")
    profile.write_bytes(content.replace(np.float64(1.0).tobytes(), np.float64("nan").tobytes()))
    refused(lokr(profile), "has values that are no finite numbers")
    refused(lokr(tmp_path / "gone.safetensors"), "can't be read")


def test_profiles_that_lack_something_are_refused(lokr, pixart_profile, study):
    empty = np.random.default_rng(0).random((4, 28))
    empty[2] = np.nan
    refused(lokr(pixart_profile(heatmap=empty)), "the timestep bins 2 (of 4) have no sample of transformer_blocks")
    assert lokr(pixart_profile(heatmap=empty), "--ignore-empty-bins", "--no-verify").exit_code == 0
    refused(
        lokr(pixart_profile(), "--weight", "text=1"), 'there is no stream "text" in the profile; there is hidden_states'
    )
    refused(
        lokr(pixart_profile(recipe={"samples": []})), "the profile does not say of which model it is; name it (--model)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--for", "simpletuna"), 'there is no trainer "simpletuna"; there are simpletuner'),
        (("--preset", "sd3"), 'there is no preset "sd3"; there is sd35-layerwise'),
        (("--layout", "new"), 'there is no layout "new"; there are works, published'),
        (("--normalize", "both"), 'there is no normalisation "both"; there are apart, jointly'),
        (("--weight", "hidden_states"), '"hidden_states" is no weight of a stream'),
        (("--multiply", "ff=0"), '"ff=0" is no multiplier; write COMPONENT=N with N from 1'),
        (("--multiply", "mlp=2"), 'no block has linear layers in "mlp"; blocks have attn1, attn2, ff'),
        (("--critical", "transformer_blocks[30]"), "there is no layer 30; transformer_blocks has layers 0 to 27"),
        (("--critical", "blocks[1]"), 'there is no stack "blocks" in PixArtTransformer2DModel'),
        (("--stack", "blocks"), "the profile has no stack blocks; it has transformer_blocks"),
        (("--max-factor", "33"), "the largest factor must be from 1 to 32, not 33"),
        (("--max-factor", "0"), "the largest factor must be from 1 to 32, not 0"),
        (("--clip-percentile", "0"), "distances can't be clipped at percentile 0"),
        (("--model", "/nowhere/at/all"), "there is no folder /nowhere/at/all"),
        (("--out", "/dev/null/out.json"), "/dev/null is no folder that can be written to"),
        (("--out", "."), ". is a folder; give a file"),
        (("--learning-rate", "0", "--for", "sd-scripts-reg-dims"), "the learning rate must be above 0, not 0"),
        (("--for", "diffusers"), "does not train PixArtTransformer2DModel by names that are known here"),
        (
            ("--for", "musubi-tuner"),
            "musubi-tuner does not train PixArtTransformer2DModel by names that are known here",
        ),
    ],
)
def test_options_that_do_not_do_are_refused(lokr, pixart_profile, options, message):
    refused(lokr(pixart_profile(), *options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-factor", "0", "--budget", "9"), "--max-factor: --budget solves for it; leave it out"),
        (("--for", "peft", "--budget", "9"), "--budget: peft reads none of it; leave it out"),
        (("--for", "peft", "--layout", "published"), "--layout: peft reads none of it; leave it out"),
        (("--max-rank", "9"), "--max-rank: simpletuner reads none of it; leave it out"),
    ],
)
def test_options_that_would_do_nothing_are_refused(lokr, pixart_profile, options, message):
    result = lokr(pixart_profile(), *options)
    assert result.exit_code == 2 and message in result.stderr


def test_an_existing_file_is_replaced_by_force_alone(lokr, pixart_profile, tmp_path):
    out = tmp_path / "out.json"
    out.write_text("mine")
    refused(
        lokr(pixart_profile(), "--no-verify", "--out", out), f"{out} is there already; give another file, or --force"
    )
    assert out.read_text() == "mine"
    assert lokr(pixart_profile(), "--no-verify", "--out", out, "--force").exit_code == 0


def test_factors_above_32_are_lowered_with_a_message(lokr, pixart_profile):
    result = lokr(pixart_profile(), "--max-factor", 32, "--multiply", "*=2")
    assert "factors above 32 were lowered to 32 in" in result.stderr


def test_a_config_is_not_repaired_in_place(check, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"algo": "lokr"}')
    refused(check(file, "--model", SD35, "--fix", file), f"{file} is the config itself; give another file")
    refused(check(tmp_path / "gone.json", "--model", SD35), "gone.json can't be read")


PIXART = {
    **{"_class_name": "PixArtTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 4},
    **{"in_channels": 4, "out_channels": 8, "sample_size": 16, "patch_size": 2, "cross_attention_dim": 32},
    **{"caption_channels": 24},
}
NOTE = (
    f"note: judged by the classes of diffusers {diffusers.__version__}; SimpleTuner 4.10.1 has a "
    "PixArtTransformer2DModel of its own, in which BasicTransformerBlock is called PixArtSelfFlowTransformerBlock"
)


@pytest.fixture
def judged(check, tmp_path):
    """Judges a config of a small PixArt, written to a file of a given name."""

    def run(config, *options, name="config.json"):
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(json.dumps(PIXART))
        (tmp_path / name).write_text(config if isinstance(config, str) else json.dumps(config))
        return check(tmp_path / name, "--model", model, *options)

    return run


def test_the_verdict_says_what_is_trained_why_and_whose_classes_it_is_of(judged, tmp_path):
    config = {
        **{"algo": "lokr", "multiplier": 1.0, "linear_dim": 10000, "linear_alpha": 1, "factor": 4, "full_matrix": True},
        "apply_preset": {"unet_target_module": ["Attention"], "exclude_name": ["(?!transformer_blocks|proj_out)"]},
    }
    result = judged(config)
    cause = (
        "unet_target_module: SimpleTuner's loader ignores these keys, and trains 9 modules that they leave out; it "
        "reads target_module and target_name"
    )
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'config.json'} for PixArtTransformer2DModel: 32 of 32 modules are trained as asked, and 9 that "
        f"were not asked for; 4816 parameters (4,816 instead of 2,560; LyCORIS {lycoris_apply.lycoris_version()})",
        "                        asked    trained",
        *(f"  transformer_blocks.{block}  nothing  factor 4" for block in range(4)),
        "  proj_out              nothing  factor 4",
        f"- {cause}",
        NOTE,
    ]
    document = json.loads(judged(config, "--json").stdout)
    assert {item["cause"] for item in document["differences"]} == {cause} and f"note: {document['note']}" == NOTE
    fixed = judged(config, "--fix", tmp_path / "fixed.json")
    assert fixed.exit_code == 0 and judged((tmp_path / "fixed.json").read_text()).exit_code == 0
    refused(
        judged(config, "--fix", tmp_path / "fixed.json"), "fixed.json is there already; give another file, or --force"
    )


PRESET = 'unet_target_module = []\n[name_algo_map."proj_out"]\nalgo = "lokr"\nfull_matrix = true\n'
RUN = 'network_module = "lycoris.kohya"\nnetwork_args = ["preset=preset.toml", "factor=4"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.toml is no preset of LyCORIS: it is empty; there are enable_conv, "),
        ("learning_rate = 1", 'is no preset of LyCORIS: "learning_rate" is no key of one; there are enable_conv, '),
        ("x = ", "config.toml is no TOML: Invalid value"),
        (
            RUN.replace("kohya", "x"),
            'loads lycoris.x, which is not LyCORIS; a config of LyCORIS says network_module = "',
        ),
        (
            RUN.replace("preset.toml", "x"),
            'names the preset "x", and there is no such file; there are full, full-lin, ',
        ),
        (RUN.replace("factor=4", "factor"), '"factor" in network_args is no KEY=VALUE'),
        (RUN, "options of a training run name a preset; give the preset itself to --fix, and then name its repair"),
    ],
)
def test_a_toml_of_sd_scripts_that_does_not_do_is_refused(judged, tmp_path, text, message):
    (tmp_path / "preset.toml").write_text(PRESET)
    result = judged(text, "--fix", tmp_path / "fixed.toml", name="config.toml")
    assert (result.exit_code, result.stdout, (tmp_path / "fixed.toml").exists()) == (1, "", False)
    assert message in result.stderr


def test_a_preset_of_sd_scripts_is_repaired_as_one(judged, tmp_path):
    refused(judged(PRESET, "--fix", tmp_path / "x.json", name="config.toml"), "x.json must be named .toml")
    assert judged(PRESET, "--fix", tmp_path / "fixed.toml", name="config.toml").exit_code == 0
    assert (tmp_path / "fixed.toml").read_text() == (
        'unet_target_module = ["__none__"]\nuse_fnmatch = true\nunet_target_name = ["proj_out"]\n\n'
        '[name_algo_map."proj_out"]\nalgo = "lokr"\nfull_matrix = true\n'
    )


def test_what_only_the_author_can_decide_is_not_repaired(judged, tmp_path):
    entries = {"proj_ou?": {"factor": 2}, "proj_o*": {"factor": 8}}
    preset = {"target_module": ["__none__"], "use_fnmatch": True, "name_algo_map": entries}
    config = {"algo": "lokr", "linear_dim": 10000, "full_matrix": True, "apply_preset": preset}
    refused(
        judged(config, "--fix", tmp_path / "fixed.json"),
        'the config can\'t be repaired: "proj_ou?" and "proj_o*" take the same modules, and say otherwise (1 such '
        "patterns); LyCORIS takes the first: leave one out",
    )


def test_a_part_is_exported_by_itself(lokr, study, tmp_path):
    """The branches' distances differ, and so do their factors."""
    rng, configs = np.random.default_rng(0), {}
    model = str(CONFIGS / "pixart-alpha" / "transformer")
    alone = {
        branch: study.profile_of({study.IMAGE: rng.random((4, 28))}, 28, recipe={"samples": [], "model": model})
        for branch in ("conditional", "unconditional")
    }
    streams = {
        (stack, stream, branch): sums
        for branch, one in alone.items()
        for (stack, stream, _), sums in one.streams.items()
    }
    both = tmp_path / "both.safetensors"
    write_profile(replace(alone["conditional"], streams=streams), both)
    for branch, profile in alone.items():
        write_profile(profile, tmp_path / "one.safetensors")
        expected = lokr(tmp_path / "one.safetensors", "--no-verify")
        part = lokr(both, "--no-verify", "--part", branch)
        assert part.exit_code == 0 and part.stdout == expected.stdout
        configs[branch] = part.stdout
    assert configs["conditional"] != configs["unconditional"] != lokr(both, "--no-verify").stdout
