"""Features of pictures, computed once: kept under what they depend on, written beside and renamed.

The key is the SHA-256 of: the contents of every picture, how they were fitted to one size, the extractor's name,
weights and resize protocol, the versions of the packages that it runs on, the batch size and the device (which move the
last bits). Names, places and the order of the pictures are no part of it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from surgery.damage import read_arrays
from surgery.errors import InputError
from surgery.files import key_of_recipe, write_whole
from surgery.metrics.extractors import Extractor, package_versions
from surgery.metrics.feature_sets import Features
from surgery.metrics.pictures import PictureSet

KEY = "surgery_features"
FORMAT = 1


def features_of(
    pictures: PictureSet,
    extractor: Extractor,
    *,
    cache: Path | None = None,
    batch_size: int = 32,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Features:
    """The features of every picture, in their order: from `cache`, a folder, or computed and put there.

    `on_batch` is told how many pictures each batch has finished; it is not called where they were known.

    Raises:
        InputError: the extractor refuses the pictures, or gives values that are no finite numbers.
    """
    recipe = feature_recipe(pictures, extractor, batch_size)
    path = None if cache is None else cache / f"features-{key_of_recipe(recipe)[:32]}.safetensors"
    known = None if path is None else _lookup(path, recipe)
    if known is not None:
        return Features(_in_order(*known, pictures.digests), extractor.origin, pictures.digests)
    values = _extract(pictures, extractor, batch_size, on_batch)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _packed(values, pictures.digests, recipe))
    return Features(values, extractor.origin, pictures.digests)


def feature_recipe(pictures: PictureSet, extractor: Extractor, batch_size: int) -> dict[str, Any]:
    """Everything that features depend on."""
    return {
        "format": FORMAT,
        "pictures": pictures.digest,
        "num": len(pictures),
        "fit": pictures.fit,
        **extractor.origin.to_json(),
        "channels": extractor.channels,
        "versions": dict(sorted({**package_versions("pillow"), **extractor.versions}.items())),  # Pillow decodes
        "batch_size": batch_size,
        "device": extractor.device.partition(":")[0],
    }


def _extract(
    pictures: PictureSet, extractor: Extractor, batch_size: int, on_batch: Callable[[int], None]
) -> NDArray[np.float32]:
    found = []
    for batch in pictures.batches(batch_size):
        found.append(extractor.extract(batch))
        on_batch(len(batch))
    values = np.concatenate(found)
    if not np.isfinite(values).all():
        number = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise InputError(f"{extractor.name} gives features of {pictures.names[number]} that are no finite numbers")
    return values


def _packed(values: NDArray[np.float32], digests: tuple[str, ...], recipe: dict[str, Any]) -> bytes:
    rows = np.array([list(bytes.fromhex(digest)) for digest in digests], dtype=np.uint8)
    header = {**recipe, "sha256": _checksum(values, rows)}
    return save({"features": np.ascontiguousarray(values), "digests": rows}, metadata={KEY: json.dumps(header)})


def _lookup(path: Path, recipe: dict[str, Any]) -> tuple[NDArray[np.float32], tuple[str, ...]] | None:
    """Features and the digests of their pictures; None where they are not there, damaged, or of something else."""
    try:
        header, arrays = read_arrays(path, KEY, f"{path}")
    except InputError:
        return None
    if not {"features", "digests"} <= arrays.keys():
        return None
    values, rows = arrays["features"], arrays["digests"]
    if header != {**recipe, "sha256": _checksum(values, rows)}:
        return None
    return values, tuple(bytes(row).hex() for row in rows)


def _checksum(values: NDArray[np.float32], rows: NDArray[np.uint8]) -> str:
    """Of what safetensors itself does not protect."""
    return hashlib.sha256(values.tobytes() + rows.tobytes()).hexdigest()


def _in_order(values: NDArray[np.float32], known: tuple[str, ...], digests: tuple[str, ...]) -> NDArray[np.float32]:
    """The rows in the order of the pictures that were asked for: pictures of equal contents have equal features."""
    place = {digest: number for number, digest in enumerate(known)}
    return values[[place[digest] for digest in digests]]
