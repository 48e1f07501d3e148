"""safetensors files -> what is in them, from their headers alone. Every header is input: nothing in it is believed.

A file is an 8-byte little-endian length, a JSON header of that length, and the bytes of the tensors without a gap
(https://github.com/huggingface/safetensors#format). No value of a tensor is read here, and no pickle ever.
"""

import json
import math
import os
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from surgery.errors import InputError

MAX_HEADER_BYTES = 64_000_000  # of a header or an index; the largest models have less than one
MAX_VALUES = 2**63 - 1
MAX_DIGITS = 20
WEIGHTS_NAME = "diffusion_pytorch_model"
PREFIX_BYTES = 8
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
PICKLES = {b"PK": "a PyTorch pickle (zip)", b"\x80": "a pickle", b"GGUF": "a GGUF file", b"\x1f\x8b": "a gzip file"}


def num_rows(shape: Sequence[int]) -> int:
    """The size of the first dimension, 1 for a scalar."""
    return shape[0] if len(shape) else 1


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: bytes `start` to `stop` (exclusive) of the file. `dtype` is spelled as in headers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """The number of its bytes."""
        return self.stop - self.start

    @property
    def num_values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file as it was when its header was read: a change of size or time since then can be noticed."""

    path: Path
    size_bytes: int
    mtime_ns: int
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    def refuse_change(self) -> None:
        """Raise InputError where the file is another one now than when its header was read."""
        try:
            now = self.path.stat()
        except OSError:
            raise InputError(f"{self.path} is gone since its header was read; run it again") from None
        if (now.st_size, now.st_mtime_ns) != (self.size_bytes, self.mtime_ns):
            raise InputError(f"{self.path} was changed since its header was read; run it again when it stays as it is")


@dataclass(frozen=True)
class Weights:
    """The files of one model's weights, no tensor twice. `index` lists the shards; it is None for a single file."""

    files: tuple[TensorFile, ...]
    index: Path | None = None

    @cached_property
    def tensors(self) -> Mapping[str, tuple[TensorFile, StoredTensor]]:
        """Every tensor by name, with its file."""
        return {name: (file, tensor) for file in self.files for name, tensor in file.tensors.items()}

    @property
    def size_bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.size_bytes for file in self.files for tensor in file.tensors.values())

    @property
    def num_values(self) -> int:
        """The number of values of all tensors."""
        return sum(tensor.num_values for file in self.files for tensor in file.tensors.values())


def find_weights(folder: Path, *, variant: str | None = None) -> Weights:
    """The weights of a transformer folder, found as diffusers finds them: by index, or as a single file.

    `variant` is diffusers' (`fp16`: files named `diffusion_pytorch_model.fp16.safetensors`).

    Raises:
        InputError: there are none, an index names what is not there, or a file is no sound safetensors file.
    """
    infix = f".{variant}" if variant else ""
    index = folder / f"{WEIGHTS_NAME}.safetensors.index{infix}.json"
    if _exists(index):
        return read_sharded(index)
    single = folder / f"{WEIGHTS_NAME}{infix}.safetensors"
    if _exists(single):
        return Weights((read_header(single),))
    found = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    named = f"; there is {', '.join(found[:5])}" if found else ""
    if any(not name.endswith(".safetensors") for name in found):
        advice = "pickles are never loaded here: load it with diffusers and save_pretrained() it as safetensors"
    elif variant is None and any(name.count(".") > 1 for name in found):
        advice = "a variant is asked for by name, as --variant fp16"
    else:
        advice = "download the weights, or give the folder that has them"
    raise InputError(f"{folder} has no {single.name} and no {index.name}{named}; {advice}")


def read_sharded(index: Path) -> Weights:
    """The shards that an index lists.

    Raises:
        InputError: the index is no index, names files elsewhere, or it and the shards do not agree.
    """
    content = _read_json(index, _bounded(index))
    listed = content.get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise InputError(f"{index} is no index of shards: it has no weight_map from tensors to files")
    for name in dict.fromkeys(listed.values()):
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise InputError(
                f"{index} names the file {name!r}, which is not in its folder; shards lie beside the index"
            )
        if not _exists(index.parent / name):
            raise InputError(f"{index} names the shard {name!r}, which is not there; download it again")
    files = tuple(read_header(index.parent / name) for name in dict.fromkeys(listed.values()))
    holders: dict[str, str] = {}
    for file in files:
        for name in file.tensors:
            if name in holders:
                raise InputError(f"{index}: {holders[name]} and {file.path.name} both hold {name!r}")
            holders[name] = file.path.name
    for name, shard in listed.items():
        if holders.get(name) != shard:
            where = f"it is in {holders[name]}" if name in holders else "no shard has it"
            raise InputError(f"{index} says that {name!r} is in {shard!r}, but {where}; download the model again")
    extra = next((name for name in holders if name not in listed), None)
    if extra is not None:
        raise InputError(f"{index} does not list {extra!r}, which {holders[extra]} holds; download the model again")
    return Weights(files, index)


