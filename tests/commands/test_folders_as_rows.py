"""Compiled folders and stock models as rows: measured beside specs, known again by their weights, never mistaken."""

import gc
import json
import pickle
import re
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgery.bundled import DEMO_CALL, demo_folder
from surgery.errors import InputError
from surgery.experiment import own_model
from surgery.experiment.controls import BASELINE
from surgery.experiment.evaluation import EvaluationRequest, key_of_request
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet
from surgery.experiment.rows import OwnModelRow
from surgery.experiment.run import RunRequest
from surgery.experiment.targets import find_alone
from surgery.publish.manifest import CARD, MANIFEST
from surgery.report.evaluated import read_measured
from surgery.report.measured_folder import row_of_folder

PROMPTS = ("red apple", "rocket")
QUICK = ("--steps", "2", "--bins", "2", "--batch-size", "2", "--extractor", "none", "--clip", "none", "--lpips", "none")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SPEC = "surgery: v1\nmodel: demo\noperations:\n  - skip: transformer_blocks[5:8]\n"


def retrain(folder):
    """What training does to a folder: other values under the same names."""
    tensors = load_file(folder / WEIGHTS)
    tensors["transformer_blocks.0.attn1.to_q.weight"] *= 1.5
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def rewrite(folder, **changes):
    """A recipe with other entries; None takes one away."""
    manifest = {**json.loads((folder / MANIFEST).read_text()), **changes}
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return folder


