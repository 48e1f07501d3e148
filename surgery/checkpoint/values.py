"""The values that a fold changes, as bytes of the tensor's own dtype: zeros, calibrated means, scaled weights."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from surgery.checkpoint.byte_plan import Computed
from surgery.errors import RefusedError

CHUNK_BYTES = 2**23
DTYPES: Mapping[str, type] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
Means = Mapping[str, NDArray[np.float64]]  # by COMPONENT/STREAM


def refuse_unknown_dtypes(pieces: list[Computed]) -> None:
    """Raise RefusedError where values of a dtype must be changed that are not known here."""
    for piece in pieces:
        if piece.segment.change != "zero" and piece.tensor.dtype not in DTYPES:
            raise RefusedError(
                f"{piece.tensor.name} is of dtype {piece.tensor.dtype}, whose values can't be changed; "
                "fold into a checkpoint of a higher precision"
            )


def compute_bytes(piece: Computed, source: BinaryIO, means: Means) -> Iterator[bytes]:
    """The bytes of a piece, in chunks. `source` is the open file that it comes from.

    Zeros are zero bytes in every dtype. A scaled value is w * a in float64, rounded once, to nearest, ties to even; so
    is a mean.
    """
    segment = piece.segment
    if segment.change == "zero":
        for start in range(0, piece.size_bytes, CHUNK_BYTES):
            yield bytes(min(CHUNK_BYTES, piece.size_bytes - start))
        return
    dtype = np.dtype(DTYPES[piece.tensor.dtype])
    if segment.change == "mean":
        assert segment.mean is not None, "a mean names its vector"
        vector = means[segment.mean][segment.mean_start : segment.mean_start + segment.num_rows]
        yield vector.astype(dtype).tobytes()
        return
    rows = piece.tensor.shape[0] if piece.tensor.shape else 1
    source.seek(piece.tensor.start + segment.start * (piece.tensor.size_bytes // rows))
    left = piece.size_bytes
    while left:
        content = source.read(min(CHUNK_BYTES, left))
        left -= len(content)
        values = np.frombuffer(content, dtype).astype(np.float64) * segment.by
        yield values.astype(dtype).tobytes()
