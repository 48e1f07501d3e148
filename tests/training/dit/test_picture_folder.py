"""Folders of pictures: what is taken from them, and all that is wrong with one at once, named and counted."""

import pytest
from PIL import Image

from surgery.errors import InputError, SurgeryNote
from surgery.training.dit.picture_folder import read_captioned, read_classes
from surgery.training.shelf import Shelf


@pytest.fixture
def read(pictures, tmp_path):
    """Reads the folder of three classes of six pictures."""

    def run(how=read_classes, *, crop=False, skip_unreadable=False):
        return how(pictures, Shelf(tmp_path / "shelf"), crop=crop, skip_unreadable=skip_unreadable)

    return run


def test_a_picture_has_the_class_of_its_folder(read, pictures):
    files = read()
    assert [file.label for file in files] == ["blue"] * 6 + ["green"] * 6 + ["red"] * 6
    assert files[0].path == pictures / "blue" / "0.png" and files[0].open_square().size == (8, 8)
    assert len({file.key for file in files}) == 18


def test_all_that_is_wrong_is_told_at_once(read, pictures):
    (pictures / "empty").mkdir()
    (pictures / "empty" / "notes.txt").write_text("no picture")
    (pictures / "lost.png").write_bytes((pictures / "red" / "0.png").read_bytes())
    for number in range(6, 13):
        (pictures / "red" / f"{number:02}.png").write_bytes(b"none")
    whole = (pictures / "blue" / "1.png").read_bytes()
    (pictures / "blue" / "1.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (12, 8)).save(pictures / "green" / "wide.png")
    with pytest.raises(InputError) as error:
        read()
    lines = [line.removeprefix(f"{pictures}: ") for line in str(error.value).splitlines()]
    assert lines[0] == "the class empty has no picture (.png, .jpg, .jpeg, .webp, .bmp)"
    assert lines[1] == "1 picture in no folder of a class: lost.png"
    assert lines[2].startswith("8 pictures of 26 can't be read: 1.png (") and "06.png (it is no picture)" in lines[2]
    assert lines[2].endswith(" and 3 more; mend or remove them, or write skip_unreadable: true")
    assert lines[3].startswith("pictures have 2 sizes: 8 x 8 (17), 12 x 8 (1); write crop: true, which takes")
    assert len(lines) == 4


def test_unreadable_pictures_are_left_out_on_request_but_not_a_whole_class(read, pictures):
    (pictures / "red" / "0.png").write_bytes(b"none")
    with pytest.warns(
        SurgeryNote, match=r"pictures: 1 picture of 18 can't be read, and left out: 0\.png \(it is no pic"
    ):
        assert len(read(skip_unreadable=True)) == 17
    for path in (pictures / "red").iterdir():
        path.write_bytes(b"none" + path.name.encode())
    with pytest.raises(InputError, match="of the class red no picture can be read"):
        read(skip_unreadable=True)  # which is no note


def test_pictures_that_were_mended_are_read_again(read, pictures):
    good = (pictures / "red" / "0.png").read_bytes()
    (pictures / "red" / "0.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"1 picture of 18 can't be read: 0\.png"):
        read()
    (pictures / "red" / "0.png").write_bytes(good)
    assert len(read()) == 18


def test_pictures_of_other_shapes_are_cut_to_their_middle_on_request(read, pictures):
    wide = Image.new("RGB", (12, 8), "black")
    wide.paste("white", (2, 0, 10, 8))
    wide.save(pictures / "red" / "wide.png")
    file = next(file for file in read(crop=True) if file.path.stem == "wide")
    assert file.open_square().getextrema() == ((255, 255),) * 3


def test_squares_that_are_none_take_crop_as_well(read, pictures):
    for path in pictures.rglob("*.png"):
        Image.new("RGB", (8, 6), (int(path.stem) * 9, 0, len(path.parent.name))).save(path)
    with pytest.raises(InputError, match=r"the pictures are no squares: 8 x 6 \(18\); write crop: true"):
        read()


def test_a_folder_without_classes_is_told(read, pictures, tmp_path):
    shelf = Shelf(tmp_path / "shelf")
    options = {"crop": False, "skip_unreadable": False}
    with pytest.raises(InputError, match="nowhere is no folder; write digits, emoji, or a folder of pictures"):
        read_classes(tmp_path / "nowhere", shelf, **options)
    with pytest.raises(InputError, match="red has no folders, one a class; put the pictures of each class in one"):
        read_classes(pictures / "red", shelf, **options)
    (pictures / "red" / "0.txt").write_text("a red square")
    with pytest.raises(InputError, match="red has no folders, one a class; with captions it takes a text_encoder"):
        read_classes(pictures / "red", shelf, **options)
    (tmp_path / "bare" / "one").mkdir(parents=True)
    with pytest.raises(InputError, match="bare has no pictures in its folders: one"):
        read_classes(tmp_path / "bare", shelf, **options)


def test_every_caption_of_a_picture_is_a_row(read, pictures):
    lines = [
        '{"file_name": "red/0.png", "text": ["a red square", "red"]}',
        '{"file_name": "blue/0.png", "text": "blue"}',
    ]
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    files = read(read_captioned)
    assert [file.label for file in files] == ["a red square", "red", "blue"]
    assert files[0].key == files[1].key != files[2].key
    (pictures / "metadata.jsonl").write_text(lines[0] + '\n{"file_name": "gone.png", "text": "x"}')
    with pytest.raises(InputError, match=r"names gone\.png, which is not there"):
        read(read_captioned)
