"""Which model a spec is for: a path beside it, then a hub id, then a path in the working directory, which is said."""

import warnings

import pytest

from surgery.anatomy import sources
from surgery.errors import InputError, SurgeryNote
from surgery.plan import spec_model
from surgery.plan.spec_model import model_of_spec
from surgery.spec.load import load_spec


@pytest.fixture
def spec_naming(tmp_path, monkeypatch):
    """A spec in a folder of its own that names a model; the working directory is another one."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(spec_model, "find_source", absent)

    def write(name):
        path = tmp_path / "specs" / "spec.yaml"
        path.write_text(f"surgery: v1\nmodel: {name}\noperations: []\n")
        return load_spec(path)

    return write


def absent(name):
    raise InputError(f"the hub has no {name}")


def test_a_path_beside_the_spec_comes_first(spec_naming, tmp_path):
    for place in ("specs", "elsewhere"):
        (tmp_path / place / "own/model").mkdir(parents=True)
    with warnings.catch_warnings(action="error"):
        assert model_of_spec(spec_naming("own/model"), None) == str(tmp_path / "specs" / "own/model")
        assert model_of_spec(spec_naming("../elsewhere/own"), None) == str(tmp_path / "specs/../elsewhere/own")


def test_the_hub_comes_before_the_working_directory(spec_naming, tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / "own/model").mkdir(parents=True)
    monkeypatch.setattr(spec_model, "find_source", lambda name: name)
    spec = spec_naming("own/model")
    with pytest.warns(SurgeryNote) as said:
        assert model_of_spec(spec, None) == "hub:own/model"
    assert str(said[0].message) == (
        f"{spec.file}: own/model is taken from the hub, and not from the working directory; give --model for that"
    )
    asked = []
    monkeypatch.setattr(sources, "_source_on_hub", lambda name, revision, part: asked.append((name, revision, part)))
    sources.find_source("hub:own/model")
    sources.find_source("hub:own/model", revision="12")
    assert asked == [("own/model", None, "transformer"), ("own/model", "12", "transformer")]


@pytest.mark.parametrize("name", ["own/model", "model"])
def test_that_the_working_directory_is_taken_is_said(spec_naming, tmp_path, name):
    (tmp_path / "elsewhere" / name).mkdir(parents=True)
    spec = spec_naming(name)
    with pytest.warns(SurgeryNote) as said:
        assert model_of_spec(spec, None) == name
    assert str(said[0].message) == (
        f"{spec.file}: there is no {name} beside the spec, so that of the working directory is taken; "
        f"give --model {name} to say so"
    )


def test_the_call_comes_before_the_spec_and_means_the_working_directory(spec_naming, tmp_path):
    (tmp_path / "specs" / "model").mkdir()
    with warnings.catch_warnings(action="error"):
        assert model_of_spec(spec_naming("else"), "model") == "model"
        assert model_of_spec(spec_naming("demo"), None) == "demo"
        assert model_of_spec(spec_naming("owner/name"), None) == "owner/name"  # on the hub, or nowhere
    with pytest.raises(InputError, match="names no model; write model: in the spec, or give --model"):
        model_of_spec(load_spec_without_model(tmp_path), None)


def load_spec_without_model(folder):
    path = folder / "none.yaml"
    path.write_text("surgery: v1\noperations: []\n")
    return load_spec(path)
