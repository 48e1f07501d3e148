"""A row of any name has one folder of its own, on any file system, and none leads out of its own."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.experiment.folder_names import folder_names

NAMES = st.lists(
    st.text(st.sampled_from("aAbB./\\% \0\n\x7fcnoul1\u00e9e\u0301ß"), max_size=6) | st.text(), unique=True
)


@given(NAMES)
def test_every_name_has_a_folder_that_no_other_has(names):
    found = list(folder_names(names).values())
    seen = {unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()) for name in found}
    assert len(seen) == len(names)
    for name in found:
        assert 0 < len(name.encode("utf-8", "surrogatepass")) <= 210
        assert not set(name) & set("/\\\0\n\x7f") and name[0] not in ". " and name[-1] not in ". "


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["skip layer=3", "each s=[0:3]"], ["skip layer=3", "each s=[0:3]"]),
        (["..", "", "a.", " a", "../../x"], ["%2E%2E", "%", "a%2E", "%20a", "%2E.%2F..%2Fx"]),
        (["%2E%2E", "con", "NUL.txt", "console"], ["%252E%252E", "%63on", "%4EUL.txt", "console"]),
        (["Skip", "skip", "SKIP"], ["Skip", "skip%2", "SKIP%3"]),
        (["recipe.json", "Sheet"], ["recipe.json%2", "Sheet%2"]),
    ],
)
def test_plain_names_stay_and_others_are_escaped(names, folders):
    assert list(folder_names(names, taken=("recipe.json", "sheet")).values()) == folders


def test_long_names_are_cut_and_stay_apart():
    one, other = folder_names(["ä" * 300 + "1", "ä" * 300 + "2"]).values()
    assert one != other and one.startswith("ä" * 80) and max(len(name.encode()) for name in (one, other)) <= 200
