"""Pictures of users: what is shown is what is measured, whatever the file says of modes, alpha and orientation."""

import io

import numpy as np
import pytest
from PIL import Image

from surgery.errors import InputError
from surgery.metrics import open_picture as opener
from surgery.metrics.open_picture import decode_picture, open_picture

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
ORIENTATIONS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"} | {
    7: "TRANSVERSE",
    8: "ROTATE_270",
}


def content_of(image, file_format="PNG", **options):
    target = io.BytesIO()
    image.save(target, format=file_format, **options)
    return target.getvalue()


def corners(image):
    """A picture whose corners differ: red at the upper left."""
    image.putpixel((0, 0), RED)
    return image


@pytest.mark.parametrize(("orientation", "turn"), ORIENTATIONS.items())
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_a_picture_is_turned_as_it_is_shown(orientation, turn, file_format):
    """What a camera wrote is the shown picture turned the other way."""
    shown = corners(Image.new("RGB", (6, 4), BLUE))
    stored = shown.transpose(getattr(Image.Transpose, turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_picture(content_of(stored, file_format, exif=exif))
    assert found.was_turned and np.array_equal(np.asarray(found.image), np.asarray(shown))


@pytest.mark.parametrize("orientation", [None, 1, 0, 9])
def test_others_are_not_turned(orientation):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    found = decode_picture(content_of(corners(Image.new("RGB", (6, 4), BLUE)), exif=exif))
    assert not found.was_turned and found.image.size == (6, 4)


def grey_with_alpha(alpha):
    return Image.merge("LA", [Image.new("L", (4, 4), 10), Image.new("L", (4, 4), alpha)])


def palette_with_hole():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, *BLUE])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "image", [Image.new("RGBA", (4, 4), (*RED, 0)), grey_with_alpha(0), palette_with_hole()], ids=["RGBA", "LA", "P"]
)
def test_what_nobody_sees_is_white(image):
    options = {"transparency": 0} if image.mode == "P" else {}
    found = decode_picture(content_of(image, **options))
    assert found.was_transparent and set(found.image.get_flattened_data()) == {WHITE}


@pytest.mark.parametrize("image", [Image.new("RGBA", (4, 4), (*RED, 255)), grey_with_alpha(255)], ids=["RGBA", "LA"])
def test_opaque_pictures_are_not_called_transparent(image):
    assert not decode_picture(content_of(image)).was_transparent


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(mode):
    with pytest.raises(InputError, match=r"is of Pillow's mode .*; write it with 8 bits a channel"):
        decode_picture(content_of(Image.new(mode, (4, 4)), "TIFF"))


def test_eps_starts_no_other_program():
    with pytest.raises(InputError, match="can't be read: it is no picture"):
        decode_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(opener, "MAX_PIXELS", 15)
    content = content_of(Image.new("RGB", (4, 4)))
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(InputError, match="has 4 x 4 pixels; write one of at most 15"):
        decode_picture(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_half_a_file_is_no_picture(file_format, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = content_of(Image.fromarray(noise), file_format)
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"the picture {tmp_path}/half can't be read: "):
        open_picture(tmp_path / "half")