@pytest.fixture(scope="module")
def made(surgery_command, tmp_path_factory):
    """A spec, its checkpoint, its graph, and a checkpoint that was trained on."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "skip.yaml").write_text(SPEC)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    for out, *options in (("pruned", "checkpoint", "--verify", "structure"), ("graph", "graph")):
        result = surgery_command("compile", folder / "skip.yaml", "--out", folder / out, "--to", *options)
        assert result.exit_code == 0, result.stderr
    retrain(shutil.copytree(folder / "pruned", folder / "trained"))
    return folder


@pytest.fixture(scope="module")
def evaluate(surgery_command, made):
    """`surgery evaluate` of targets by their names in the folder; the document."""

    def run(out, *targets, options=()):
        given = [made / target if (made / target).exists() else target for target in targets]
        return surgery_command(
            "evaluate", *given, "--prompts", made / "prompts.txt", "--out", out, *QUICK, *options, "--json"
        )

    return run


@pytest.fixture(scope="module")
def held():
    """How many models of rows were still there whenever another was loaded, and, at the end, those that are."""
    return [], weakref.WeakSet()


@pytest.fixture(scope="module")
def measured(evaluate, made, held):
    """The spec, and all that can stand beside it, in one run; the folder and the rows by name."""
    counts, alive = held
    load = own_model.load_pretrained

    def watched(*given, **options):
        gc.collect()
        counts.append(len(alive))
        found = load(*given, **options)
        alive.add(found)
        return found

    targets = ("skip.yaml", "pruned", "graph", "trained", "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_model, "load_pretrained", watched)
        result = evaluate(made / "out", *targets, options=("--keep-images", "all"))
    assert result.exit_code == 0, result.stderr
    return made / "out", {row["name"]: row for row in json.loads(result.stdout)["rows"]}


def pictures_of(out, name):
    return [path.read_bytes() for path in sorted((out / "pictures" / name).glob("*.png"))]


def test_a_checkpoint_and_a_graph_are_measured_as_their_spec_is(measured):
    """Two roads, one answer: to the bit, in pictures and in predictions, though the checkpoint shares no block."""
    out, rows = measured
    assert pictures_of(out, "pruned") == pictures_of(out, "graph") == pictures_of(out, "skip")
    errors = [rows[name]["denoising_error_by_bin"] for name in ("skip", "graph", "pruned")]
    assert errors[0] == errors[1] == errors[2] and min(errors[0]) > 0
    assert rows["pruned"]["scores"] == rows["skip"]["scores"]
    assert rows["pruned"]["plan"] == rows["skip"]["plan"] and rows["pruned"]["cost"] == rows["skip"]["cost"]


def test_the_base_beside_itself_is_the_baseline(measured):
    out, rows = measured
    assert pictures_of(out, "demo") == pictures_of(out, "baseline")
    assert rows["demo"]["denoising_error_by_bin"] == [0, 0]
    cost = rows["demo"]["cost"]
    assert cost["parameters_after"] == cost["parameters_before"] and cost["flops_after"] == cost["flops_before"]


def test_what_was_trained_since_is_told_and_its_spec_claims_nothing(measured, surgery_command, made, tmp_path):
    out, rows = measured
    row = rows["trained (retrained)"]
    assert row["own_model"]["state"] == "retrained" and not {"plan", "spec", "spec_text"} & row.keys()
    assert pictures_of(out, "trained (retrained)") != pictures_of(out, "pruned")
    assert row["cost"] == rows["pruned"]["cost"]
    notes = json.loads((out / "evaluation.json").read_text())["notes"]
    assert [note for note in notes if note.startswith("trained (retrained): its weights or its config were changed")]
    assert "trained (retrained),variant,," in (out / "rows.csv").read_text()
    page = tmp_path / "page.html"
    assert surgery_command("report", out, "--out", page).exit_code == 0
    assert "trained, compiled from demo: its weights or its config were changed" in page.read_text()
    damage = surgery_command("plot", out / "evaluation.json", "--out", tmp_path / "damage")
    assert "is damaged" not in damage.stderr


def test_one_model_is_held_at_a_time_and_none_afterwards(measured, held):
    gc.collect()
    counts, alive = held
    assert measured and counts == [0] * 6 and not alive  # each of three is loaded to draw, and to predict


def test_a_folder_that_changed_between_two_runs_is_another_request_and_has_other_pictures(made, tmp_path):
    folder = shutil.copytree(made / "pruned", tmp_path / "pruned")
    prompts, judges = PromptSet(PROMPTS), JudgeRequest()
    request = EvaluationRequest(specs=(str(folder),), prompts=prompts, out=tmp_path, judges=judges)
    keys, recipes = [], []
    for change in (lambda same: same, retrain):
        change(folder)
        keys.append(key_of_request(request))
        recipes.append(OwnModelRow("a", "variant", 0, own_model.find_own_model(str(folder)), None).recipe())
    assert keys[0] != keys[1] and recipes[0] != recipes[1]
    held = own_model.find_own_model(str(folder))
    retrain(folder)
    with pytest.raises(InputError, match="was changed since this run began; run it again when it stays as it is"):
        held.open_in(None)


def test_weights_are_known_again_however_they_were_saved(surgery_command, made, tmp_path):
    """Saved again by diffusers, in shards, with the fields of the config that are defaults: not retrained."""
    from diffusers import DiffusionPipeline

    folder = shutil.copytree(made / "pruned", tmp_path / "again")
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float16)
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="3MB")
    (folder / WEIGHTS).unlink()
    document = json.loads(surgery_command("check", folder, "--json").stdout)
    assert document["recipe"]["state"] == "as compiled"
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "norm_eps": 1e-5}))
    document = json.loads(surgery_command("check", folder, "--json").stdout)
    assert document["recipe"]["state"] == "retrained"


@pytest.mark.parametrize(
    ("changes", "state", "told"),
    [
        ({"config": None}, "unknown", "its recipe keeps no hash of its weights"),
        ({"healed": {"teacher": {"model": "demo"}, "steps": 300}}, "healed", "healed: teacher model demo, steps 300"),
    ],
)
def test_states_are_told_by_every_command(surgery_command, made, tmp_path, changes, state, told):
    folder = rewrite(shutil.copytree(made / "pruned", tmp_path / "pruned"), **changes)
    for command in ("check", "inspect"):
        assert told in surgery_command(command, folder).stdout, command
        assert json.loads(surgery_command(command, folder, "--json").stdout)["recipe"]["state"] == state
    assert told in surgery_command("diff", folder, made / "skip.yaml").stdout
    assert own_model.find_own_model(str(folder)).note("a") == f"a: {own_model.state_text(state, changes.get('healed'))}"


def test_a_recipe_is_checked_diffed_and_remapped_as_its_spec(surgery_command, made, tmp_path):
    for folder in ("pruned", "graph"):
        checked = json.loads(surgery_command("check", made / folder, "--json").stdout)
        spec = json.loads(surgery_command("check", made / "skip.yaml", "--json").stdout)
        assert checked["recipe"]["state"] == "as compiled"
        assert {**checked, "spec": spec["spec"]} == {**spec, "recipe": checked["recipe"]}
        compared = json.loads(surgery_command("diff", made / folder, made / "skip.yaml", "--json").stdout)
        assert compared["same_plan"]
    lora = tmp_path / "lora.safetensors"
    name = "transformer.transformer_blocks.9.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.ones(2, 160), f"{name}.lora_B.weight": torch.ones(160, 2)}, lora)
    for number, spec in enumerate(("skip.yaml", "pruned", "graph")):
        done = surgery_command("remap", lora, "--spec", made / spec, "--out", tmp_path / f"{number}.safetensors")
        assert done.exit_code == 0, done.stderr
    remapped = [load_file(tmp_path / f"{number}.safetensors").keys() for number in range(3)]
    assert remapped[0] == remapped[1] == remapped[2] and all("transformer_blocks.6." in key for key in remapped[0])


def test_a_plan_is_told_without_its_base(surgery_command, made, tmp_path):
    folder = shutil.copytree(made / "pruned", tmp_path / "pruned")
    base = json.loads((folder / MANIFEST).read_text())["base"]
    rewrite(folder, base={**base, "model": "./gone"})
    told = surgery_command("check", folder)
    assert told.exit_code == 0 and "0:5 8:12" in told.stdout
    assert "what it saves is not told: the base model of" in told.stdout and "give --model" in told.stdout


def other_base(made, tmp_path):
    """Another model of the class: the bundled pipeline, trained on."""
    return retrain(shutil.copytree(demo_folder(), tmp_path / "other"))


def changed(part, **fields):
    """The bundled pipeline with other fields in the config of a part."""

    def make(_made, tmp_path):
        folder = shutil.copytree(demo_folder(), tmp_path / "other")
        file = folder / part
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
        return folder

    return make


def wider_text(_made, tmp_path):
    """A transformer that takes texts of other channels."""
    from diffusers import PixArtTransformer2DModel

    config = {**PixArtTransformer2DModel.load_config(demo_folder() / "transformer"), "caption_channels": 96}
    PixArtTransformer2DModel.from_config(config).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


REFUSED = [
    (
        ("pruned",),
        other_base,
        ("--model", "OTHER"),
        r"is not the base model that .* was compiled for: its weights.* made from demo: give",
    ),
    (
        ("OTHER",),
        other_base,
        (),
        r"has no surgery\.json, so that the model to compare it with is not known; give --model",
    ),
    (("OTHER",), wider_text, ("--model", "demo"), r"can't take the place of the transformer of demo: .* give --model"),
    (("OTHER",), changed("vae/config.json", scaling_factor=0.5), ("--model", "demo"), "a vae with scaling_factor 0.5"),
    (
        ("OTHER",),
        changed("scheduler/scheduler_config.json", prediction_type="v_prediction"),
        ("--model", "demo"),
        "a scheduler with prediction_type v_prediction",
    ),
]


@pytest.mark.parametrize(("targets", "make", "options", "message"), REFUSED)
def test_what_does_not_belong_to_the_base_is_refused_before_anything_is_drawn(
    evaluate, made, tmp_path, targets, make, options, message
):
    other = make(made, tmp_path)
    named = [other if target == "OTHER" else target for target in targets]
    result = evaluate(tmp_path / "out", *named, options=[other if each == "OTHER" else each for each in options])
    assert result.exit_code == 1
    assert re.search(message, result.stderr), result.stderr
    assert not list(tmp_path.glob("out/**/*.png"))


def test_a_changed_spec_is_no_recipe(surgery_command, made, tmp_path):
    folder = shutil.copytree(made / "pruned", tmp_path / "pruned")
    (folder / "spec.yaml").write_text(SPEC.replace("5:8", "5:7"))
    for command in (("check", folder), ("generate", folder, "--prompt", "rocket", "--out", tmp_path / "g")):
        result = surgery_command(*command)
        assert result.exit_code == 1 and "spec.yaml was changed after it was compiled" in result.stderr


def test_a_model_without_a_recipe_is_not_checked(surgery_command, tmp_path):
    for command in (
        ("check",),
        ("diff", "skip.yaml"),
        ("remap", "lora.safetensors", "--out", "out.safetensors", "--spec"),
    ):
        result = surgery_command(*command, demo_folder())
        assert result.exit_code == 1 and "Traceback" not in result.output, command
    result = surgery_command("check", demo_folder())
    assert "a model without a recipe (surgery.json), so that no spec says what was done to it" in result.stderr
    assert f"surgery inspect {demo_folder()}" in result.stderr


def test_the_way_to_be_called_travels_with_what_was_compiled(surgery_command, made, tmp_path):
    """Without these arguments a PixArt pipeline refuses the size of the bundled one's pictures. From hand to hand."""
    (tmp_path / "skip.yaml").write_text(SPEC.replace("5:8", "1"))
    options = ("--model", made / "pruned", "--to", "checkpoint", "--verify", "structure", "--out", tmp_path / "twice")
    made_so = surgery_command("compile", tmp_path / "skip.yaml", *options)
    assert made_so.exit_code == 0, made_so.stderr
    for number, target in enumerate((made / "pruned", made / "graph", tmp_path / "twice")):
        drawn = surgery_command(
            "generate", target, "--prompt", "rocket", "--steps", "2", "--out", tmp_path / str(number), "--json"
        )
        assert drawn.exit_code == 0, drawn.stderr
        assert json.loads(drawn.stdout)["call"] == {**DEMO_CALL, "num_inference_steps": 2}
        assert json.loads((target / MANIFEST).read_text())["call"] == DEMO_CALL