def read_header(path: Path) -> TensorFile:
    """The header of a safetensors file, with every invariant of the format checked.

    Raises:
        InputError: it can't be read, or is no sound safetensors file; the message names the first broken invariant.
    """
    try:
        with _open(path) as file:
            state = os.fstat(file.fileno())
            prefix = file.read(PREFIX_BYTES)
            length = _header_length(path, prefix, state.st_size)
            raw = file.read(length)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    header = _parse(path, raw)
    base = PREFIX_BYTES + length
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "its __metadata__ is not a map from text to text")
    tensors = {name: _read_entry(path, name, entry, base) for name, entry in header.items()}
    _refuse_gaps(path, tensors.values(), base, state.st_size)
    return TensorFile(path, state.st_size, state.st_mtime_ns, tensors, metadata)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None


def _open(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is no regular file")  # opening a pipe would wait for ever
    return path.open("rb")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise InputError(f"{path} is no sound safetensors file: {reason}")


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    kind = next((kind for magic, kind in PICKLES.items() if prefix.startswith(magic)), None)
    if len(prefix) < PREFIX_BYTES:
        _refuse(path, f"it has {size} bytes, less than the 8 of a header's length")
    length: int = struct.unpack("<Q", prefix)[0]
    if length > MAX_HEADER_BYTES or length > size - PREFIX_BYTES:
        if kind is not None:
            _refuse(path, f"it is {kind}, which is never loaded; save the model as safetensors")
        limit = "the file" if length > size - PREFIX_BYTES else f"the limit of {MAX_HEADER_BYTES} bytes"
        _refuse(path, f"its header of {length} bytes is longer than {limit}; is it cut off, or of another format?")
    return length


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        _refuse(path, "its header does not begin with {")
    try:
        header = _load(raw)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"its header is no JSON: {error}")
    assert isinstance(header, dict), "it begins with a brace"
    return header


def _load(content: bytes) -> Any:
    return json.loads(
        content.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant
    )


def _integer(text: str) -> int:
    """The number; -1, which is no count, for -0, which no other reader takes for one."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is no count")
    return -1 if text == "-0" else int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        for text in (name, value):
            if isinstance(text, str):
                text.encode()  # raises ValueError for half a surrogate pair, which is no text
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_VALUES


def _read_entry(path: Path, name: str, entry: Any, base: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != ENTRY_KEYS:
        _refuse(path, f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        _refuse(path, f"{name!r} has a dtype that is no text")
    if not isinstance(shape, list) or not all(_is_count(size) for size in shape):
        _refuse(path, f"{name!r} has a shape that is no list of counts")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        _refuse(path, f"{name!r} has data_offsets that are not two counts")
    start, stop = offsets
    if start > stop:
        _refuse(path, f"{name!r} ends at {stop}, before it begins at {start}")
    num_values = _count_values(path, name, shape)
    if dtype in BITS:
        num_bits = BITS[dtype] * num_values
        if num_bits != 8 * (stop - start):
            takes = num_bits // 8 if num_bits % 8 == 0 else f"{num_bits} bits"
            _refuse(path, f"{name!r} has {stop - start} bytes, but {dtype} of shape {_shape(shape)} takes {takes}")
    return StoredTensor(name, dtype, tuple(shape), base + start, base + stop)


def _count_values(path: Path, name: str, shape: Iterable[int]) -> int:
    count = 1
    for size in shape:
        count *= size
        if count > MAX_VALUES:
            _refuse(path, f"{name!r} has a shape of more values than can be counted")
    return count


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _refuse_gaps(path: Path, tensors: Iterable[StoredTensor], base: int, size: int) -> None:
    """The tensors must fill the rest of the file: no overlap, no gap, nothing after the last."""
    position = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.stop > size:
            _refuse(path, f"{tensor.name!r} ends at byte {tensor.stop} of {size}; is the file cut off?")
        if tensor.start < position:
            _refuse(path, f"{tensor.name!r} overlaps with the tensor before it")
        if tensor.start > position:
            _refuse(path, f"{tensor.start - position} bytes before {tensor.name!r} belong to no tensor")
        position = tensor.stop
    if position != size:
        _refuse(path, f"{size - position} bytes at its end belong to no tensor")


def _bounded(path: Path) -> bytes:
    try:
        with _open(path) as file:
            content = file.read(MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from None
    if len(content) > MAX_HEADER_BYTES:
        raise InputError(f"{path} is longer than the limit of {MAX_HEADER_BYTES} bytes")
    return content


def _read_json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = _load(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value
