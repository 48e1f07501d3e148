"""Anatomies that were read once are known: the same as if they were read again, and never those of another model."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import constants, try_to_load_from_cache

import surgery
from surgery.anatomy import known
from surgery.anatomy.as_json import anatomy_from_json, anatomy_to_json
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.hub_cache import cached_snapshot, hub_cache_folder
from surgery.anatomy.known import diffusers_version, key_of_config, recall_anatomy, recall_demo
from surgery.anatomy.sources import build_anatomy, find_source
from surgery.kept import cache_folder
from surgery.testing import TINY_MODELS, build_tiny_model

CONFIG = {"_class_name": "PixArtTransformer2DModel", "num_layers": 5}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    model = build_tiny_model("pixart")
    (tmp_path / "model").mkdir()
    config = {**model.config, "_class_name": type(model).__name__}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("pixart", "flux"))) for name in TINY_MODELS]
)
def test_an_anatomy_survives_json(name):
    anatomy = read_anatomy(build_tiny_model(name))
    assert anatomy_from_json(json.loads(json.dumps(anatomy_to_json(anatomy)))) == anatomy


def test_the_samples_survive_json(anatomies):
    for anatomy in anatomies.values():
        assert anatomy_from_json(json.loads(json.dumps(anatomy_to_json(anatomy)))) == anatomy


def test_the_bundled_anatomy_is_that_of_the_bundled_pipeline():
    assert recall_demo() == build_anatomy(find_source("demo"))


def test_a_model_is_built_once(folder, cache, monkeypatch):
    first = surgery.inspect(folder)
    assert len(list(cache.rglob("*.json"))) == 1
    monkeypatch.setattr("surgery.anatomy.sources.read_source_anew", None)
    assert surgery.inspect(folder) == first


@pytest.mark.parametrize("damage", ["", "{}", "[1, 2]", '{"stacks": 3, "example": {}}', "\x00", '{"stacks": [{}]}'])
def test_a_damaged_file_is_read_again(folder, cache, damage):
    first = surgery.inspect(folder)
    (file,) = cache.rglob("*.json")
    file.write_text(damage)
    assert surgery.inspect(folder) == first
    assert json.loads(file.read_text())["anatomy"] == json.loads(json.dumps(anatomy_to_json(first)))


def test_what_others_may_have_written_is_not_believed(folder, cache):
    first = surgery.inspect(folder)
    (file,) = cache.rglob("*.json")
    file.write_text(file.read_text().replace('"transformer_blocks"', '"other_blocks"'))
    assert surgery.inspect(folder) != first  # the user's own cache is
    file.chmod(0o666)
    assert surgery.inspect(folder) == first


def test_a_cache_that_cannot_be_written_is_no_error(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "file" / "cache"))
    assert surgery.inspect(folder).class_name == "PixArtTransformer2DModel"


def test_the_key_holds_all_that_an_anatomy_depends_on(monkeypatch):
    key = key_of_config(CONFIG, "float16")
    assert key_of_config({**CONFIG, "_diffusers_version": "0.1", "_name_or_path": "x"}, "float16") == key
    assert key_of_config(dict(reversed(CONFIG.items())), "float16") == key
    others = [key_of_config(CONFIG, None), key_of_config({**CONFIG, "num_layers": 6}, "float16")]
    others.append(key_of_config({**CONFIG, "_class_name": "Other"}, "float16"))
    for name, value in (("FORMAT", 99), ("__version__", "99"), ("diffusers_version", lambda: "99")):
        monkeypatch.setattr(known, name, value)
        others.append(key_of_config(CONFIG, "float16"))
    assert len({key, *others}) == 7
    assert recall_anatomy(key) is None


def test_the_version_of_diffusers_is_found_without_it():
    assert diffusers_version() == importlib.metadata.version("diffusers")


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("SURGERY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "layer-surgery"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HF_HOME": "/a/home"},
        {"HF_HOME": "~/home"},
        {"XDG_CACHE_HOME": "/a/cache"},
        {"HF_HUB_CACHE": "$HOME/b", "HF_HOME": "/a"},
        {"HUGGINGFACE_HUB_CACHE": "/c"},
    ],
    ids=lambda environment: "-".join(environment) or "none",
)
def test_the_cache_of_the_hub_is_found_as_its_client_finds_it(environment):
    """The client is the oracle, in a process of its own: it reads the environment once."""
    names = {"HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}
    code = (
        "from huggingface_hub.constants import HF_HUB_CACHE; from surgery.anatomy.hub_cache import hub_cache_folder; "
        "print(HF_HUB_CACHE); print(hub_cache_folder())"
    )
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    theirs, ours = done.stdout.splitlines()
    assert ours == theirs


def test_a_snapshot_is_the_one_that_the_client_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    assert cached_snapshot("owner/name") is None
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    found = cached_snapshot("owner/name")
    assert found is not None and hub_cache_folder() == tmp_path
    assert str(found / "config.json") == try_to_load_from_cache("owner/name", "config.json", cache_dir=tmp_path)
    (repository / "refs" / "main").write_text("c" * 40)
    assert cached_snapshot("owner/name") is None
