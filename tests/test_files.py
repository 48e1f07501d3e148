"""A file is there whole or not at all."""

from pathlib import Path

import pytest

import surgery
from surgery.anatomy.hub_cache import hub_cache_folder
from surgery.anatomy.sources import find_source
from surgery.errors import InputError
from surgery.files import expand_home, write_whole
from surgery.kept import cache_folder
from surgery.metrics.weight_files import checkpoint_folder
from surgery.publish.recipe import public_name


def test_a_file_is_replaced_at_once(tmp_path):
    write_whole(tmp_path / "file", "one")
    write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_text() == "two" and [path.name for path in tmp_path.iterdir()] == ["file"]


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
