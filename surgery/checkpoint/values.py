"""The values that a fold changes, as bytes of the tensor's own dtype: zeros, calibrated means, scaled weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from surgery.anatomy.tensor_files import num_rows
from surgery.checkpoint.byte_plan import Computed
from surgery.errors import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK_BYTES = 2**23
FLOATS = {  # dtypes of safetensors -> NumPy's, and ml_dtypes' where NumPy has none
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
Means = Mapping[str, "NDArray[np.float64]"]  # by COMPONENT/STREAM


def float_dtype(name: str) -> Any:
    """NumPy's dtype for one of `FLOATS`."""
    import ml_dtypes
    import numpy as np

    found = FLOATS[name]
    return np.dtype(getattr(np, found) if hasattr(np, found) else getattr(ml_dtypes, found))


def refuse_unknown_dtypes(pieces: Sequence[Computed]) -> None:
    """Raise RefusedError where values of a dtype must be changed that are not known here."""
    for piece in pieces:
        if piece.segment.change != "zero" and piece.tensor.dtype not in FLOATS:
            raise RefusedError(
                f"{piece.tensor.name} is of dtype {piece.tensor.dtype}, whose values can't be changed; "
                "fold into a checkpoint of a higher precision"
            )


def compute_bytes(piece: Computed, source: BinaryIO, means: Means) -> Iterator[bytes]:
    """The bytes of a piece, in chunks. `source` is the open file that it comes from.

    Zeros are zero bytes in every dtype. A scaled value is w * a in float64, rounded once, to nearest, ties to even; so
    is a mean.
    """
    match piece.segment.change:
        case "mean":
            yield _mean(piece, means)
        case "scale":
            yield from _scaled(piece, source)
        case _:
            for start in range(0, piece.size_bytes, CHUNK_BYTES):
                yield bytes(min(CHUNK_BYTES, piece.size_bytes - start))


def _mean(piece: Computed, means: Means) -> bytes:
    segment = piece.segment
    assert segment.mean is not None, "a mean names its vector"
    vector = means[segment.mean][segment.mean_start : segment.mean_start + segment.num_rows]
    return vector.astype(float_dtype(piece.tensor.dtype)).tobytes()


def _scaled(piece: Computed, source: BinaryIO) -> Iterator[bytes]:
    import numpy as np

    dtype = float_dtype(piece.tensor.dtype)
    rows = num_rows(piece.tensor.shape)
    source.seek(piece.tensor.start + piece.segment.start * (piece.tensor.size_bytes // rows))
    left = piece.size_bytes
    while left:
        wanted = min(CHUNK_BYTES, left)
        content = source.read(wanted)
        if len(content) < wanted:
            raise EOFError("the file ends before its header says")
        left -= len(content)
        values = np.frombuffer(content, dtype).astype(np.float64) * piece.segment.by
        yield values.astype(dtype).tobytes()
