"""Folders of pictures, pictures in memory or tensors -> a set of pictures of one size, named by their contents.

The rules: pictures of ours that are scored are PNG, never JPEG, whatever a file is called, and all of one size.
Pictures of a reference may be of any format that Pillow reads, and of any sizes once it is said how to fit them.
Transparency is put over white; 16-bit pictures are refused rather than cut off. Every fault of a folder is named, not
the first only.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from surgery.errors import InputError
from surgery.metrics.open_picture import OpenedPicture, decode_picture, read_content

Role = Literal["scored", "reference"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LOSSY = ("JPEG", "MPO", "WEBP")
MAX_NAMED = 10  # faults that a message names one by one


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one size, in an order, each with its name and the SHA-256 of its contents.

    `crop_px` is how they were brought to the size (see `read_pictures`), and is part of every key that features are
    kept under. `notes` are what a reader of the numbers should know. Pixels of files are read when they are asked for,
    and checked again.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    size: tuple[int, int]  # width, height
    crop_px: int | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    pixels: torch.Tensor | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fit(self) -> str:
        """How the pictures were brought to their size, in words."""
        if self.crop_px is None:
            return "as they are"
        return f"shorter side to {self.crop_px} px (Pillow bilinear), centre crop"

    @cached_property
    def digest(self) -> str:
        """Of all contents together with `fit`, whatever their order and names."""
        text = "\n".join([self.fit, f"{self.size}", *sorted(self.digests)])
        return hashlib.sha256(text.encode()).hexdigest()

    def batches(self, batch_size: int) -> Iterator[torch.Tensor]:
        """Pixels in order: uint8 (at most `batch_size`, 3, H, W).

        Raises:
            InputError: a file is no longer what it was.
        """
        for start in range(0, len(self), batch_size):
            if self.pixels is not None:
                yield self.pixels[start : start + batch_size]
            else:
                numbers = range(start, min(start + batch_size, len(self)))
                yield torch.stack([self._read(number) for number in numbers])

    def all_pixels(self) -> torch.Tensor:
        """uint8 (N, 3, H, W)."""
        return self.pixels if self.pixels is not None else torch.cat(list(self.batches(64)))

    def _read(self, number: int) -> torch.Tensor:
        path = self.files[number]
        content = read_content(path)
        opened = decode_picture(content)
        if _digest_of(content, opened) != self.digests[number]:
            raise InputError(f"{path} was changed while it was measured; measure again")
        return _to_pixels(_fitted(opened.image, self.crop_px))


def read_pictures(folder: Path, *, role: Role, crop_px: int | None = None) -> PictureSet:
    """The pictures of a folder, in the order of their names.

    Scored pictures lie in the folder itself; a reference's may lie in folders within. What is no picture by its name,
    or hidden, is passed over. With `crop_px` (a reference only) each picture's shorter side is scaled to it (Pillow's
    bilinear filter, which is antialiased), and the square in the middle is taken: torch-fidelity's
    `samples_resize_and_crop`.

    Raises:
        InputError: there is no such folder, or nothing in it; pictures can't be read, are lossy where they are scored,
            are of mixed sizes, or have 16 bits a channel.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of pictures")
    if crop_px is not None and role == "scored":
        raise InputError("pictures that are scored are never cropped or resized; crop the reference to their size")
    found = sorted(folder.rglob("*") if role == "reference" else folder.iterdir())
    files = [path for path in found if path.suffix.lower() in SUFFIXES and not _is_hidden(path, folder)]
    if not files:
        raise InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return pictures_of_files(files, folder, role=role, crop_px=crop_px)


def pictures_of_files(files: Sequence[Path], folder: Path, *, role: Role, crop_px: int | None = None) -> PictureSet:
    """Some pictures of a folder, in this order; raises InputError as `read_pictures`."""
    surveyed = [_survey(path, crop_px) for path in files]
    faults = [f"{item.file} {item.fault}" for item in surveyed if item.fault]
    if role == "scored":
        faults += [f"{item.file} is {item.format}, and scored pictures are PNG" for item in surveyed if item.lossy]
    if faults:
        raise InputError(_listed(f"{folder} can't be measured", faults))
    _refuse_mixed({item.file: item.size for item in surveyed}, folder, role)
    return PictureSet(
        tuple(path.relative_to(folder).as_posix() for path in files),
        tuple(item.digest for item in surveyed),
        surveyed[0].size,
        crop_px,
        _notes_on(surveyed),
        tuple(files),
    )


