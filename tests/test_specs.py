"""Every spec that is checked in is planned for its model, in its real size; nothing is downloaded."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import yaml

from surgery.anatomy.anatomy import Anatomy
from surgery.anatomy.sources import inspect
from surgery.bundled import DEMO_NAME, demo_specs
from surgery.errors import NotYetError, SpecError
from surgery.experiment.layer_edit import find_layer_edit
from surgery.plan.atoms import Atom
from surgery.plan.lower import lower_spec
from surgery.plan.paired import ModelPlan
from surgery.plan.planned_pair import plan_model
from surgery.plan.sweep import expand_sweep
from surgery.plan.windowed import WindowedPlan, plans_of
from surgery.spec.load import Spec, load_spec, read_spec

ROOT = Path(__file__).parents[1]
CONFIGS = Path(__file__).parent / "configs"
ALL = sorted((ROOT / "specs").rglob("*.yaml"))
SWEEPS = [path for path in ALL if load_spec(path).variables]
SPECS = [path for path in ALL if path not in SWEEPS]

# Folder of specs -> the model that they name, and how many parameters it is published with, in 10^9.
MODELS = {
    "flux.1-schnell": ("black-forest-labs/FLUX.1-schnell", 11.9),
    "sd3-medium": ("stabilityai/stable-diffusion-3-medium-diffusers", 2.03),
    "auraflow-v0.2": ("fal/AuraFlow-v0.2", 6.8),
    "pixart-alpha": ("PixArt-alpha/PixArt-XL-2-512x512", 0.61),
    "wan2.2-a14b": ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 14.29),  # each of its two transformers
    "wan2.1-1.3b": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 1.42),
    "sd3.5-large": ("stabilityai/stable-diffusion-3.5-large", 8.06),
}
BUNDLED = {"demo", "demo-sweeps", "demo-windows"}

# Sweeps over single layers: what each map of damage is of, and over how many layers.
MAPS = {
    "demo-sweeps/skip_sweep_each": {("transformer_blocks", "skip"): 12},
    "demo-sweeps/replace_sweep_each": {
        ("transformer_blocks", f"{part} = zero"): 12 for part in ("attn1", "attn2", "ff")
    },
    "demo-sweeps/replace_sweep_each_channel_mean": {
        ("transformer_blocks", f"{part} = channel_mean"): 12 for part in ("attn1", "attn2", "ff")
    },
    "pixart-alpha/skip_sweep_each": {("transformer_blocks", "skip"): 28},
    "pixart-alpha/replace_sweep_each": {
        ("transformer_blocks", f"{part} = channel_mean"): 28 for part in ("attn1", "attn2", "ff")
    },
    "sd3.5-large/skip_sweep_each": {("transformer_blocks", "skip"): 38},
    "sd3.5-large/replace_sweep_each": {("transformer_blocks", f"{part} = zero"): 38 for part in ("attn", "ff")},
    "sd3.5-large/replace_sweep_each_text": {("transformer_blocks", "ff_context = zero"): 37},
    "flux.1-schnell/skip_sweep_each_double": {("transformer_blocks", "skip"): 19},
    "flux.1-schnell/skip_sweep_each_single": {("single_transformer_blocks", "skip"): 38},
    "flux.1-schnell/replace_sweep_each_double": {
        ("transformer_blocks", f"{part} = zero"): 19 for part in ("attn", "ff", "ff_context")
    },
    "flux.1-schnell/replace_sweep_each_single": {
        ("single_transformer_blocks", f"{part} = zero"): 38 for part in ("attn", "act_mlp")
    },
}

# What the published experiments ran, by hand: folder, spec, schedule of the stack that is edited.
DOWN = " ".join(str(index) for index in range(33, 4, -1))
SIDE_BY_SIDE = "|".join(str(index) for index in range(4, 34))
EXPERIMENTS = f"""
flux.1-schnell reverse_single               0:5 {DOWN} 34:38
flux.1-schnell parallel_single              0:4 ({SIDE_BY_SIDE}) 34:38
flux.1-schnell parallel_looped_single_30    0:4 ({SIDE_BY_SIDE})x30 34:38
flux.1-schnell skip_double_7_to_10          0:7 11:19
flux.1-schnell skip_double_first            1:19
flux.1-schnell skip_double_last             0:18
flux.1-schnell skip_single_10_to_13         0:10 14:38
flux.1-schnell skip_single_22_to_26         0:22 27:38
flux.1-schnell skip_single_first            1:38
flux.1-schnell skip_single_last             0:37
flux.1-schnell repeat_double_center         0:3 (9)x14 17:19
flux.1-schnell repeat_single_center         0:4 (19)x32 36:38
flux.1-schnell reverse_double               0:3 15 14 13 12 11 10 9 8 7 6 5 4 3 16:19
flux.1-schnell parallel_double              0:3 (3|4|5|6|7|8|9|10|11|12|13|14|15) 16:19
flux.1-schnell parallel_looped_double_13    0:3 (3|4|5|6|7|8|9|10|11|12|13|14|15)x13 16:19
flux.1-schnell parallel_looped_double_3     0:3 (3|4|5|6|7|8|9|10|11|12|13|14|15)x3 16:19
sd3-medium     skip_20_and_21               0:20 22:24
sd3-medium     skip_13_and_14               0:13 15:24
sd3-medium     skip_first                   1:24
sd3-medium     repeat_14_to_17_center       0:14 (15)x4 18:24
sd3-medium     repeat_18_to_21_center       0:18 (19)x4 22:24
sd3-medium     reverse_14_to_17             0:14 17 16 15 14 18:24
sd3-medium     reverse_18_to_21             0:18 21 20 19 18 22:24
sd3-medium     parallel_10_to_13            0:10 (10|11|12|13) 14:24
sd3-medium     parallel_18_to_21            0:18 (18|19|20|21) 22:24
sd3-medium     parallel_looped_10_to_13_4   0:10 (10|11|12|13)x4 14:24
sd3-medium     parallel_looped_15_to_18_4   0:15 (15|16|17|18)x4 19:24
auraflow-v0.2  skip_joint_2                 0:2 3
auraflow-v0.2  skip_joint_first             1:4
auraflow-v0.2  skip_joint_last              0:3
auraflow-v0.2  skip_single_0_to_3           4:32
auraflow-v0.2  skip_single_30_and_31        0:30
auraflow-v0.2  skip_single_18_to_20         0:18 21:32
auraflow-v0.2  repeat_joint_center          0 (1)x2 3
auraflow-v0.2  repeat_single_center         0:18 (19)x3 21:32
auraflow-v0.2  reverse_joint                0 2 1 3
auraflow-v0.2  reverse_single               0:18 20 19 18 21:32
auraflow-v0.2  parallel_joint               0 (1|2) 3
auraflow-v0.2  parallel_single              0:18 (18|19|20) 21:32
auraflow-v0.2  parallel_looped_joint_2      0 (1|2)x2 3
auraflow-v0.2  parallel_looped_single_3     0:18 (18|19|20)x3 21:32
pixart-alpha   repeat_middle                0:9 (14)x10 19:28
pixart-alpha   parallel_looped_middle_3     0:9 (9|10|11|12|13|14|15|16|17|18)x3 19:28
"""
LINES = [line.split(maxsplit=2) for line in EXPERIMENTS.split("\n") if line]
LOSES_BY_DESIGN = ("skip", "repeat")


@pytest.fixture(scope="session")
def anatomy_by_model() -> dict[str, Anatomy]:
    """What the models of the specs are made of: the bundled one, and folders with configs of the real size."""
    return {DEMO_NAME: inspect(DEMO_NAME), **{model: inspect(CONFIGS / name) for name, (model, _) in MODELS.items()}}


def plan_of(spec: Spec, anatomy_by_model: dict[str, Anatomy]) -> ModelPlan:
    """The plan for the model of a spec; its second transformer, where it has one, is made like its first."""
    anatomy, has_second = anatomy_by_model[spec.model], spec.model == MODELS["wan2.2-a14b"][0]
    return plan_model(spec, anatomy, lambda: anatomy if has_second else None).plan


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "specs"))


def test_there_are_specs_and_the_demo_shows_its_own():
    assert len(ALL) >= 75
    assert demo_specs() == sorted((ROOT / "specs" / "demo").glob("*.yaml"))
    assert {path.parent.name for path in ALL} == {*BUNDLED, *MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_configs_are_of_the_published_size(name, anatomy_by_model):
    model, billions = MODELS[name]
    assert anatomy_by_model[model].num_parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert all(stack.streams and stack.refusal is None for stack in anatomy_by_model[model].stacks)


@pytest.mark.parametrize("path", SPECS, ids=name_of)
def test_a_spec_has_a_title_and_its_plan_changes_its_model(path, anatomy_by_model):
    spec = load_spec(path)
    assert spec.title
    assert spec.model == (DEMO_NAME if path.parent.name in BUNDLED else MODELS[path.parent.name][0])
    plan = plan_of(spec, anatomy_by_model)
    assert not plan.is_identity
    if path.stem.split("_")[0] not in LOSES_BY_DESIGN:
        assert [schedule.removed for each in plans_of(plan) for schedule in each.schedules if schedule.removed] == []


def test_no_two_specs_have_the_same_plan(anatomy_by_model):
    specs = [load_spec(path) for path in SPECS]
    assert len({(spec.model, plan_of(spec, anatomy_by_model).hash) for spec in specs}) == len(specs)


@pytest.mark.parametrize("path", [path for path in SPECS if path.parent.name == "demo-windows"], ids=name_of)
def test_the_windows_of_the_bundled_model_leave_out_the_same_number_of_executions(path, anatomy_by_model):
    """A quarter, so that what they cost can be compared."""
    plan = lower_spec(load_spec(path), anatomy_by_model[DEMO_NAME])
    atoms = plan.atoms if isinstance(plan, WindowedPlan) else ((Atom(), plan),)
    num = sum((a.timesteps[1] - a.timesteps[0]) * len(within.schedules[0].items) for a, within in atoms)
    assert num == pytest.approx(9)


@pytest.mark.parametrize(("folder", "name", "schedule"), LINES, ids=lambda part: part)
def test_an_experiment_runs_what_was_published(folder, name, schedule, anatomy_by_model):
    plan = lower_spec(load_spec(ROOT / "specs" / folder / f"{name}.yaml"), anatomy_by_model[MODELS[folder][0]])
    edited = [re.sub(r"^[^:]*: ", "", line) for line in plan.text.splitlines()[1:]]
    stacks = [text for text, made in zip(edited, plan.schedules, strict=True) if not made.is_identity]
    assert stacks == [schedule]


@pytest.mark.parametrize("path", SWEEPS, ids=name_of)
def test_every_point_of_a_sweep_is_a_plan_of_its_own(path, anatomy_by_model):
    """Substituted by hand: the operations of each combination, written out."""
    spec = load_spec(path)
    anatomy = anatomy_by_model[spec.model]
    document = yaml.safe_load(path.read_text())
    values = [[*variable.values] for variable in spec.variables]
    expected, before = [], []
    for point in product(*values):
        operations = json.dumps(document["operations"])
        for variable, value in zip(spec.variables, point, strict=True):
            operations = operations.replace("{" + variable.name + "}", str(value))
        before = [*(before if "cumulative" in document else []), *json.loads(operations)]
        written = read_spec(f"surgery: v1\noperations: {json.dumps(before)}\n")
        expected.append(lower_spec(written, anatomy).hash)
    assert [lower_spec(variant, anatomy).hash for variant in expand_sweep(spec, anatomy)] == expected
    assert len(set(expected)) == len(expected) >= 12


def test_every_sweep_over_single_layers_gives_its_maps_of_damage(anatomy_by_model):
    """One cell a point: no layer is missed, and none stands twice. The cumulative sweep gives none."""
    found = {}
    for path in SWEEPS:
        spec = load_spec(path)
        anatomy = anatomy_by_model[spec.model]
        edits = [find_layer_edit(lower_spec(variant, anatomy)) for variant in expand_sweep(spec, anatomy)]
        if None in edits:
            assert "cumulative" in path.stem
            continue
        assert len(set(edits)) == len(edits)
        found[f"{path.parent.name}/{path.stem}"] = dict(Counter((edit.stack, edit.what) for edit in edits))
    assert found == MAPS


def test_a_sweep_has_no_plan_of_its_own(anatomy_by_model):
    spec = load_spec(SWEEPS[0])
    with pytest.raises(NotYetError, match="evaluate and generate run its variants"):
        lower_spec(spec, anatomy_by_model[spec.model])


def test_a_spec_that_does_not_fit_the_bundled_model_is_refused(anatomy_by_model):
    too_high = (ROOT / "specs" / "demo" / "skip.yaml").read_text().replace("[5:8]", "[12]")
    with pytest.raises(SpecError, match="there is no layer 12; transformer_blocks has layers 0 to 11"):
        lower_spec(read_spec(too_high), anatomy_by_model[DEMO_NAME])
