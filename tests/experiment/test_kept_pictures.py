"""Kept pictures are the stored ones under other names: no room is taken twice, and nothing of others is touched."""

import errno
import os

import pytest
from PIL import Image

from surgery.errors import InputError
from surgery.experiment.kept_pictures import keep_pictures
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.rows import folder_name

NUM = 3


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path / "store")


@pytest.fixture
def keep(store, tmp_path):
    """A function: names of rows, and a run -> what was kept of it."""

    def call(*names, run=1):
        rows = {name: draw(store, name, run) for name in names}
        keep_pictures(rows, tmp_path / "kept", store.folder)
        return rows

    return call


def draw(store, name, run):
    place = store.open({"row": name, "run": run})
    place.keep(range(NUM), [Image.new("RGB", (8, 8), (run, number, len(name))) for number in range(NUM)])
    return place.read()


def refuse_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


def size_on_disk(folder):
    """Bytes in use, a file with several names counted once."""
    found = {(stat.st_dev, stat.st_ino): stat.st_blocks for stat in (path.stat() for path in folder.rglob("*.png"))}
    return 512 * sum(found.values())


def test_a_kept_picture_is_the_stored_file(keep, tmp_path):
    rows = keep("baseline", "skip")
    assert size_on_disk(tmp_path) == size_on_disk(tmp_path / "store") > 0
    for name, pictures in rows.items():
        assert sorted(path.name for path in (tmp_path / "kept" / name).iterdir()) == list(pictures.names)
        for file in pictures.files:
            assert (tmp_path / "kept" / name / file.name).samefile(file)


def test_without_hard_links_they_are_copies(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse_links)
    rows = keep("skip")
    rows |= keep("skip")  # a second time it is as it was
    for file in rows["skip"].files:
        kept = tmp_path / "kept" / "skip" / file.name
        assert kept.read_bytes() == file.read_bytes() and not kept.samefile(file)
    assert len(list((tmp_path / "kept" / "skip").iterdir())) == NUM


def test_copies_of_an_earlier_run_become_links(keep, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse_links)
        keep("skip")
    keep("skip")
    assert size_on_disk(tmp_path) == size_on_disk(tmp_path / "store")


def test_another_run_leaves_the_pictures_of_the_first_as_they_were(keep, tmp_path):
    """To write into a link would change the stored picture."""
    first = keep("skip")["skip"]
    before = [file.read_bytes() for file in first.files]
    second = keep("skip", run=2)["skip"]
    assert [file.read_bytes() for file in first.files] == before
    assert all((tmp_path / "kept" / "skip" / file.name).samefile(file) for file in second.files)
    assert len(list((tmp_path / "kept" / "skip").iterdir())) == NUM


def put_picture(path):
    Image.new("RGB", (8, 8), "red").save(path)


def put_link(path):
    put_picture(path.with_name("mine.png"))
    path.symlink_to("mine.png")


@pytest.mark.parametrize(
    "put", [put_picture, put_link, lambda path: path.mkdir()], ids=["picture", "symlink", "folder"]
)
def test_what_is_the_users_is_neither_replaced_nor_joined(keep, tmp_path, put):
    mine = tmp_path / "kept" / "skip" / "00001.png"
    mine.parent.mkdir(parents=True)
    put(mine)
    before = mine.lstat(), mine.read_bytes() if mine.is_file() else None
    with pytest.raises(InputError, match=r"kept/skip/00001\.png is no picture of .*; move it away"):
        keep("baseline", "skip")
    assert (mine.lstat(), mine.read_bytes() if mine.is_file() else None) == before
    assert not (tmp_path / "kept" / "baseline").exists() and not (mine.parent / "00000.png").exists()


def test_a_row_of_any_name_has_one_folder_of_its_own(keep, tmp_path):
    """A sweep over selectors has slashes in its names."""
    names = ["each s=../../x", "each s=..%2F..%2Fx", "..", "%2E.", "a/b", "a%2Fb", "skip layer=3"]
    keep(*names)
    assert len(list((tmp_path / "kept").iterdir())) == len({folder_name(name) for name in names}) == len(names)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "store"}
    assert folder_name("skip layer=3") == "skip layer=3"