def test_generate_draws_models_beside_specs(surgery_command, made, tmp_path):
    command = ("generate", made / "skip.yaml", made / "trained", "--prompt", "rocket", "--steps", "2", "--no-baseline")
    result = surgery_command(*command, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "trained (retrained)  its weights or its config were changed after it was compiled" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "skip",
        "trained (retrained)",
    ]


def test_a_transformer_alone_runs_in_its_base(surgery_command, made, tmp_path):
    out = tmp_path / "bare"
    made_so = ("compile", made / "skip.yaml", "--to", "checkpoint", "--transformer-only", "--verify", "structure")
    assert surgery_command(*made_so, "--out", out).exit_code == 0
    bench = find_alone(str(out), "to measure it").open(RunRequest(), ())
    for one in (bench, pickle.loads(pickle.dumps(bench.description())).open()):  # as a worker opens it
        assert one.run.call == DEMO_CALL and len(one.row(BASELINE).pipe.transformer.transformer_blocks) == 9
    refused = surgery_command("profile", made / "graph", "--prompt", "rocket", "--out", tmp_path / "2.safetensors")
    assert refused.exit_code == 1 and "is a graph, with the layers of demo in another order" in refused.stderr


CARDS = {
    "as it was written": lambda text: text,
    "edited": lambda text: text.replace("## Limits", "My own words.\n\n## Limits").replace("# ", "# My ", 1),
    "of another hand": lambda _: "A card\r\nof mine, without an end",
    "gone": lambda _: None,
}


