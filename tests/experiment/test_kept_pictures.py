"""Kept pictures are the stored ones under other names: no room is taken twice; what is stored is what was written."""

import errno
import os

import pytest
from PIL import Image

from surgery.experiment.kept_pictures import keep_pictures
from surgery.experiment.picture_store import PictureStore

NUM = 3


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path / "store")


@pytest.fixture
def keep(store, tmp_path):
    """A function: names of rows -> what was kept of them."""

    def call(*names):
        rows = {name: draw(store, name) for name in names}
        keep_pictures(rows, tmp_path / "kept")
        return rows

    return call


def draw(store, name):
    place = store.open({"row": name})
    place.keep(range(NUM), [Image.new("RGB", (8, 8), (9, number, len(name))) for number in range(NUM)])
    return place.read(NUM)


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
    for file in rows["skip"].files:
        kept = tmp_path / "kept" / "skip" / file.name
        assert kept.read_bytes() == file.read_bytes() and not kept.samefile(file)
    assert len(list((tmp_path / "kept" / "skip").iterdir())) == NUM


def truncate(file):
    file.write_bytes(file.read_bytes()[:-20])


def swap(file):
    Image.new("RGB", (8, 8), "white").save(file)


def link(file):
    file.rename(file.with_name("moved"))
    file.symlink_to("moved")


@pytest.mark.parametrize("change", [truncate, swap, link, os.unlink])
def test_a_picture_that_is_not_as_it_was_written_is_drawn_again(store, change):
    before = draw(store, "skip")
    change(before.files[1])
    place = store.open({"row": "skip"})
    assert [place.has([number]) for number in range(NUM)] == [True, False, True]
    assert draw(store, "skip") == before


@pytest.mark.parametrize("text", [None, "", "[]", '{"00000.png": 3}'])
def test_pictures_of_a_lost_or_damaged_index_are_drawn_again(store, text):
    index = draw(store, "skip").files[0].with_name("pictures.json")
    index.unlink() if text is None else index.write_text(text)
    assert not store.open({"row": "skip"}).has([0])


def test_a_picture_that_the_store_did_not_write_is_neither_counted_nor_removed(store):
    stray = draw(store, "skip").files[0].with_name("00003.png")
    swap(stray)
    place = store.open({"row": "skip"})
    assert len(place.read(NUM)) == NUM and not place.has([3])
    place.remove()
    assert [path.name for path in place.folder.iterdir()] == [stray.name]


def test_what_the_store_wrote_is_removed_with_its_folder(store):
    draw(store, "skip")
    store.open({"row": "skip"}).remove()
    assert not list(store.folder.iterdir())
