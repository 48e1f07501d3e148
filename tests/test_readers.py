"""A bounded number of what `python tests/fuzz_readers.py` tries, and that it notices a reader that falls over."""

from dataclasses import replace

import fuzz_readers as fuzz
import pytest

from surgery.errors import InputError

FILES_A_KIND = 6
NEVER_REFUSED = {"marker", "stored pictures", "unfinished", "anatomy", "card"}  # what is damaged is not there

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and diffusers, about what they take all the same


@pytest.fixture(scope="module")
def kinds():
    """Every kind of file, and a sound one."""
    return fuzz.list_kinds()


def test_every_sound_file_is_read(kinds, tmp_path):
    for number, kind in enumerate(kinds.values()):
        assert fuzz.outcome_of(kind, kind.files, tmp_path / str(number)) == "read"


def test_mutated_files_are_read_or_refused_in_words(kinds, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "FAILED", tmp_path)
    found = fuzz.try_many(kinds, FILES_A_KIND * len(kinds), "test")
    assert found.total() == FILES_A_KIND * len(kinds)
    assert {name for name, outcome in found if outcome == "refused"} >= {"profile", "npz", "coco", "png"}
    assert not NEVER_REFUSED & {name for name, outcome in found if outcome == "refused"}


def test_the_fuzzer_fails_where_a_reader_falls_over(kinds, monkeypatch, tmp_path):
    def read(place):
        try:
            return kinds["coco"].read(place)
        except InputError:
            raise KeyError("images") from None

    monkeypatch.setattr(fuzz, "FAILED", tmp_path)
    with pytest.raises(KeyError, match="images") as raised:
        fuzz.try_many({"coco": replace(kinds["coco"], read=read)}, 20, "test")
    assert "coco, number " in raised.value.__notes__[0]
    assert (tmp_path / "coco" / "p.json").is_file()
