"""A compiled graph can be kept, read and loaded, onto its own base model and no other."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline
from tiny import tiny_anatomy

import surgery
from surgery.anatomy.identity import find_difference, identify, identity_from_json
from surgery.anatomy.sources import find_source
from surgery.bundled import DEMO_CALL, demo_folder
from surgery.errors import InputError
from surgery.experiment.gallery import GalleryRequest, find_targets
from surgery.plan.planned import plan_spec_file
from surgery.profiles.means import write_means
from surgery.publish.graph_folder import read_artefact, write_artefact
from surgery.publish.manifest import FORWARD, MANIFEST, MEANS, PLAN, SPEC
from surgery.testing import build_tiny_model, tiny_call

SPEC_TEXT = """surgery: v1
model: {model}
title: A group, and a component that is zero
operations:
  - skip: transformer_blocks[0]
  - parallel: {{layers: "transformer_blocks[1:3]", loops: 2}}
  - replace: {{component: "transformer_blocks[3].ff", with: {kind}}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a saved transformer."""
    folder = tmp_path_factory.mktemp("models") / "base"
    build_tiny_model("sd3").save_pretrained(folder)
    return folder


def compile_into(folder, model, kind="zero", **options):
    """Write a spec into a folder and compile it beside; the artefact."""
    path = folder / "spec.yaml"
    path.write_text(SPEC_TEXT.format(model=model, kind=kind))
    planned = plan_spec_file(path, profile=options.pop("profile", None))
    return write_artefact(
        folder / "variant",
        spec=planned.spec,
        source=planned.source,
        anatomy=planned.anatomy,
        plan=planned.plan,
        means=planned.means,
        **options,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory, base):
    """The folder of the spec and its artefact, compiled once."""
    folder = tmp_path_factory.mktemp("compiled")
    compile_into(folder, base)
    return folder


@pytest.fixture
def compile_spec(tmp_path, compiled):
    """A spec and its artefact, which may be spoilt; compiled anew for another model or with options."""

    def run(**changes):
        if changes:
            return compile_into(tmp_path, **changes)
        shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
        return read_artefact(tmp_path / "variant")

    return run


def run_model(model):
    with torch.no_grad():
        return model(**tiny_call(model)).sample


def test_what_is_loaded_computes_what_was_applied(compile_spec, base, tmp_path):
    artefact = compile_spec()
    model = build_tiny_model("sd3")
    assert torch.equal(
        run_model(surgery.load_variant(artefact.folder)), run_model(surgery.apply(model, tmp_path / "spec.yaml"))
    )
    assert artefact.plan.hash == artefact.manifest["plan"]


def test_the_folder_can_be_read(compile_spec, tmp_path):
    folder = compile_spec().folder
    assert {path.name for path in folder.iterdir()} == {SPEC, PLAN, FORWARD, MANIFEST}
    assert (folder / SPEC).read_text() == (tmp_path / "spec.yaml").read_text()
    code = (folder / FORWARD).read_text()
    assert code.startswith("# A group, and a component that is zero\n# base model: ")
    assert "meta" not in code and ";" not in code.partition("def forward")[2]
    assert code.count('getattr(self.transformer_blocks, "1")') == 2
    compile(code, "forward.py", "exec")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_means_travel_with_the_folder(compile_spec, base, tmp_path):
    anatomy = tiny_anatomy("sd3")
    width = anatomy.stacks[0].kinds[0].find_component("ff").outputs[0].out_channels
    profile = tmp_path / "means.st"
    write_means({"transformer_blocks.3.ff": {"hidden_states": torch.linspace(0, 1, width).numpy()}}, profile)
    folder = compile_spec(model=base, kind="mean", profile=profile).folder
    want = run_model(surgery.apply(build_tiny_model("sd3"), tmp_path / "spec.yaml", profile=profile))
    profile.unlink()
    assert (folder / MEANS).is_file()
    assert torch.equal(run_model(surgery.load_variant(folder)), want)


def test_a_variant_of_the_bundled_pipeline_draws_the_same_pictures(compile_spec, tmp_path):
    folder = compile_spec(model="demo").folder
    call = {**DEMO_CALL, "num_inference_steps": 2, "output_type": "np"}
    pipe = surgery.load_variant(folder, dtype="float32")
    same = surgery.apply(DiffusionPipeline.from_pretrained(demo_folder(), dtype=torch.float32), tmp_path / "spec.yaml")
    pictures = [p("red apple", generator=torch.Generator().manual_seed(0), **call).images for p in (pipe, same)]
    assert (pictures[0] == pictures[1]).all()


def change_weights(folder):
    model = build_tiny_model("sd3")
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    model.save_pretrained(folder)


def change_config(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_layers": 6}))


def change_class(folder):
    shutil.rmtree(folder)
    build_tiny_model("pixart").save_pretrained(folder)


def lose_weights(folder):
    for path in folder.glob("*.safetensors"):
        path.unlink()


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        (change_weights, r"its weights are others \(diffusion_pytorch_model.safetensors\)"),
        (change_config, "its config is another one"),
        (change_class, "it is a PixArtTransformer2DModel, not a SD3Transformer2DModel"),
        (lose_weights, "its weights are not here, and were recorded by their hashes"),
    ],
)
def test_another_base_model_is_refused(compile_spec, base, tmp_path, sabotage, message):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    folder = compile_spec().folder
    surgery.load_variant(folder, base=moved)
    sabotage(moved)
    with pytest.raises(InputError, match=f"{moved} is not the base model that .* was compiled for: {message}"):
        surgery.load_variant(folder, base=moved)


def test_what_says_nothing_of_the_model_may_differ(compile_spec, base, tmp_path):
    shutil.copytree(base, tmp_path / "moved")
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "moved" / "config.json").write_text(
        json.dumps({**config, "_diffusers_version": "0.1", "_name_or_path": "x"})
    )
    surgery.load_variant(compile_spec().folder, base=tmp_path / "moved")


def test_a_base_model_that_has_moved_is_given_to_generate_and_compared(compile_spec, base, tmp_path):
    """It is found as far as that it has no pipeline; another model is refused."""
    shutil.copytree(base, tmp_path / "gone")
    artefact = compile_spec(model=tmp_path / "gone")
    (tmp_path / "gone").rename(tmp_path / "moved")
    asked = {"targets": (str(artefact.folder),), "prompts": ("red apple",), "out": tmp_path / "out"}
    with pytest.raises(InputError, match="moved is a bare transformer; to draw pictures"):
        find_targets(GalleryRequest(**asked, model=str(tmp_path / "moved")))
    build_tiny_model("sd3", seed=5).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="other is not the base model that"):
        find_targets(GalleryRequest(**asked, model=str(tmp_path / "other")))


def test_a_base_model_is_found_beside_the_folder_too(compile_spec, base, tmp_path, monkeypatch):
    """The recipe of a checkpoint names it by its last part alone; what lies there is compared as ever."""
    shutil.copytree(base, tmp_path / "models" / "theirs")
    folder = compile_spec(model=tmp_path / "models" / "theirs").folder
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["base"]["model"] = "theirs"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    shutil.copytree(folder, tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    surgery.load_variant("models/mine")
    build_tiny_model("sd3", seed=5).save_pretrained(tmp_path / "theirs")
    with pytest.raises(InputError, match=r"^theirs is not the base model that models/mine was compiled for"):
        surgery.load_variant("models/mine")
    shutil.rmtree(tmp_path / "theirs")
    shutil.copytree(folder, tmp_path / "elsewhere" / "theirs")
    with pytest.raises(InputError, match=r"elsewhere/theirs can't be found: there is no folder theirs"):
        surgery.load_variant(tmp_path / "elsewhere" / "theirs")


def test_a_base_model_that_is_gone_is_told(compile_spec, base, tmp_path):
    shutil.copytree(base, tmp_path / "short-lived")
    folder = compile_spec(model=tmp_path / "short-lived").folder
    shutil.rmtree(tmp_path / "short-lived")
    with pytest.raises(InputError, match=r"can't be found: there is no folder .*; give base= where the model lies now"):
        surgery.load_variant(folder)
    surgery.load_variant(folder, base=base)


@pytest.mark.parametrize("name", [SPEC, PLAN, FORWARD])
def test_a_changed_or_missing_file_is_refused(compile_spec, name):
    folder = compile_spec().folder
    content = (folder / name).read_text()
    (folder / name).write_text(content + "\n")
    with pytest.raises(InputError, match=f"{name} was changed after it was compiled"):
        read_artefact(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}, which its manifest lists"):
        read_artefact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version reads 1; install a newer layer-surgery"),
        ({"base": {}}, "is damaged, so that the spec must be compiled again: KeyError: 'model'"),
        ({"files": {"../spec.yaml": "0"}}, "has no ../spec.yaml"),
        ({"plan": "0"}, "is not the plan of the manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(compile_spec, change, message):
    folder = compile_spec().folder
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(InputError, match=message):
        read_artefact(folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no surgery.json; give a folder that `surgery compile --to graph` wrote"):
        surgery.load_variant(tmp_path)


def test_an_identity_survives_json_and_a_revision_is_compared(base):
    source = find_source(str(base))
    identity = identify(source)
    assert identity_from_json(json.loads(json.dumps(identity.to_json()))) == identity
    assert find_difference(identity, source) is None
    on_hub = replace(source, revision="a" * 40)
    assert identify(on_hub).weights == {}
    assert find_difference(identify(on_hub), on_hub) is None
    assert "it is at revision unknown, not aaaa" in str(find_difference(identify(on_hub), source))


@pytest.mark.slow
def test_a_model_of_the_hub_is_loaded_at_its_recorded_revision(tmp_path):
    """In a process of its own, offline, with a cache of two revisions; the newer one has other weights."""
    cache = tmp_path / "hub"
    repository = cache / "models--somebody--tiny"
    commits = ("a" * 40, "b" * 40)
    for seed, commit in enumerate(commits):
        build_tiny_model("sd3", seed=seed).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commits[0])
    (tmp_path / "spec.yaml").write_text(SPEC_TEXT.format(model="somebody/tiny", kind="zero"))
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    arguments = ["compile", "spec.yaml", "--to", "graph", "--out", "v"]
    assert f"revision {commits[0]}" in run(f"from surgery.commands.main import app; app({arguments})")
    (repository / "refs" / "main").write_text(commits[1])
    code = (
        "import surgery, torch; from surgery.testing import build_tiny_model, tiny_call; "
        "loaded = surgery.load_variant('v'); torch.set_grad_enabled(False); "
        "same = surgery.apply(build_tiny_model('sd3', seed=0), 'v/spec.yaml'); call = tiny_call(same); "
        "print(torch.equal(loaded(**call).sample, same(**call).sample))"
    )
    assert run(code) == "True\n"
    assert "it is at revision bbbb" in run(
        "from surgery.publish.graph_folder import read_artefact\nfrom surgery.anatomy.identity import find_difference\n"
        "from surgery.anatomy.sources import find_source\n"
        "print(find_difference(read_artefact('v').base, find_source('somebody/tiny')))"
    )
