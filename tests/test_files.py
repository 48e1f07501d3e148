"""A folder or file is there whole or not at all."""

from pathlib import Path

import pytest

import surgery
from surgery.anatomy.hub_cache import hub_cache_folder
from surgery.anatomy.known import cache_folder
from surgery.anatomy.sources import find_source
from surgery.errors import InputError
from surgery.files import expand_home, whole_folder, write_whole
from surgery.metrics.weight_files import checkpoint_folder
from surgery.publish.recipe import public_name


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with whole_folder(tmp_path / "a" / "out") as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "a" / "out").exists()
    assert names(tmp_path / "a") == ["out"] and names(tmp_path / "a" / "out") == ["file"]


@pytest.mark.parametrize("force", [False, True])
def test_after_an_error_nothing_is_left_and_nothing_lost(tmp_path, force):
    if force:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), whole_folder(tmp_path / "out", force=force) as folder:
        (folder / "file").write_text("x")
        raise RuntimeError("stop")
    assert names(tmp_path) == (["out"] if force else [])
    assert not force or names(tmp_path / "out") == ["old"]


def test_what_is_there_is_replaced_by_force_only(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:  # an empty folder is fine
        (folder / "old").write_text("old")
    with (
        pytest.raises(InputError, match="is not empty; give another folder, or --force"),
        whole_folder(tmp_path / "out"),
    ):
        pass
    with whole_folder(tmp_path / "out", force=True) as folder:
        (folder / "new").write_text("new")
    assert names(tmp_path / "out") == ["new"] and names(tmp_path) == ["out"]


def test_a_target_that_can_not_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is a file; give a folder"), whole_folder(tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="no folder that can be written to"), whole_folder(tmp_path / "file" / "out"):
        pass


def test_a_file_is_replaced_at_once(tmp_path):
    write_whole(tmp_path / "file", "one")
    write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_text() == "two" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "SURGERY_CACHE", "TORCH_HOME"])
def test_the_folder_of_a_user_who_is_not_there_stays_as_it_is_written(variable, monkeypatch):
    monkeypatch.setenv(variable, "~nosuch/x")
    found = [str(hub_cache_folder()), str(cache_folder()), str(checkpoint_folder())]
    assert any(path.startswith("~nosuch/x") for path in found)


def test_a_model_in_the_folder_of_a_user_who_is_not_there_is_an_input_error():
    with pytest.raises(InputError, match="there is no folder ~nosuch/x"):
        find_source("~nosuch/x")
    assert (expand_home("~/x"), public_name("~nosuch/x")) == (Path.home() / "x", "x")


def test_one_function_expands_home_folders():
    asking = [path for path in Path(surgery.__file__).parent.rglob("*.py") if ".expanduser(" in path.read_text()]
    assert [path.name for path in asking] == ["files.py"]
