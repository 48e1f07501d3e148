"""Names of specs and of points of sweeps: what is named is found, and what is not there is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import InputError
from surgery.spec.load import load_spec
from surgery.spec.places import Place
from surgery.spec.spec_name import SpecName, name_of_point, parse_spec_name, read_point
from surgery.spec.vary import Variable

SWEEP = """surgery: v1
vary: {s: [0, 1, 12], by: [0.5, 1e-3], "layer": "transformer_blocks[3:5]"}
operations: [{scale: {layers: "transformer_blocks[{s}, {layer}]", by: "{by}"}}]
"""
TEXTS = st.text(st.sampled_from("ab1,=# "), min_size=1, max_size=6)


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


@given(st.lists(TEXTS, min_size=1, max_size=3, unique=True), st.data())
def test_a_point_is_found_by_its_name_in_any_order_of_its_variables(values, data):
    """Commas, signs and spaces within values stay there, as long as none of them begins another variable."""
    variables = [Variable("how", Place(1, 1), tuple(values)), Variable("s", Place(1, 1), (0, 1))]
    wanted = {"how": data.draw(st.sampled_from(values)), "s": "1"}
    order = data.draw(st.permutations(["how", "s"]))
    name = parse_spec_name(name_of_point("x.yaml", [(key, wanted[key]) for key in order]))
    assert name.path == "x.yaml"
    assert dict(read_point(name, variables)) == wanted


def test_a_value_may_look_like_another_variable():
    """As long as the sweep has it: else it is a variable that is not there."""
    variables = [Variable("how", Place(1, 1), ("a,b=1", "a")), Variable("s", Place(1, 1), (0, 1))]
    assert read_point(SpecName("x.yaml", "s=1,how=a,b=1"), variables) == (("how", "a,b=1"), ("s", "1"))
    with pytest.raises(InputError, match='there is no variable "b"; there are how, s'):
        read_point(SpecName("x.yaml", "s=1,how=a,b=2"), variables)


def test_a_file_whose_own_name_holds_the_sign_is_that_file(tmp_path):
    """Also where its name is like that of a point, with that behind it, and in a folder of such a name."""
    folder = tmp_path / "a#s=1"
    folder.mkdir()
    path = folder / "b#c.yaml"
    path.write_text("surgery: v1\noperations: []\n")
    assert parse_spec_name(path) == SpecName(str(path))
    assert parse_spec_name(f"{path}#s=3") == SpecName(str(path), "s=3")
    assert load_spec(path).named is None
    like_a_point = folder / "b.yaml#s=3"
    for name in ("b.yaml", like_a_point.name):
        (folder / name).write_text("surgery: v1\noperations: []\n")
    assert parse_spec_name(like_a_point) == SpecName(str(like_a_point))


def test_what_is_not_there_is_a_point_only_behind_the_ending_of_a_spec():
    assert parse_spec_name("no/file#here") == SpecName("no/file#here")
    assert parse_spec_name("no/file.yml#s=1#2") == SpecName("no/file.yml", "s=1#2")
    assert parse_spec_name("-#s=1") == SpecName("-", "s=1")


def test_a_number_is_found_however_it_is_written(sweep):
    assert load_spec(f"{sweep}#s=01,by=.001,layer=3").named == (("s", "01"), ("by", ".001"), ("layer", "3"))


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("", r"there is no point behind the #; write it like '.*sweep.yaml#s=0,by=0.5,layer=0'"),
        ("s=1,by=0.5", r"it gives no value to layer; write it like"),
        ("s=1", r"it gives no value to by and layer; write it like"),
        ("s=1,by=0.5,layer=3,s=0", r"it gives the variable s 2 values; write one"),
        ("s=1,by=0.5,layers=3", r'there is no variable "layers"; there are s, by, layer; did you mean "layer"\?'),
        ("s=2,by=0.5,layer=3", r'the variable s has no value "2"; there are 0, 1, 12'),
        ("1,by=0.5,layer=3", r'"1" gives no value to a variable; write it like'),
    ],
)
def test_a_name_of_no_point_says_what_there_is(sweep, point, told):
    with pytest.raises(InputError, match=rf"^'{sweep}#{point}': {told}"):
        load_spec(f"{sweep}#{point}")


def test_all_that_is_wrong_with_a_name_is_told_in_one_go(sweep):
    with pytest.raises(InputError, match=r'variable "t".*\n.*no value to layer.*\n.*no value "9".*\n.*no value "7"'):
        load_spec(f"{sweep}#t=1,s=9,by=7")


def test_a_spec_that_is_no_sweep_has_no_points(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text("surgery: v1\noperations: []\n")
    with pytest.raises(InputError, match=r"plain.yaml is no sweep \(it has no vary\), and has no points; leave out"):
        load_spec(f"{path}#s=1")
