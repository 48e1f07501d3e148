"""Values that folds change, against torch's own arithmetic, in every dtype that is known."""

import io

import numpy as np
import pytest
import torch

from surgery.anatomy.tensor_files import StoredTensor, TensorFile
from surgery.checkpoint import values
from surgery.checkpoint.byte_plan import Computed
from surgery.checkpoint.new_checkpoint import Segment
from surgery.errors import RefusedError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
FILE = TensorFile("/nowhere", 0, 0, {}, {})


def piece_of(tensor, name, segment):
    size = tensor.element_size() * tensor[segment.start : segment.stop].numel()
    stop = tensor.element_size() * tensor.numel()
    return Computed(FILE, StoredTensor("t", name, tuple(tensor.shape), 0, stop), segment, size)


def content_of(tensor):
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_every_known_dtype_is_compared():
    assert DTYPES.keys() == values.FLOATS.keys()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("by", [0.3, -1.0, 2.0, 1e-3])
def test_scaled_rows_are_rounded_once(monkeypatch, name, by):
    monkeypatch.setattr(values, "CHUNK_BYTES", 64)  # several chunks
    tensor = torch.randn(9, 16, generator=torch.Generator().manual_seed(0)).to(DTYPES[name])
    piece = piece_of(tensor, name, Segment("t", 2, 8, "scale", by=by))
    found = b"".join(values.compute_bytes(piece, io.BytesIO(content_of(tensor)), {}))
    exact = (tensor[2:8].double() * by).numpy().astype(values.float_dtype(name))
    assert found == exact.tobytes() and len(found) == piece.size_bytes
    again = torch.frombuffer(bytearray(found), dtype=DTYPES[name]).double()
    assert torch.allclose(again, tensor[2:8].double().flatten() * by, rtol=0.13, atol=0.02)


@pytest.mark.parametrize("name", DTYPES)
def test_a_mean_is_the_part_of_its_vector_that_the_rows_are(name):
    tensor = torch.zeros(8).to(DTYPES[name])
    piece = piece_of(tensor, name, Segment("t", 2, 6, "mean", mean="a/b", mean_start=1))
    vector = np.linspace(-1, 1, 7)
    found = b"".join(values.compute_bytes(piece, io.BytesIO(), {"a/b": vector}))
    assert found == vector[1:5].astype(values.float_dtype(name)).tobytes()


def test_zeros_are_zero_bytes_of_any_dtype():
    piece = Computed(FILE, StoredTensor("t", "ODD", (3, 5), 0, 33), Segment("t", 0, 2, "zero"), 22)
    values.refuse_unknown_dtypes([piece])
    assert b"".join(values.compute_bytes(piece, io.BytesIO(), {})) == bytes(22)


def test_values_of_an_unknown_dtype_can_not_be_scaled():
    piece = Computed(FILE, StoredTensor("t", "ODD", (3, 5), 0, 33), Segment("t", 0, 2, "scale", by=2.0), 22)
    with pytest.raises(RefusedError, match="t is of dtype ODD, whose values can't be changed; fold into a checkpoint"):
        values.refuse_unknown_dtypes([piece])


def test_a_source_that_ends_early_is_noticed():
    tensor = torch.ones(4, 4)
    piece = piece_of(tensor, "F32", Segment("t", 0, 4, "scale", by=2.0))
    with pytest.raises(EOFError, match="ends before its header says"):
        list(values.compute_bytes(piece, io.BytesIO(content_of(tensor)[:20]), {}))
