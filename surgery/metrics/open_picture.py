"""A picture file -> pixels that mean what people see: the one opener of the package.

Formats are those that Pillow decodes by itself (EPS would start another program); a picture is decoded whole, so that a
truncated one is found out; it is turned as its EXIF orientation says; what is transparent is put over white; 16 bits a
channel are refused rather than cut off; and so are more pixels than anybody measures with.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from surgery.damage import told_as
from surgery.errors import InputError

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")
MAX_PIXELS = 100_000_000  # a decoded picture of 300 MB
OPAQUE = 255


@dataclass(frozen=True)
class OpenedPicture:
    """A picture in RGB, over white where it was transparent; what had to be done to it."""

    image: Image.Image
    format: str
    was_turned: bool
    was_transparent: bool


def open_picture(file: Path) -> OpenedPicture:
    """The picture of a file; raises InputError, which names it, where there is none."""
    try:
        return decode_picture(read_content(file))
    except InputError as error:
        raise InputError(f"the picture {file} {error}") from None


def read_content(file: Path) -> bytes:
    """The bytes of a file; raises InputError (`can't be read: ...`)."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}") from None


def decode_picture(content: bytes) -> OpenedPicture:
    """The picture that the bytes of a file hold; what it is called by is none of it.

    Raises:
        InputError: they are no picture, a damaged one, one of another format, of too many pixels, or of 16 bits.
    """
    with told_as("can't be read"):
        try:
            image = Image.open(io.BytesIO(content), formats=_known_formats())
        except UnidentifiedImageError:
            raise InputError("can't be read: it is no picture") from None
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"has {image.width} x {image.height} pixels; write one of at most {MAX_PIXELS:,}")
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # Pillow turns TIFF as it decodes
        image.load()
        turned = ImageOps.exif_transpose(image)
    if image.mode not in MODES:
        raise InputError(f"is of Pillow's mode {image.mode}; write it with 8 bits a channel")
    is_transparent = _is_transparent(turned)
    return OpenedPicture(
        _over_white(turned) if is_transparent else turned.convert("RGB"),
        image.format or "",
        orientation in range(2, 9),
        is_transparent,
    )


def _known_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_transparent(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(lowest != OPAQUE)


def _over_white(image: Image.Image) -> Image.Image:
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layered).convert("RGB")