@pytest.mark.parametrize("card", CARDS)
def test_a_card_gets_what_was_measured_and_loses_nothing(surgery_command, made, measured, tmp_path, card):
    folder = shutil.copytree(made / "pruned", tmp_path / "pruned")
    text = CARDS[card]((folder / CARD).read_text())
    (folder / CARD).unlink() if text is None else (folder / CARD).write_bytes(text.encode())
    for _ in range(2):  # the second time in the place of the first
        assert surgery_command("card", folder, "--evaluation", measured[0]).exit_code == 0
        found = (folder / CARD).read_bytes().decode()
        before, _, rest = found.partition("<!-- surgery: measured -->")
        section, _, after = rest.partition("<!-- surgery: end of measured -->")
        score = measured[1]["pruned"]["scores"]["SSIM"]
        assert f"| SSIM | {score['value']:.3g} [" in section and f"| {len(PROMPTS)} | higher |" in section
        kept = "".join((before + after).split())
        assert kept == "".join((text or f"# {folder.name}").split())
        assert found.count("How it was measured") == 1 and ("\r\n" in section) == ("\r\n" in found)
    state = json.loads(surgery_command("check", folder, "--json").stdout)["recipe"]["state"]
    assert state == "as compiled"


def test_a_card_is_refused_numbers_that_are_not_the_folders(surgery_command, made, measured, tmp_path):
    numbers = read_measured(measured[0] / "evaluation.json")
    assert row_of_folder(numbers, made / "trained").name == "trained (retrained)"
    assert row_of_folder(numbers, made / "graph").name == "skip"
    assert row_of_folder(numbers, shutil.copytree(made / "pruned", tmp_path / "elsewhere")).name == "pruned"
    other = retrain(retrain(shutil.copytree(made / "pruned", tmp_path / "other")))
    result = surgery_command("card", other, "--evaluation", measured[0])
    assert (
        result.exit_code == 1
        and f"the weights of {other} are retrained, so that the numbers of its spec" in result.stderr
    )
    result = surgery_command("card", demo_folder().parent, "--evaluation", measured[0])
    assert result.exit_code == 1 and "Traceback" not in result.output
    damaged = shutil.copytree(made / "pruned", tmp_path / "damaged")
    (damaged / CARD).write_text("<!-- surgery: measured -->\nmine\n")
    result = surgery_command("card", damaged, "--evaluation", measured[0])
    assert result.exit_code == 1 and "it has 1 lines" in result.stderr
    assert (damaged / CARD).read_text() == "<!-- surgery: measured -->\nmine\n"


def test_compile_writes_what_was_measured_of_its_spec(surgery_command, made, measured, tmp_path):
    command = (
        "compile",
        made / "skip.yaml",
        "--to",
        "checkpoint",
        "--verify",
        "structure",
        "--evaluation",
        measured[0],
    )
    assert surgery_command(*command, "--out", tmp_path / "out").exit_code == 0
    assert "## How it was measured" in (tmp_path / "out" / CARD).read_text()
    spec = tmp_path / "other.yaml"
    spec.write_text(SPEC.replace("5:8", "5:7"))
    result = surgery_command("compile", spec, *command[2:], "--out", tmp_path / "none")
    assert result.exit_code == 1 and "the evaluation has no row of" in result.stderr
    assert not (tmp_path / "none").exists()
