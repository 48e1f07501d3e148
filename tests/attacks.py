"""A folder of attacks: transformer folders that lie, each beside the whole message that it must give.

Every entry writes one hostile folder; those of one file say, too, where the official safetensors library would read
it and why we do not. NEIGHBOURS are valid folders, each close to an attack, and what must be read from them.
"""

import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

SINGLE = "diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
ONE, TWO, THREE = (f"diffusion_pytorch_model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
MARKER = "unpickled"
LIMIT = 64_000_000

Write = Callable[[Path], None]
Read = Mapping[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes


@dataclass(frozen=True)
class Attack:
    """How to write a hostile folder, and the message for it, `{folder}` standing for the folder.

    `stricter` says why we refuse what the official library reads; empty where it refuses too.
    """

    write: Write
    message: str
    stricter: str = ""
    needs_user: bool = False  # root may read everything


@dataclass(frozen=True)
class Neighbour:
    """How to write a valid folder, and what is in it. `looser` says why the official library refuses it, if it does."""

    write: Write
    tensors: Read
    looser: str = ""


def content_of(header: str | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file: the length of the header (or another), the header, and the bytes of the tensors."""
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def header_of(tensors: Read, metadata: Mapping[str, str] | None = None) -> str:
    """The header for the tensors, laid out one after the other."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    return json.dumps(header)


def sound(tensors: Read) -> bytes:
    """A valid safetensors file."""
    return content_of(header_of(tensors), b"".join(data for _, _, data in tensors.values()))


def entry(dtype: str = '"U8"', shape: str = "[2]", offsets: str = "[0, 2]") -> str:
    """A tensor's entry, in the JSON given for its parts."""
    return f'{{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}'


def writes(files: Mapping[str, bytes]) -> Write:
    """Write each file into the folder."""

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return write


def single(header: str | bytes, data: bytes = b"ab", *, length: int | None = None) -> Write:
    """Write the one file of a folder without an index."""
    return writes({SINGLE: content_of(header, data, length=length)})


def one(dtype: str = '"U8"', shape: str = "[2]", offsets: str = "[0, 2]", *, data: bytes = b"ab") -> Write:
    """Write one file with the tensor a, its entry in the JSON given for its parts."""
    return single(f'{{"a": {entry(dtype, shape, offsets)}}}', data)


def two(name: str, other: str, *, data: bytes = b"ab") -> Write:
    """Write one file with the tensor a, and one more of this entry."""
    return single(f'{{"a": {entry()}, "{name}": {other}}}', data)


def indexed(index: object, files: Mapping[str, bytes]) -> Write:
    """Write an index, as it is if bytes and as JSON otherwise, and the shards."""
    content = index if isinstance(index, bytes) else json.dumps(index).encode()
    return writes({INDEX: content, **files})


def names(shard: object) -> Write:
    """Write an index that gives `shard` as the file of b, beside a valid shard."""
    return indexed({"weight_map": {"a": ONE, "b": shard}}, {ONE: SHARDS[ONE]})


def together(*parts: Write) -> Write:
    """Write one after the other."""

    def write(folder: Path) -> None:
        for part in parts:
            part(folder)

    return write


def sparse(name: str, prefix: bytes, size: int) -> Write:
    """Write a file of `size` bytes of which only the first are on the disk."""

    def write(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.write(prefix)
            file.truncate(size)

    return write


def links(name: str, target: str) -> Write:
    """Write a symbolic link."""
    return lambda folder: (folder / name).symlink_to(target)


class Marking:
    """What creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def write_pickle(folder: Path) -> None:
    """A plain pickle named as safetensors."""
    (folder / SINGLE).write_bytes(pickle.dumps({"a": Marking(folder / MARKER)}, protocol=4))


def write_oldest_pickle(folder: Path) -> None:
    """A pickle of protocol 0, which is text, named as safetensors."""
    (folder / SINGLE).write_bytes(pickle.dumps({"a": Marking(folder / MARKER)}, protocol=0))


def write_torch_zip(folder: Path, name: str = SINGLE) -> None:
    """What torch.save writes, named as safetensors."""
    torch.save({"a": Marking(folder / MARKER)}, folder / name)


def write_torch_legacy(folder: Path) -> None:
    """What torch.save wrote before version 1.6, named as safetensors."""
    torch.save({"a": Marking(folder / MARKER)}, folder / SINGLE, _use_new_zipfile_serialization=False)


def write_unreadable(folder: Path) -> None:
    """A valid file that may not be read."""
    (folder / SINGLE).write_bytes(sound(A))
    (folder / SINGLE).chmod(0)


def write_cache(folder: Path) -> None:
    """Shards as the hub's cache has them: links out of the folder, to files that are named by their hash."""
    blobs = folder.parent / f"{folder.name}-blobs"
    blobs.mkdir()
    for number, (name, content) in enumerate({INDEX: json.dumps(WHOLE).encode(), **SHARDS}.items()):
        (blobs / f"{number:064x}").write_bytes(content)
        (folder / name).symlink_to(f"../{blobs.name}/{number:064x}")


A: Read = {"a": ("U8", (2,), b"ab")}
B: Read = {"b": ("F16", (1, 2), b"bcde")}
SHARDS = {ONE: sound(A), TWO: sound(B)}
WHOLE = {"metadata": {"total_size": 6}, "weight_map": {"a": ONE, "b": TWO}}

NO_SOUND = f"{{folder}}/{SINGLE} is no sound safetensors file: "
NO_JSON = f"{NO_SOUND}its header is no JSON: "
NO_ENTRY = f"{NO_SOUND}'a' is not described by dtype, shape and data_offsets"
NO_SHAPE = f"{NO_SOUND}'a' has a shape that is no list of counts"
NO_OFFSETS = f"{NO_SOUND}'a' has data_offsets that are not two counts"
NO_METADATA = f"{NO_SOUND}its __metadata__ is not a map from text to text"
NO_WEIGHTS = f"{{folder}} has no {SINGLE} and no {INDEX}"
NO_MAP = f"{{folder}}/{INDEX} is no index of shards: it has no weight_map from tensors to files"
NO_PICKLES = "pickles are never loaded here: load it with diffusers and save_pretrained() it as safetensors"
AS_LENGTH = int.from_bytes(b'{"weight', "little")  # what an index begins with, read as a header's length
OTHER_FORMAT = "is it cut off, or of another format?"


def elsewhere(shard: str) -> str:
    """The message for an index that names a file which is not beside it."""
    return f"{{folder}}/{INDEX} names the file {shard!r}, which is not in its folder; shards lie beside the index"


def missing(shard: str) -> str:
    """The message for an index that names a file which is not there."""
    return f"{{folder}}/{INDEX} names the shard {shard!r}, which is not there; download it again"


def too_long(length: int, limit: str = "the file") -> str:
    """The message for a header that can't be as long as the file says."""
    return f"{NO_SOUND}its header of {length} bytes is longer than {limit}; {OTHER_FORMAT}"


def of_kind(kind: str) -> str:
    """The message for a file of another format."""
    return f"{NO_SOUND}it is {kind}, which is never loaded; save the model as safetensors"


NUMBERS = {  # in place of a count: what it is -> its JSON
    "negative": "-1",
    "minus_zero": "-0",
    "fractional": "1.5",
    "a_whole_float": "2.0",
    "an_exponent": "1e3",
    "true": "true",
    "null": "null",
    "text": '"2"',
    "a_list": "[2]",
    "of_20_digits": "18446744073709551616",
    "infinite_by_its_exponent": "1e999",
}
CONSTANTS = {"nan": "NaN", "infinity": "Infinity", "minus_infinity": "-Infinity"}
FILE_ATTACKS: dict[str, Attack] = {
    "file_empty": Attack(writes({SINGLE: b""}), f"{NO_SOUND}it has 0 bytes, less than the 8 of a header's length"),
    "file_of_seven_bytes": Attack(
        writes({SINGLE: b"\x02\0\0\0\0\0\0"}), f"{NO_SOUND}it has 7 bytes, less than the 8 of a header's length"
    ),
    "header_length_alone": Attack(writes({SINGLE: struct.pack("<Q", 2)}), too_long(2)),
    "header_length_zero": Attack(single(b"", b""), f"{NO_SOUND}its header does not begin with {{"),
    "header_longer_than_the_file": Attack(single("{}", b"", length=3), too_long(3)),
    "header_length_all_ones": Attack(single("{}", b"", length=2**64 - 1), too_long(2**64 - 1)),
    "header_length_negative_if_signed": Attack(single("{}", b"", length=2**63), too_long(2**63)),
    "header_over_the_limit": Attack(
        sparse(SINGLE, content_of("{}", length=LIMIT + 1), LIMIT + 9),
        too_long(LIMIT + 1, f"the limit of {LIMIT} bytes"),
    ),
    "header_over_the_limit_yet_json": Attack(
        writes({SINGLE: content_of(b"{}".ljust(LIMIT + 1))}),
        too_long(LIMIT + 1, f"the limit of {LIMIT} bytes"),
        stricter="its limit is 100,000,000 bytes; the largest models have headers of less than one million",
    ),
    "header_not_utf8": Attack(
        single(b'{"\xff": 1}'), f"{NO_JSON}'utf-8' codec can't decode byte 0xff in position 2: invalid start byte"
    ),
    "header_with_half_a_surrogate_pair": Attack(
        single(f'{{"\\ud800": {entry()}}}'),
        f"{NO_JSON}'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed",
    ),
    "header_not_json": Attack(
        single("{a}"), f"{NO_JSON}Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    ),
    "header_of_spaces_and_nothing": Attack(single("   "), f"{NO_SOUND}its header does not begin with {{"),
    "header_of_two_objects": Attack(single("{}{}", b""), f"{NO_JSON}Extra data: line 1 column 3 (char 2)"),
    "header_padded_with_nul": Attack(single("{}\0\0", b""), f"{NO_JSON}Extra data: line 1 column 3 (char 2)"),
    "header_unclosed": Attack(
        single("{", b""), f"{NO_JSON}Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    ),
    "header_a_list": Attack(single("[1, 2]"), f"{NO_SOUND}its header does not begin with {{"),
    "header_null": Attack(single("null"), f"{NO_SOUND}its header does not begin with {{"),
    "header_with_a_byte_order_mark": Attack(single("\ufeff{}", b""), f"{NO_SOUND}its header does not begin with {{"),
    "header_after_a_space": Attack(
        single(" {}", b""),
        f"{NO_SOUND}its header does not begin with {{",
        stricter="the format says that the header begins with {; the library does not look",
    ),
    "header_of_100_000_brackets": Attack(
        single(f'{{"a": {"[" * 100_000}'),
        f"{NO_JSON}maximum recursion depth exceeded while decoding a JSON array from a unicode string",
    ),
    "header_of_100_000_braces": Attack(
        single('{"a":' * 100_000),
        f"{NO_JSON}maximum recursion depth exceeded while decoding a JSON object from a unicode string",
    ),
    "name_twice": Attack(
        two("a", entry()),
        f"{NO_JSON}'a' is there twice",
        stricter="it takes the last and forgets the first; which one is meant nobody knows",
    ),
    "name_twice_by_an_escape": Attack(
        two("\\u0061", entry()),
        f"{NO_JSON}'a' is there twice",
        stricter="as name_twice: the same name, spelled otherwise",
    ),
    "key_twice": Attack(
        single('{"a": {"dtype": "U8", "dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}'),
        f"{NO_JSON}'dtype' is there twice",
    ),
    "metadata_twice": Attack(
        single('{"__metadata__": {}, "__metadata__": {}}', b""), f"{NO_JSON}'__metadata__' is there twice"
    ),
    "metadata_key_twice": Attack(
        single('{"__metadata__": {"format": "pt", "format": "tf"}}', b""),
        f"{NO_JSON}'format' is there twice",
        stricter="it takes the last and forgets the first",
    ),
    "metadata_a_list": Attack(single('{"__metadata__": []}', b""), NO_METADATA),
    "metadata_a_tensor": Attack(single(f'{{"__metadata__": {entry()}}}'), NO_METADATA),
    "metadata_a_number": Attack(single('{"__metadata__": {"steps": 3}}', b""), NO_METADATA),
    "metadata_nested": Attack(single('{"__metadata__": {"a": {"b": "c"}}}', b""), NO_METADATA),
    "metadata_null": Attack(
        single('{"__metadata__": null}', b""), NO_METADATA, stricter="the format has a map there, or nothing"
    ),
    **{f"shape_{kind}": Attack(one(shape=f"[{number}]"), NO_SHAPE) for kind, number in NUMBERS.items()},
    **{f"offset_{kind}": Attack(one(offsets=f"[0, {number}]"), NO_OFFSETS) for kind, number in NUMBERS.items()},
    **{
        f"shape_{kind}": Attack(one(shape=f"[{word}]"), f"{NO_JSON}{word} is no JSON number")
        for kind, word in CONSTANTS.items()
    },
    **{
        f"offset_{kind}": Attack(one(offsets=f"[{word}, 2]"), f"{NO_JSON}{word} is no JSON number")
        for kind, word in CONSTANTS.items()
    },
    "shape_no_list": Attack(one(shape="2"), NO_SHAPE),
    "shape_a_map": Attack(one(shape='{"0": 2}'), NO_SHAPE),
    "shape_text": Attack(one(shape='"2"'), NO_SHAPE),
    "shape_of_2_to_the_63_and_no_values": Attack(
        one(shape="[9223372036854775808, 0]", offsets="[0, 0]", data=b""),
        NO_SHAPE,
        stricter="no tensor of torch can have this shape: its sizes are signed",
    ),
    "shape_not_of_the_size": Attack(
        one('"F32"', "[2, 3]", "[0, 20]", data=b"." * 20),
        f"{NO_SOUND}'a' has 20 bytes, but F32 of shape 2x3 takes 24",
    ),
    "shape_of_a_scalar_not_of_the_size": Attack(
        one(shape="[]"), f"{NO_SOUND}'a' has 2 bytes, but U8 of shape () takes 1"
    ),
    "shape_of_nothing_with_bytes": Attack(
        one(shape="[2, 0]"), f"{NO_SOUND}'a' has 2 bytes, but U8 of shape 2x0 takes 0"
    ),
    "shape_of_half_a_byte": Attack(one('"F4"', "[3]"), f"{NO_SOUND}'a' has 2 bytes, but F4 of shape 3 takes 12 bits"),
    "shape_overflows": Attack(
        one(shape="[4294967296, 4294967296, 2]"),
        f"{NO_SOUND}'a' has a shape of more values than can be counted",
    ),
    "shape_overflows_to_the_right_size": Attack(
        one(shape="[9223372036854775807, 2, 1]", offsets="[0, 2]"),
        f"{NO_SOUND}'a' has a shape of more values than can be counted",
    ),
    "shape_overflows_in_bits": Attack(
        one('"F64"', "[4611686018427387904]", "[0, 0]", data=b""),
        f"{NO_SOUND}'a' has 0 bytes, but F64 of shape 4611686018427387904 takes 36893488147419103232",
    ),
    "shape_overflows_before_a_zero": Attack(
        one(shape="[9223372036854775807, 9223372036854775807, 0]", offsets="[0, 0]", data=b""),
        f"{NO_SOUND}'a' has a shape of more values than can be counted",
    ),
    "shape_overflows_of_an_unknown_dtype": Attack(
        one('"F8_E9M9"', "[" + "9223372036854775807, " * 10_000 + "1]"),
        f"{NO_SOUND}'a' has a shape of more values than can be counted",
    ),
    "offsets_of_three": Attack(one(offsets="[0, 1, 2]"), NO_OFFSETS),
    "offsets_of_one": Attack(one(offsets="[2]"), NO_OFFSETS),
    "offsets_a_map": Attack(one(offsets='{"0": 0, "1": 2}'), NO_OFFSETS),
    "offsets_text": Attack(one(offsets='"02"'), NO_OFFSETS),
    "shape_of_5000_digits": Attack(one(shape=f"[{'9' * 5000}]"), f"{NO_JSON}a number of 5000 digits is no count"),
    "offset_of_5000_digits": Attack(one(offsets=f"[0, {'9' * 5000}]"), f"{NO_JSON}a number of 5000 digits is no count"),
    "offsets_from_minus_zero": Attack(one(offsets="[-0, 2]"), NO_OFFSETS),
    "offsets_backwards": Attack(one(offsets="[2, 0]"), f"{NO_SOUND}'a' ends at 0, before it begins at 2"),
    "offsets_out_of_range": Attack(
        one(shape="[3]", offsets="[0, 3]"),
        f"{NO_SOUND}'a' ends at byte 71 of 70; is the file cut off?",
    ),
    "offsets_far_out_of_range": Attack(
        one('"F4"', "[0]", "[9223372036854775807, 9223372036854775807]", data=b""),
        f"{NO_SOUND}'a' ends at byte 9223372036854775911 of 104; is the file cut off?",
    ),
    "offsets_overlap": Attack(
        two("b", entry(offsets="[1, 3]"), data=b"abc"),
        f"{NO_SOUND}'b' overlaps with the tensor before it",
    ),
    "offsets_the_same": Attack(two("b", entry()), f"{NO_SOUND}'b' overlaps with the tensor before it"),
    "offsets_of_nothing_within_a_tensor": Attack(
        two("b", entry(shape="[0]", offsets="[1, 1]")),
        f"{NO_SOUND}'b' overlaps with the tensor before it",
    ),
    "gap_at_the_front": Attack(one(offsets="[1, 3]", data=b".ab"), f"{NO_SOUND}1 bytes before 'a' belong to no tensor"),
    "gap_between": Attack(
        two("b", entry(offsets="[5, 7]"), data=b"ab...cd"),
        f"{NO_SOUND}3 bytes before 'b' belong to no tensor",
    ),
    "gap_at_the_end": Attack(one(data=b"ab...."), f"{NO_SOUND}4 bytes at its end belong to no tensor"),
    "gap_without_tensors": Attack(single("{}", b"a"), f"{NO_SOUND}1 bytes at its end belong to no tensor"),
    "file_cut_off_in_its_data": Attack(
        writes({SINGLE: sound(A | B)[:-1]}), f"{NO_SOUND}'b' ends at byte 138 of 137; is the file cut off?"
    ),
    "file_cut_off_in_its_header": Attack(writes({SINGLE: sound(A)[:-10]}), too_long(60)),
    "entry_null": Attack(single('{"a": null}'), NO_ENTRY),
    "entry_text": Attack(single('{"a": "U8"}'), NO_ENTRY),
    "entry_empty": Attack(single('{"a": {}}'), NO_ENTRY),
    "entry_nested": Attack(single(f'{{"a": {{"b": {entry()}}}}}'), NO_ENTRY),
    "entry_a_list": Attack(
        single('{"a": ["U8", [2], [0, 2]]}'),
        NO_ENTRY,
        stricter="the format has a map there; that a list is read is an accident of its JSON library",
    ),
    **{
        f"entry_without_{key}": Attack(
            single(json.dumps({"a": {name: value for name, value in json.loads(entry()).items() if name != key}})),
            NO_ENTRY,
        )
        for key in ("dtype", "shape", "data_offsets")
    },
    "entry_with_a_further_key": Attack(
        single(json.dumps({"a": {**json.loads(entry()), "stride": [1]}})),
        NO_ENTRY,
        stricter="it ignores the key; a tensor that has one, a stride say, would be read wrong",
    ),
    "entry_with_a_misspelt_key": Attack(
        single('{"a": {"dType": "U8", "shape": [2], "data_offsets": [0, 2]}}'), NO_ENTRY
    ),
    "dtype_a_number": Attack(one(dtype="8"), f"{NO_SOUND}'a' has a dtype that is no text"),
    "dtype_null": Attack(one(dtype="null"), f"{NO_SOUND}'a' has a dtype that is no text"),
    "dtype_a_list": Attack(one(dtype='["U8"]'), f"{NO_SOUND}'a' has a dtype that is no text"),
    "dtype_a_map": Attack(
        one(dtype='{"U8": null}'),
        f"{NO_SOUND}'a' has a dtype that is no text",
        stricter="the format has a text there; that a map is read is an accident of its JSON library",
    ),
    "name_with_control_characters": Attack(
        single(f'{{"\\u001b[2Ja\\n": {entry(shape="[3]")}}}'),
        f"{NO_SOUND}'\\x1b[2Ja\\n' has 2 bytes, but U8 of shape 3 takes 3",
    ),
    "pickle": Attack(write_pickle, of_kind("a pickle")),
    "pickle_of_protocol_0": Attack(write_oldest_pickle, too_long(struct.unpack("<Q", b"(dp0\nVa\n")[0])),
    "pickle_of_torch": Attack(write_torch_zip, of_kind("a PyTorch pickle (zip)")),
    "pickle_of_old_torch": Attack(write_torch_legacy, of_kind("a pickle")),
    "gguf": Attack(writes({SINGLE: b"GGUF" + struct.pack("<IQQ", 3, 0, 0)}), of_kind("a GGUF file")),
    "gguf_of_16_gigabytes": Attack(
        sparse(SINGLE, b"GGUF" + struct.pack("<IQQ", 3, 0, 0), 2**34), of_kind("a GGUF file")
    ),
    "gzip": Attack(writes({SINGLE: b"\x1f\x8b\x08\0\0\0\0\0\0\x03"}), of_kind("a gzip file")),
    "page_of_a_website": Attack(writes({SINGLE: b"<!DOCTYPE html>\n"}), too_long(struct.unpack("<Q", b"<!DOCTYP")[0])),
    "pointer_of_git_lfs": Attack(
        writes({SINGLE: b"version https://git-lfs.github.com/spec/v1\n"}), too_long(struct.unpack("<Q", b"version ")[0])
    ),
}
FOLDER_ATTACKS: dict[str, Attack] = {
    "folder_empty": Attack(writes({}), f"{NO_WEIGHTS}; download the weights, or give the folder that has them"),
    "folder_with_a_variant": Attack(
        writes({"diffusion_pytorch_model.fp16.safetensors": sound(A)}),
        f"{NO_WEIGHTS}; there is diffusion_pytorch_model.fp16.safetensors; "
        "a variant is asked for by name, as --variant fp16",
    ),
    "folder_with_one_shard": Attack(
        writes({ONE: SHARDS[ONE]}),
        f"{NO_WEIGHTS}; there is {ONE}; download the weights, or give the folder that has them",
    ),
    "folder_with_a_bin": Attack(
        lambda folder: write_torch_zip(folder, "diffusion_pytorch_model.bin"),
        f"{NO_WEIGHTS}; there is diffusion_pytorch_model.bin; {NO_PICKLES}",
    ),
    "folder_with_pickles": Attack(
        together(*((lambda folder, end=end: write_torch_zip(folder, f"m{end}")) for end in (".bin", ".pt", ".pth"))),
        f"{NO_WEIGHTS}; there is m.bin, m.pt, m.pth; {NO_PICKLES}",
    ),
    "file_a_folder": Attack(
        lambda folder: (folder / SINGLE).mkdir(), f"{{folder}}/{SINGLE} can't be read: it is no regular file"
    ),
    "file_a_pipe": Attack(
        lambda folder: os.mkfifo(folder / SINGLE), f"{{folder}}/{SINGLE} can't be read: it is no regular file"
    ),
    "file_a_device": Attack(links(SINGLE, "/dev/zero"), f"{{folder}}/{SINGLE} can't be read: it is no regular file"),
    "file_a_link_to_itself": Attack(
        links(SINGLE, SINGLE),
        f"{NO_WEIGHTS}; there is {SINGLE}; download the weights, or give the folder that has them",
    ),
    "file_a_link_to_nothing": Attack(
        links(SINGLE, "../blobs/gone"),
        f"{NO_WEIGHTS}; there is {SINGLE}; download the weights, or give the folder that has them",
    ),
    "file_unreadable": Attack(
        write_unreadable, f"{{folder}}/{SINGLE} can't be read: Permission denied", needs_user=True
    ),
    "index_empty": Attack(
        indexed(b"", SHARDS), f"{{folder}}/{INDEX} is no JSON: Expecting value: line 1 column 1 (char 0)"
    ),
    "index_not_json": Attack(
        indexed(b"{'weight_map': {}}", SHARDS),
        f"{{folder}}/{INDEX} is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "index_not_utf8": Attack(
        indexed(b'{"\xff": 1}', SHARDS),
        f"{{folder}}/{INDEX} is no JSON: 'utf-8' codec can't decode byte 0xff in position 2: invalid start byte",
    ),
    "index_of_100_000_brackets": Attack(
        indexed(b"[" * 100_000, SHARDS),
        f"{{folder}}/{INDEX} is no JSON: maximum recursion depth exceeded while decoding a JSON array "
        "from a unicode string",
    ),
    "index_with_nan": Attack(
        indexed(b'{"metadata": {"total_size": NaN}, "weight_map": {}}', SHARDS),
        f"{{folder}}/{INDEX} is no JSON: NaN is no JSON number",
    ),
    "index_with_a_number_of_5000_digits": Attack(
        indexed(f'{{"metadata": {{"total_size": {"9" * 5000}}}, "weight_map": {{}}}}'.encode(), SHARDS),
        f"{{folder}}/{INDEX} is no JSON: a number of 5000 digits is no count",
    ),
    "index_with_a_name_twice": Attack(
        indexed(f'{{"weight_map": {{"a": "{ONE}", "a": "{TWO}"}}}}'.encode(), SHARDS),
        f"{{folder}}/{INDEX} is no JSON: 'a' is there twice",
    ),
    "index_with_half_a_surrogate_pair": Attack(
        names("\ud800"),
        f"{{folder}}/{INDEX} is no JSON: 'utf-8' codec can't encode character '\\ud800' in position 0: "
        "surrogates not allowed",
    ),
    "index_a_list": Attack(indexed([WHOLE], SHARDS), f"{{folder}}/{INDEX} holds no JSON object"),
    "index_without_weight_map": Attack(indexed({"metadata": {}}, SHARDS), NO_MAP),
    "index_with_a_list_as_weight_map": Attack(indexed({"weight_map": [ONE, TWO]}, SHARDS), NO_MAP),
    "index_with_null_as_weight_map": Attack(indexed({"weight_map": None}, SHARDS), NO_MAP),
    "index_with_nothing_in_weight_map": Attack(indexed({"weight_map": {}}, SHARDS), NO_MAP),
    "index_with_a_number_as_shard": Attack(names(2), NO_MAP),
    "index_with_null_as_shard": Attack(names(None), NO_MAP),
    "index_with_a_list_as_shard": Attack(names([TWO]), NO_MAP),
    **{
        f"index_with_{kind}_as_shard": Attack(names(shard), elsewhere(shard))
        for kind, shard in {
            "the_folder_above": f"../{TWO}",
            "two_dots": "..",
            "one_dot": ".",
            "an_absolute_path": f"/tmp/{TWO}",
            "a_backslash": f"..\\{TWO}",
            "a_drive": f"C:\\{TWO}",
            "a_subfolder": f"shards/{TWO}",
            "a_dot_and_a_slash": f"./{TWO}",
            "a_slash_at_the_end": f"{TWO}/",
            "a_nul": f"{TWO}\0.txt",
            "nothing": "",
        }.items()
    },
    "index_with_a_name_of_5000_letters_as_shard": Attack(
        names("x" * 5000), f"{{folder}}/{'x' * 5000} can't be read: File name too long"
    ),
    "index_over_the_limit": Attack(
        together(writes(SHARDS), sparse(INDEX, json.dumps(WHOLE).encode(), LIMIT + 1)),
        f"{{folder}}/{INDEX} is longer than the limit of {LIMIT} bytes",
    ),
    "index_a_folder": Attack(
        together(writes({SINGLE: sound(A)}), lambda folder: (folder / INDEX).mkdir()),
        f"{{folder}}/{INDEX} can't be read: it is no regular file",
    ),
    "index_a_pipe": Attack(
        together(writes(SHARDS), lambda folder: os.mkfifo(folder / INDEX)),
        f"{{folder}}/{INDEX} can't be read: it is no regular file",
    ),
    "index_a_device": Attack(
        together(writes(SHARDS), links(INDEX, "/dev/zero")), f"{{folder}}/{INDEX} can't be read: it is no regular file"
    ),
    "index_a_link_to_itself": Attack(
        together(writes({ONE: SHARDS[ONE]}), links(INDEX, INDEX)),
        f"{NO_WEIGHTS}; there is {ONE}; download the weights, or give the folder that has them",
    ),
    "index_unreadable": Attack(
        together(indexed(WHOLE, SHARDS), lambda folder: (folder / INDEX).chmod(0)),
        f"{{folder}}/{INDEX} can't be read: Permission denied",
        needs_user=True,
    ),
    "index_as_its_own_shard": Attack(
        names(INDEX),
        f"{{folder}}/{INDEX} is no sound safetensors file: "
        f"its header of {AS_LENGTH} bytes is longer than the file; {OTHER_FORMAT}",
    ),
    "shard_missing": Attack(indexed(WHOLE, {ONE: SHARDS[ONE]}), missing(TWO)),
    "shard_with_control_characters": Attack(names("\x1b[2J"), missing("\x1b[2J")),
    "shard_a_link_to_itself": Attack(together(indexed(WHOLE, {ONE: SHARDS[ONE]}), links(TWO, TWO)), missing(TWO)),
    "shard_a_ring_of_links": Attack(
        together(indexed(WHOLE, {ONE: SHARDS[ONE]}), links(TWO, THREE), links(THREE, TWO)), missing(TWO)
    ),
    "shard_a_folder": Attack(
        together(indexed(WHOLE, {ONE: SHARDS[ONE]}), lambda folder: (folder / TWO).mkdir()),
        f"{{folder}}/{TWO} can't be read: it is no regular file",
    ),
    "shard_a_pipe": Attack(
        together(indexed(WHOLE, {ONE: SHARDS[ONE]}), lambda folder: os.mkfifo(folder / TWO)),
        f"{{folder}}/{TWO} can't be read: it is no regular file",
    ),
    "shard_a_pickle": Attack(
        together(indexed(WHOLE, {ONE: SHARDS[ONE]}), lambda folder: write_torch_zip(folder, TWO)),
        f"{{folder}}/{TWO} is no sound safetensors file: it is a PyTorch pickle (zip), which is never loaded; "
        "save the model as safetensors",
    ),
    "shard_cut_off": Attack(
        indexed(WHOLE, {ONE: SHARDS[ONE], TWO: SHARDS[TWO][:-1]}),
        f"{{folder}}/{TWO} is no sound safetensors file: 'b' ends at byte 76 of 75; is the file cut off?",
    ),
    "shard_unreadable": Attack(
        together(indexed(WHOLE, SHARDS), lambda folder: (folder / TWO).chmod(0)),
        f"{{folder}}/{TWO} can't be read: Permission denied",
        needs_user=True,
    ),
    "shards_with_one_name_twice": Attack(
        indexed(WHOLE, {ONE: SHARDS[ONE], TWO: sound(B | A)}),
        f"{{folder}}/{INDEX}: {ONE} and {TWO} both hold 'a'",
    ),
    "shards_of_one_file": Attack(
        together(indexed(WHOLE, {ONE: sound(A | B)}), links(TWO, ONE)),
        f"{{folder}}/{INDEX}: {ONE} and {TWO} both hold 'a'",
    ),
    "shards_without_a_listed_tensor": Attack(
        indexed({"weight_map": {"a": ONE, "b": TWO, "c\x1b": TWO}}, SHARDS),
        f"{{folder}}/{INDEX} says that 'c\\x1b' is in '{TWO}', but no shard has it; download the model again",
    ),
    "shards_swapped": Attack(
        indexed({"weight_map": {"a": TWO, "b": ONE}}, SHARDS),
        f"{{folder}}/{INDEX} says that 'a' is in '{TWO}', but it is in {ONE}; download the model again",
    ),
    "shards_with_a_tensor_not_listed": Attack(
        indexed(WHOLE, {ONE: SHARDS[ONE], TWO: sound(B | {"c\n": ("U8", (), b"c")})}),
        f"{{folder}}/{INDEX} does not list 'c\\n', which {TWO} holds; download the model again",
    ),
    "shards_metadata_listed_as_a_tensor": Attack(
        indexed({"weight_map": {"a": ONE, "__metadata__": ONE}}, {ONE: content_of(header_of(A, {}), b"ab")}),
        f"{{folder}}/{INDEX} says that '__metadata__' is in '{ONE}', but no shard has it; download the model again",
    ),
}
ATTACKS = FILE_ATTACKS | FOLDER_ATTACKS

MANY: Read = {
    "blocks.0.weight": ("F32", (2, 3), bytes(range(24))),
    "blocks.0.bias": ("BF16", (3,), bytes(range(6))),
    "blocks.1.weight": ("F32", (3, 2), bytes(range(100, 124))),
    "blocks.1.bias": ("F16", (3,), bytes(range(50, 56))),
    "scale": ("F64", (), bytes(8)),
    "none": ("I64", (0, 4), b""),
}
UNKNOWN = "it knows no such dtype; we copy tensors of dtypes that are newer than this version, and do no more with them"
NEIGHBOURS: dict[str, Neighbour] = {
    "one_tensor": Neighbour(one(), A),
    "many_tensors": Neighbour(writes({SINGLE: sound(MANY)}), MANY),
    "no_tensors": Neighbour(single("{}", b""), {}),
    "metadata_only": Neighbour(single('{"__metadata__": {"format": "pt"}}', b""), {}),
    "metadata_and_tensors": Neighbour(single(header_of(A, {"format": "pt", "": "\x07"})), A),
    "nothing_at_either_end": Neighbour(
        writes({SINGLE: sound({"x": ("U8", (0,), b""), **A, "y": ("F32", (2, 0, 3), b""), "z": ("U8", (0,), b"")})}),
        {"x": ("U8", (0,), b""), **A, "y": ("F32", (2, 0, 3), b""), "z": ("U8", (0,), b"")},
    ),
    "nothing_listed_after_what_begins_at_its_place": Neighbour(
        two("x", entry(shape="[0]", offsets="[0, 0]")), {**A, "x": ("U8", (0,), b"")}
    ),
    "nothing_of_a_large_shape": Neighbour(
        one(shape="[0, 9223372036854775807, 9223372036854775807]", offsets="[0, 0]", data=b""),
        {"a": ("U8", (0, 2**63 - 1, 2**63 - 1), b"")},
    ),
    "scalar": Neighbour(one(shape="[]", offsets="[0, 1]", data=b"a"), {"a": ("U8", (), b"a")}),
    "of_many_dimensions": Neighbour(one(shape="[" + "1, " * 999 + "2]"), {"a": ("U8", (*[1] * 999, 2), b"ab")}),
    "dtype_unknown": Neighbour(one('"F8_E9M9"', "[7]", "[0, 2]"), {"a": ("F8_E9M9", (7,), b"ab")}, looser=UNKNOWN),
    "dtype_unknown_of_no_bytes": Neighbour(
        one('""', "[3]", "[0, 0]", data=b""), {"a": ("", (3,), b"")}, looser=UNKNOWN
    ),
    "dtype_f4": Neighbour(one('"F4"', "[2, 2]"), {"a": ("F4", (2, 2), b"ab")}),
    "dtype_f6": Neighbour(one('"F6_E2M3"', "[4]", "[0, 3]", data=b"abc"), {"a": ("F6_E2M3", (4,), b"abc")}),
    **{
        f"dtype_{dtype.lower()}": Neighbour(
            writes({SINGLE: sound({"a": (dtype, (3,), bytes(3 * size))})}), {"a": (dtype, (3,), bytes(3 * size))}
        )
        for size, dtypes in {
            1: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
            2: "I16 U16 F16 BF16",
            4: "I32 U32 F32",
            8: "I64 U64 F64 C64",
        }.items()
        for dtype in dtypes.split()
    },
    "header_padded_with_spaces": Neighbour(single(f'{{"a": {entry()}}}      '), A),
    "header_with_line_ends_inside": Neighbour(single(f'{{\n\t"a":\r\n{entry()}}}\n'), A),
    "header_in_another_order": Neighbour(
        single(f'{{"c": {entry(offsets="[4, 6]")}, "a": {entry()}, "b": {entry(offsets="[2, 4]")}}}', b"abcdef"),
        {"c": ("U8", (2,), b"ef"), "a": ("U8", (2,), b"ab"), "b": ("U8", (2,), b"cd")},
    ),
    "header_with_keys_in_another_order": Neighbour(
        single('{"a": {"data_offsets": [0, 2], "shape": [2], "dtype": "U8"}}'), A
    ),
    "header_as_long_as_a_zip_begins": Neighbour(
        single(f'{{"a": {entry()}}}'.ljust(int.from_bytes(b"PK", "little"))), A
    ),
    "name_of_any_text": Neighbour(
        single(f'{{"": {entry()}, "\\ud83d\\ude00\\u0000/..": {entry(offsets="[2, 4]")}}}', b"abcd"),
        {"": ("U8", (2,), b"ab"), "\U0001f600\0/..": ("U8", (2,), b"cd")},
    ),
    "file_a_link": Neighbour(together(writes({"blob": sound(A)}), links(SINGLE, "blob")), A),
    "file_beside_a_pickle": Neighbour(
        together(writes({SINGLE: sound(A)}), lambda folder: write_torch_zip(folder, "diffusion_pytorch_model.bin")),
        A,
    ),
    "shards": Neighbour(indexed(WHOLE, SHARDS), A | B),
    "shards_of_the_cache": Neighbour(write_cache, A | B),
    "shards_of_any_name": Neighbour(
        indexed({"weight_map": {"a": "..a", "b": "b é.x"}}, {"..a": SHARDS[ONE], "b é.x": SHARDS[TWO]}), A | B
    ),
    "shards_of_many_tensors": Neighbour(
        indexed(
            {"weight_map": {**dict.fromkeys(MANY, TWO), "a": ONE, "b": THREE}},
            {ONE: sound(A), TWO: sound(MANY), THREE: sound(B)},
        ),
        MANY | A | B,
    ),
    "shards_before_a_single_file": Neighbour(indexed(WHOLE, {**SHARDS, SINGLE: sound({"x": A["a"]})}), A | B),
    "shard_that_no_index_lists": Neighbour(indexed(WHOLE, {**SHARDS, THREE: sound({"x": A["a"]})}), A | B),
    "index_after_a_space": Neighbour(indexed(b" \n" + json.dumps(WHOLE).encode() + b"\n", SHARDS), A | B),
    "index_broken_before_a_single_file": Neighbour(together(writes({SINGLE: sound(A)}), links(INDEX, "gone")), A),
}
