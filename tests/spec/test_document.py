import pytest

from surgery.anatomy.sources import find_source
from surgery.errors import InputError, SpecError
from surgery.profiles.means import read_means
from surgery.profiles.profile_file import read_profile
from surgery.spec.document import MAX_BYTES, Entries, Items, Scalar, read_document
from surgery.spec.load import load_spec, read_spec
from surgery.spec.places import Faults, Place

HEAD = "surgery: v1\n"


def read_value(text: str) -> Scalar:
    """The value of the key `x` of a text."""
    faults = Faults("t.yaml")
    document = read_document(text, faults)
    faults.raise_if_any()
    assert isinstance(document, Entries)
    value = document.get("x")
    assert isinstance(value, Scalar)
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("2.5e3", 2500.0), ("-1e+2", -100.0), ("0x10", 16), ("1_000", 1000), ("1.5", 1.5)],
)
def test_a_number_is_a_number_however_it_is_written(text, value):
    assert read_value(f"x: {text}\n").value == value


@pytest.mark.parametrize("text", ['"1e-3"', "'1e-3'", '"12"', '"5:8"', "1e", "e5", "'no'", "2001-01-01", "٣e٥"])
def test_what_is_quoted_or_no_number_stays_a_text(text):
    assert read_value(f"x: {text}\n").value == text.strip("\"'")


@pytest.mark.parametrize(("text", "value"), [("no", False), ("yes", True), ("~", None), ("", None), ("Off", False)])
def test_words_that_yaml_reads_as_values_keep_their_text(text, value):
    scalar = read_value(f"x: {text}\n")
    assert (scalar.value, scalar.text) == (value, text)


@pytest.mark.parametrize(("text", "column"), [("abcdef", 4), ('"abcdef"', 5), ("'abcdef'", 5), ("   abcdef", 7)])
def test_columns_count_from_the_first_character_of_a_scalar(text, column):
    scalar = read_value(f"x: {text}\n")
    assert scalar.place_of(0) == Place(1, column)
    assert scalar.place_of(3) == Place(1, column + 3)


@pytest.mark.parametrize(
    "text", ["transformer_blocks[3, x]", '"transformer_blocks[3, x]"', "'transformer_blocks[3, x]'"]
)
def test_a_fault_in_a_selector_points_at_its_character(text):
    column = len("- skip: ") + text.index("x]") + 1
    with pytest.raises(SpecError, match=rf'^spec.yaml:3:{column}: "x" is no index'):
        read_spec(f"{HEAD}operations:\n- skip: {text}\n")


def test_a_byte_order_mark_is_accepted_and_moves_no_column():
    text = f"{HEAD}operations: 3\n"
    with pytest.raises(SpecError, match=r"^spec.yaml:2:13: ") as plain:
        read_spec(text)
    with pytest.raises(SpecError, match=r"^spec.yaml:2:13: ") as marked:
        read_spec(b"\xef\xbb\xbf" + text.encode())
    assert str(plain.value) == str(marked.value)


def test_text_and_bytes_give_the_same_spec():
    text = f"{HEAD}title: Größe\noperations:\n- skip: transformer_blocks[3]\n"
    assert read_spec(text) == read_spec(text.encode())


def test_a_file_gives_the_spec_of_its_text(tmp_path):
    path = tmp_path / "skip.yaml"
    path.write_text(f"{HEAD}operations: []\n")
    spec = load_spec(path)
    assert spec == read_spec(path.read_bytes(), file=str(path), folder=tmp_path)


def test_an_alias_stands_for_its_value():
    document = read_document("a: &x [1, 2]\nb: *x\n", Faults("t.yaml"))
    assert isinstance(document, Entries)
    assert isinstance(document.get("b"), Items)
    assert document.get("a") == document.get("b")


def test_a_file_that_is_too_large_is_refused_before_it_is_read():
    with pytest.raises(SpecError, match=r"^spec.yaml:1:1: the file has over 100,000 bytes"):
        read_spec(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match=r"^spec.yaml:1:1: the file is empty"):
        read_spec(b"#" * MAX_BYTES)


@pytest.mark.parametrize("breaking", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_every_line_break_of_yaml_counts_as_one(breaking):
    with pytest.raises(SpecError, match=r"^spec.yaml:2:13: operations is 3; write a list"):
        read_spec(f"surgery: v1{breaking}operations: 3{breaking}")


def test_the_first_fault_of_a_value_is_the_last_word_on_it():
    faults = Faults("t.yaml")
    faults.add_final(Place(3, 4), "a trap")
    faults.add(Place(3, 4), "what follows from it")
    faults.add(Place(1, 1), "another")
    with pytest.raises(SpecError, match="another") as caught:
        faults.raise_if_any()
    assert caught.value.faults == ("t.yaml:1:1: another", "t.yaml:3:4: a trap")


def test_a_misspelt_key_is_read_as_the_key_it_may_mean():
    with pytest.raises(SpecError, match="did you mean") as caught:
        read_spec(f"{HEAD}operatons:\n- parallell: {{layer: 3, loop: x}}\n")
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [
        "spec.yaml:2:1",
        "spec.yaml:3:3",
        "spec.yaml:3:15",
        "spec.yaml:3:22",
        "spec.yaml:3:25",
        "spec.yaml:3:31",
    ]


OTHERS = {
    "profile.safetensors": ((16).to_bytes(8, "little") + b'{"a":1}         ', "a safetensors file"),
    "broken.safetensors": (b"\xff\x00", "a safetensors file"),
    "config.json": (b'{"algo": "lokr"}', "a JSON document"),
    "picture.png": (b"\x89PNG\r\n\x1a\n", "a picture"),
    "variant.pt2": (b"PK\x03\x04", "an archive"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_in_the_place_of_a_spec_is_told_as_what_it_is(name, tmp_path):
    content, kind = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} is {kind}.*, and no spec, which is YAML"):
        load_spec(tmp_path / name)


def test_a_spec_in_json_is_a_spec(tmp_path):
    (tmp_path / "spec.json").write_text('{"surgery": "v1", "operations": []}')
    assert load_spec(tmp_path / "spec.json").operations == ()


def test_a_spec_in_the_place_of_a_profile_or_a_model_is_told_as_that(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("surgery: v1\noperations: []\n")
    for read, what in ((read_profile, "no profile"), (read_means, "no profile"), (find_source, "no model")):
        with pytest.raises(InputError, match=rf"spec\.yaml is a spec, and {what}"):
            read(str(path))