def png_of(image: Image.Image, metadata: PngInfo | None = None) -> bytes:
    """A picture as the bytes of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=metadata)
    return content.getvalue()


def pictures_of_tensor(pixels: torch.Tensor, names: Sequence[str] | None = None) -> PictureSet:
    """uint8 (N, 3, H, W) as it is; raises InputError where it is of another dtype or shape, or holds nothing."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
        found = f"{str(pixels.dtype).removeprefix('torch.')} of shape {tuple(pixels.shape)}"
        raise InputError(f"pictures are uint8 of shape (N, 3, H, W), not {found}")
    pixels = pixels.detach().cpu().contiguous()
    height, width = pixels.shape[2:]
    known = tuple(names) if names is not None else tuple(f"{number:04d}" for number in range(len(pixels)))
    digests = tuple(_digest_of_pixels(picture) for picture in pixels)
    return PictureSet(known, digests, (width, height), pixels=pixels)


@dataclass(frozen=True)
class _Surveyed:
    """A file, looked at once: its contents' digest, its size after fitting, or what is wrong with it."""

    file: Path
    digest: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    transparent: bool = False
    turned: bool = False
    fault: str = ""

    @property
    def lossy(self) -> bool:
        return not self.fault and self.format != "PNG"


def _survey(path: Path, crop_px: int | None) -> _Surveyed:
    try:
        content = read_content(path)
        opened = decode_picture(content)
    except InputError as error:
        return _Surveyed(path, fault=str(error))
    size = opened.image.size if crop_px is None else (crop_px, crop_px)
    digest = _digest_of(content, opened)
    return _Surveyed(path, digest, size, opened.format, opened.was_transparent, opened.was_turned)


def _digest_of(content: bytes, opened: OpenedPicture) -> str:
    """Of the contents; and that they were turned, which pictures that were measured before this was done were not."""
    return hashlib.sha256(content + (b"turned" if opened.was_turned else b"")).hexdigest()


def _fitted(image: Image.Image, crop_px: int | None) -> Image.Image:
    if crop_px is None:
        return image
    short = min(image.size)
    width, height = (crop_px * length // short for length in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - crop_px) / 2), round((height - crop_px) / 2)
    return resized.crop((left, top, left + crop_px, top + crop_px))


def _to_pixels(image: Image.Image) -> torch.Tensor:
    """uint8 (3, H, W)."""
    values = np.asarray(image, dtype=np.uint8)
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def _digest_of_pixels(picture: torch.Tensor) -> str:
    return hashlib.sha256(f"{tuple(picture.shape)};".encode() + picture.contiguous().numpy().tobytes()).hexdigest()


def _refuse_mixed(sizes: Mapping[Any, tuple[int, int]], folder: Path | None, role: Role) -> None:
    first = {size: name for name, size in reversed(list(sizes.items()))}
    if len(first) == 1:
        return
    shown = ", ".join(f"{_px(size)} ({name})" for size, name in sorted(first.items())[:MAX_NAMED])
    ways = (
        "pictures of one size can be scored"
        if role == "scored"
        else "say to which side they are cropped (--crop, crop_px)"
    )
    raise InputError(f"{folder or 'the pictures'}: {len(first)} sizes are mixed: {shown}; {ways}")


def _notes_on(surveyed: Sequence[_Surveyed]) -> tuple[str, ...]:
    notes = []
    lossy = [item for item in surveyed if item.format in LOSSY]
    if lossy:
        notes.append(f"{len(lossy)} of {len(surveyed)} pictures are {lossy[0].format}, with its artefacts")
    transparent = sum(item.transparent for item in surveyed)
    if transparent:
        notes.append(f"{transparent} of {len(surveyed)} pictures are transparent, and were put over white")
    turned = sum(item.turned for item in surveyed)
    if turned:
        notes.append(f"{turned} of {len(surveyed)} pictures were turned as their EXIF orientation says")
    return tuple(notes)


def _listed(fact: str, faults: Sequence[str]) -> str:
    shown = list(faults[:MAX_NAMED])
    if len(faults) > MAX_NAMED:
        shown.append(f"and {len(faults) - MAX_NAMED} more")
    return f"{fact}: " + "; ".join(shown)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"
