"""`surgery compile --to checkpoint` of a model on the hub, which is tests/fake_hub.py: from the listing to the card."""

import json
import os
import subprocess
import sys

import fake_hub
import huggingface_hub.constants
import pytest
from huggingface_hub import ModelCard

MODEL = "owner/tiny"
CARD = """---
license: other
license_name: tiny-community-license
license_link: LICENSE.md
pipeline_tag: text-to-image
---
# Tiny
"""
UNNEEDED = {
    "anatomy.json": "{}",
    "teaser.png": "a picture",
    "tiny.safetensors": "one file",
    "vae/diffusion_pytorch_model.bin": "a pickle",
}
COMMAND = [sys.executable, "-c", "from surgery.commands.main import main; main()", "compile"]


@pytest.fixture(scope="module")
def files(pipeline):
    """The tiny pipeline as it is published: with a card, a licence, and files that nobody needs."""
    return {**fake_hub.read_folder(pipeline), "README.md": CARD, "LICENSE.md": "Be kind.", **UNNEEDED}


@pytest.fixture
def hub(files):
    with fake_hub.serve_hub() as served:
        served.put(MODEL, files)
        yield served


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    """The hub, asked by this process with an empty cache."""
    hub.point_client(monkeypatch, tmp_path / "cache")
    return hub


@pytest.fixture
def spec(write_spec):
    return write_spec("skip.yaml", 'skip: "transformer_blocks[1]"', model=MODEL)


@pytest.fixture
def compile_to(surgery_command, spec):
    """Compiles the spec in this process; returns the result."""

    def run(out, *options):
        target = ("--to", "checkpoint", "--verify", "structure")
        return surgery_command("compile", spec, *target, "--out", out, *options)

    return run


def in_a_process(spec, out, url, cache, **environment):
    """Compiles the spec in a process of its own, which knows the hub by its environment alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    homes = {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache), "HF_HOME": str(cache)}
    return subprocess.run(
        [*COMMAND, str(spec), "--to", "checkpoint", "--verify", "structure", "--out", str(out)],
        env={**kept, **homes, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_what_is_needed_is_downloaded_once_and_then_the_cache_is_enough(spec, hub, files, tmp_path):
    cache, first, second = tmp_path / "cache", tmp_path / "first", tmp_path / "second"
    done = in_a_process(spec, first, hub.url, cache)
    assert done.returncode == 0, done.stderr
    assert hub.downloads == set(files) - set(UNNEEDED)
    hub.shut_down()
    done = in_a_process(spec, second, hub.url, cache, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    contents = [fake_hub.read_folder(folder) for folder in (first, second)]
    written = [
        {name: it for name, it in found.items() if name not in ("README.md", "surgery.json")} for found in contents
    ]
    assert written[0] == written[1]
    done = in_a_process(spec, tmp_path / "third", hub.url, tmp_path / "no-cache", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{MODEL} is neither a folder nor in the local cache, and the hub can't be reached; check the name and the "
        "connection (HF_HUB_OFFLINE keeps to the cache)\n"
    )


def test_a_second_run_downloads_nothing(client, compile_to, tmp_path):
    assert compile_to(tmp_path / "first").exit_code == 0
    client.log.clear()
    assert compile_to(tmp_path / "second").exit_code == 0
    assert client.downloads == set()


def test_the_recipe_and_the_card_say_which_model_it_was(client, compile_to, tmp_path):
    out = tmp_path / "out"
    result = compile_to(out)
    assert result.exit_code == 0, result.stderr
    base = json.loads((out / "surgery.json").read_text())["base"]
    assert (base["model"], base["revision"], base["weights"]) == (MODEL, fake_hub.COMMIT, {})
    card = ModelCard((out / "README.md").read_text())
    assert card.data.base_model == MODEL
    assert (card.data.license, card.data.license_name) == ("other", "tiny-community-license")
    assert (out / card.data.license_link).read_text() == "Be kind."
    assert f"[{MODEL}](https://huggingface.co/{MODEL}), revision `{fake_hub.COMMIT}`" in card.text
    assert "dtype=torch.float16)" in card.text  # that of the files, which were not there when the spec was planned
    assert f"model: {MODEL}\n" in (out / "spec.yaml").read_text()
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_with_the_transformer_alone_nothing_else_is_asked_for(client, files, compile_to, tmp_path):
    out = tmp_path / "out"
    result = compile_to(out, "--transformer-only")
    assert result.exit_code == 0, result.stderr
    inner = {name for name in files if name.startswith("transformer/")}
    assert client.downloads == {"model_index.json", "README.md", "LICENSE.md", *inner}
    assert not any(part in entry for entry in client.log for part in ("/vae/", "/text_encoder/", "/scheduler/"))
    written = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    weights = {"config.json", "diffusion_pytorch_model.safetensors"}
    assert written == {"README.md", "LICENSE.md", "surgery.json", "plan.json", "spec.yaml", *weights}
    assert ModelCard((out / "README.md").read_text()).data.license_name == "tiny-community-license"


def test_a_gated_model_is_refused_with_what_to_do(client, compile_to, tmp_path):
    client.models[MODEL].gated = True
    result = compile_to(tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{MODEL} can't be read from the hub: it is gated; accept its conditions on its page on the hub, then "
        "`hf auth login`\n"
    )


def test_a_model_that_is_not_there_is_refused(client, compile_to, tmp_path):
    client.models.clear()
    result = compile_to(tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{MODEL} can't be read from the hub: the hub has no such model, or it is private; check the name, or "
        "`hf auth login`\n"
    )


def test_a_shard_that_the_hub_does_not_have_is_named(client, compile_to, tmp_path):
    found = client.models[MODEL].files
    shards = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    found[f"transformer/{shards[0]}"] = found.pop("transformer/diffusion_pytorch_model.safetensors")
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    found["transformer/diffusion_pytorch_model.safetensors.index.json"] = json.dumps(index).encode()
    result = compile_to(tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f"names the shard '{shards[1]}', which is not there; download it again\n")
    assert not (tmp_path / "out").exists()


def test_what_was_downloaded_in_part_is_not_written_in_part(client, compile_to, tmp_path, monkeypatch):
    """Offline, a pipeline without its text encoder would load nowhere."""
    assert compile_to(tmp_path / "transformer", "--transformer-only").exit_code == 0
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = compile_to(tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    lacks = "; the cache lacks scheduler, text_encoder, tokenizer, vae\n"
    assert result.stderr == f"{MODEL} can't be downloaded: HF_HUB_OFFLINE keeps to the cache{lacks}"
    assert not (tmp_path / "out").exists()
