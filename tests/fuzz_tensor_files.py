"""Mutated safetensors folders against their reader: each is refused, or read as the official library reads it.

`python tests/fuzz_tensor_files.py --count 100000 --seed 0` prints how many were tried, the slowest, and why folders
were refused that the official library reads. It stops at the first that breaks the rule, writing it down. The tests
run a bounded number through the same code.
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks import NEIGHBOURS
from safetensors import SafetensorError, deserialize, safe_open

from surgery.anatomy.tensor_files import BITS, Weights, find_weights
from surgery.errors import InputError

MAX_SECONDS = 2.0
PREFIX_BYTES = 8
SINGLE = "diffusion_pytorch_model.safetensors"
INDEX = f"{SINGLE}.index.json"

Folder = dict[str, bytes]  # name of the file -> its content
Read = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes
Edit = Callable[[Folder, random.Random], None]

LITERALS = (
    *("0", "1", "2", "3", "-1", "-0", "0.0", "1.5", "2.0", "1e0", "1E999", "true", "null", "NaN", "-Infinity", '"2"'),
    *("[]", "[2]", "{}", "9" * 19, "9" * 20, "9" * 5000, str(2**31), str(2**63 - 1), str(2**63), str(2**64)),
    *('"U8"', '"F4"', '"F8_E9M9"', '"\\ud800"', '"\\u0000"', '""', "02", "[" * 300 + "]" * 300),
)
NAMES = ("a", "b", "", "__metadata__", "blocks.0.weight", "\0", "\u00e9", "dtype")
KEYS = ("dtype", "shape", "data_offsets", "stride", "Dtype", "")


class Pairs(list[tuple[str, Any]]):
    """A JSON object, in which a name can be there twice."""


class Raw(str):
    """JSON as it stands."""

    __slots__ = ()


@dataclass(frozen=True)
class Outcome:
    """`kind`: read, refused (by the official library, too) or stricter (it reads the folder); and our message."""

    kind: str
    message: str = ""


def read_sources() -> list[Folder]:
    """The valid neighbours of tests/attacks.py as files by name, links followed; those with an index twice."""
    sources = []
    for neighbour in NEIGHBOURS.values():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "transformer"
            folder.mkdir()
            neighbour.write(folder)
            files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.exists()}
        if len(neighbour.tensors) > 1 or INDEX in files:
            sources += [files] * (8 if INDEX in files else 4)
        sources.append(files)
    return sources


def mutate(sources: Sequence[Folder], rng: random.Random) -> Folder:
    """One valid folder with up to three edits, of bytes, of headers, of the index or of the files' names."""
    folder = dict(rng.choice(sources))
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        edits = (flip_bit, splice_bytes, cut_off, edit_header, edit_header, edit_header, edit_header)
        edit: Edit = rng.choice((*edits, edit_index, edit_index, edit_index, edit_files) if INDEX in folder else edits)
        edit(folder, rng)
    return folder


def flip_bit(folder: Folder, rng: random.Random) -> None:
    """Change one bit of the length, of the header, or anywhere."""
    name = choose_file(folder, rng)
    content = bytearray(folder[name])
    end = rng.choice((PREFIX_BYTES, PREFIX_BYTES + header_length(folder[name]), len(content)))
    if content:
        content[rng.randrange(min(end, len(content)) or 1)] ^= 1 << rng.randrange(8)
    folder[name] = bytes(content)


def splice_bytes(folder: Folder, rng: random.Random) -> None:
    """Delete, double or insert a few bytes, half of the time with the length made right again."""
    name = choose_file(folder, rng)
    content = folder[name]
    start = rng.randint(0, rng.choice((len(content), min(len(content), PREFIX_BYTES + header_length(content)))))
    stop = min(len(content), start + rng.randint(0, 9))
    middle = rng.choice(
        (b"", content[start:stop] * 2, rng.randbytes(rng.randint(1, 4)), rng.choice((b" ", b"\0", b",")))
    )
    changed = content[:start] + middle + content[stop:]
    end = PREFIX_BYTES + header_length(content) + len(changed) - len(content)
    if name != INDEX and start >= PREFIX_BYTES and stop <= PREFIX_BYTES + header_length(content) and rng.random() < 0.7:
        changed = with_header(changed[PREFIX_BYTES:end], changed[end:])
    folder[name] = changed


def cut_off(folder: Folder, rng: random.Random) -> None:
    """Cut a file off, or write something behind it."""
    name = choose_file(folder, rng)
    content = folder[name]
    cut = content[: rng.choice((rng.randint(0, len(content)), max(0, len(content) - rng.randint(1, 3))))]
    folder[name] = rng.choice((cut, content + rng.randbytes(rng.randint(1, 9)), content + b"\0" * 8))


def edit_header(folder: Folder, rng: random.Random) -> None:
    """Change what a header says of one or two tensors; its length and the bytes behind stay right."""
    name = rng.choice([name for name in folder if name != INDEX] or [INDEX])
    content = folder[name]
    end = PREFIX_BYTES + header_length(content)
    header = parse(content[PREFIX_BYTES:end])
    if name == INDEX or header is None:
        return
    edit_entries(header, rng)
    raw = dump(header).encode("utf-8", "surrogatepass")
    folder[name] = with_header(raw + b" " * rng.choice((0, 0, 0, 1, 8)), content[end:])


def edit_entries(header: Pairs, rng: random.Random) -> None:
    """Change the entries of a header: their order, names, keys or values."""
    numbers = [number for number, (_, entry) in enumerate(header) if isinstance(entry, Pairs)]
    if not numbers:
        header.append((rng.choice(NAMES), Raw(rng.choice(LITERALS))))
        return
    one, other = rng.choice(numbers), rng.choice(numbers)
    (name, entry), (other_name, other_entry) = header[one], header[other]
    key = rng.choice(KEYS[:3])
    match rng.randrange(14):
        case 0:
            rng.shuffle(header)
        case 1:  # two tensors take each other's place in the file, or shape, or dtype
            mine, theirs = value_of(entry, key), value_of(other_entry, key)
            header[one] = (name, replaced(entry, key, theirs))
            header[other] = (other_name, replaced(other_entry, key, mine))
        case 2:
            header[one], header[other] = (other_name, entry), (name, other_entry)
        case 3:
            header[one] = (rng.choice((other_name, *NAMES)), entry)
        case 4:
            header.insert(rng.randint(0, len(header)), rng.choice((header[one], (rng.choice(NAMES), entry))))
        case 5:
            del header[one]
        case 6:
            header[one] = (name, Pairs(rng.choice(([pair for pair in entry if pair[0] != key], entry + entry[:1]))))
        case 7:
            header[one] = (name, Pairs([*entry, (rng.choice(KEYS), Raw(rng.choice(LITERALS)))]))
        case 8:
            header[one] = (name, replaced(entry, key, Raw(rng.choice(LITERALS))))
        case 9:
            header[one] = (name, replaced(entry, "dtype", rng.choice(list(BITS))))
        case 10:
            header[one] = (name, replaced(entry, "shape", edit_numbers(value_of(entry, "shape"), rng)))
        case 11:
            header[one] = (name, replaced(entry, "data_offsets", edit_numbers(value_of(entry, "data_offsets"), rng)))
        case 12:
            header[one] = (rng.choice((name, other_name)), Raw(rng.choice(LITERALS)))
        case 13:
            text = rng.choice(("{}", '{"format": "pt"}', '{"a": 1}', '{"a": "b", "a": "c"}', *LITERALS))
            header.insert(rng.randint(0, len(header)), ("__metadata__", Raw(text)))


def edit_numbers(numbers: Any, rng: random.Random) -> Any:
    """A shape or offsets with one change."""
    if not isinstance(numbers, list) or isinstance(numbers, Pairs) or not numbers:
        return [Raw(rng.choice(LITERALS))]
    number = rng.randrange(len(numbers))
    changed = list(numbers)
    match rng.randrange(7):
        case 0:
            changed.reverse()
        case 1:
            changed.insert(number, rng.choice((0, 1)))
        case 2:
            del changed[number]
        case 3:
            changed[number] = Raw(rng.choice(LITERALS))
        case 4 if isinstance(changed[number], int):
            changed[number] += rng.choice((-1, 1))
        case 5 if all(isinstance(value, int) for value in numbers):
            distance = rng.choice((-1, 1, 8))
            changed = [value + distance for value in numbers]
        case _:
            changed[number] = rng.choice((rng.randrange(64), changed[-1]))
    return changed


def edit_index(folder: Folder, rng: random.Random) -> None:
    """Change the index: what it lists, where, and of which type."""
    index = parse(folder.get(INDEX, b""))
    listed = value_of(index or Pairs(), "weight_map")
    if index is None or not isinstance(listed, Pairs) or not listed:
        return
    number = rng.randrange(len(listed))
    name, shard = listed[number]
    other = rng.choice((*folder, "gone.safetensors", "../x", "/x", "a/b", "", "..", "x\0", "\\x"))
    match rng.randrange(9):
        case 0:
            listed[number] = (name, other)
        case 1:
            listed[number] = (rng.choice((*NAMES, listed[0][0])), shard)
        case 2:
            del listed[number]
        case 3:
            listed.append((rng.choice(NAMES), other))
        case 4:
            listed[number] = (name, Raw(rng.choice(LITERALS)))
        case 5:
            rng.shuffle(listed)
        case 6:
            listed[:] = [(name, other if value == shard else value) for name, value in listed]
        case 7:
            index.insert(
                rng.randint(0, len(index)), (rng.choice(("metadata", "weight_map")), Raw(rng.choice(LITERALS)))
            )
        case 8:
            del index[rng.randrange(len(index))]
    folder[INDEX] = dump(index).encode("utf-8", "surrogatepass")


def edit_files(folder: Folder, rng: random.Random) -> None:
    """Delete, rename, swap or copy files."""
    name, other = rng.choice(list(folder)), rng.choice(list(folder))
    match rng.randrange(5):
        case 0:
            del folder[name]
        case 1:
            folder[rng.choice(("other.safetensors", SINGLE))] = folder.pop(name)
        case 2:
            folder[name], folder[other] = folder[other], folder[name]
        case 3:
            folder[name] = folder[other]
        case 4 if name != INDEX and INDEX in folder:  # a valid change: the shard and the index agree
            if "renamed" not in folder:
                folder["renamed"] = folder.pop(name)
                folder[INDEX] = folder[INDEX].replace(json.dumps(name).encode(), b'"renamed"')


def choose_file(folder: Folder, rng: random.Random) -> str:
    """Any file, the index seldom: most of what is done to its bytes is no JSON."""
    shards = [name for name in folder if name != INDEX]
    return rng.choice(shards) if shards and rng.random() < 0.8 else rng.choice(list(folder or {SINGLE: b""}))


def header_length(content: bytes) -> int:
    """The length of the header as the file says, at most what there is."""
    return min(int.from_bytes(content[:PREFIX_BYTES], "little"), max(0, len(content) - PREFIX_BYTES))


def with_header(raw: bytes, data: bytes) -> bytes:
    """A file of this header and these bytes, with the right length."""
    return len(raw).to_bytes(PREFIX_BYTES, "little") + raw + data


def parse(raw: bytes) -> Pairs | None:
    """The pairs of a JSON object, and of the objects in it, None where it is none."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=Pairs)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Pairs) else None


def dump(value: Any) -> str:
    """JSON, with names twice and raw parts where there are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return f"{{{', '.join(f'{json.dumps(name)}: {dump(item)}' for name, item in value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(dump, value))}]"
    try:
        return json.dumps(value)
    except ValueError:  # an int of more digits than Python writes
        return "1"


def value_of(pairs: Pairs, key: str) -> Any:
    """The first value of a key."""
    return next((value for name, value in pairs if name == key), None)


def replaced(pairs: Pairs, key: str, value: Any) -> Pairs:
    """The pairs with another value for a key."""
    return Pairs((name, value if name == key else old) for name, old in pairs)


def read_official(content: bytes, path: Path) -> Read | None:
    """What the official library reads, None where it refuses."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
        read = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(content)}
    except (SafetensorError, OSError):
        return None
    assert read.keys() == names, "the two readers of the official library differ"
    return read


def read_official_folder(folder: Path) -> Read | None:
    """What diffusers would read with the official library: the shards of the index, or the single file."""
    if not (folder / INDEX).exists():
        path = folder / SINGLE
        return read_official(path.read_bytes(), path) if path.exists() else None
    try:
        listed = json.loads((folder / INDEX).read_bytes())["weight_map"]
        shards = {name: folder / name for name in sorted(set(listed.values()))}
        contents = {name: path.read_bytes() for name, path in shards.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OSError):
        return None
    read: Read = {}
    for name, path in shards.items():
        part = read_official(contents[name], path)
        if part is None or any(tensor not in part for tensor, shard in listed.items() if shard == name):
            return None
        read |= part
    return read


def with_known_dtypes(content: bytes) -> bytes:
    """A file that was read, its tensors of unknown dtype said to be bytes: the official library then reads them."""
    end = PREFIX_BYTES + header_length(content)
    header = json.loads(content[PREFIX_BYTES:end])
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] not in BITS:
            start, stop = entry["data_offsets"]
            entry |= {"dtype": "U8", "shape": [stop - start]}
    return with_header(json.dumps(header).encode(), content[end:])


def check_agreement(weights: Weights, scratch: Path) -> None:
    """Raise AssertionError unless the official library reads the same from every file of the weights."""
    for file in weights.files:
        content = file.path.read_bytes()
        assert file.size_bytes == len(content), "the size is another"
        unknown = {name for name, tensor in file.tensors.items() if tensor.dtype not in BITS}
        (scratch / "known").write_bytes(with_known_dtypes(content) if unknown else content)
        official = read_official((scratch / "known").read_bytes(), scratch / "known")
        assert official is not None, f"the official library refuses {file.path.name}"
        assert official.keys() == file.tensors.keys(), "the names differ"
        for name, (dtype, shape, data) in official.items():
            tensor = file.tensors[name]
            assert content[tensor.start : tensor.stop] == data, f"the bytes of {name!r} differ"
            assert tensor.size_bytes == len(data), f"the size of {name!r} differs"
            assert name in unknown or (tensor.dtype, tensor.shape) == (dtype, shape), f"{name!r} is described otherwise"
        with safe_open(scratch / "known", framework="numpy") as opened:
            assert (opened.metadata() or {}) == file.metadata, "the metadata differ"
    if weights.index is not None:
        listed = json.loads(weights.index.read_bytes())["weight_map"]
        assert {name: file.path.name for name, (file, _) in weights.tensors.items()} == listed, "the index differs"


def outcome_of(content: Mapping[str, bytes], place: Path) -> Outcome:
    """Write the folder, read it and compare. Raises AssertionError on disagreement, and whatever else goes wrong."""
    folder, scratch = place / "transformer", place / "scratch"
    for path in (folder, scratch):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    for name, raw in content.items():
        (folder / name).write_bytes(raw)
    started = time.process_time()
    read = read_or_message(folder)
    seconds = time.process_time() - started
    assert seconds <= MAX_SECONDS, f"it took {seconds:.1f} s"
    if isinstance(read, str):
        assert read.startswith(str(folder)), f"the message does not begin with the place: {read}"
        assert read.isprintable(), f"the message has characters that are not for a terminal: {read!r}"
        return Outcome("refused" if read_official_folder(folder) is None else "stricter", summary_of(read, folder))
    check_agreement(read, scratch)
    return Outcome("read")


def read_or_message(folder: Path) -> Weights | str:
    """What our reader gives: the weights, every count of theirs asked for, or the message that refuses them."""
    try:
        weights = find_weights(folder)
    except InputError as error:
        return str(error)
    assert weights.num_values >= 0 and weights.size_bytes >= 0, "a size is negative"
    return weights


def summary_of(message: str, folder: Path) -> str:
    """The message without what is particular to one folder."""
    for path in folder.iterdir():
        message = message.replace(f"{path}", "FILE")
    text = re.sub(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"", "NAME", message.replace(str(folder), "FOLDER"))
    return re.sub(r"\d+", "N", re.sub(r"\S+\.(json|safetensors)", "FILE", text))


def keep(content: Mapping[str, bytes], folder: Path) -> None:
    """Write down a folder that breaks the rule."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, raw in content.items():
        (folder / name).write_bytes(raw)


def main() -> None:
    """Try `--count` folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("out/fuzz_tensor_files"), help="where a folder that breaks the rule goes"
    )
    options = parser.parse_args()
    sources, slowest, seen = read_sources(), 0.0, Counter[Outcome]()
    with tempfile.TemporaryDirectory() as place:
        for number in range(options.count):
            content = mutate(sources, random.Random(f"{options.seed}/{number}"))
            started = time.process_time()
            try:
                seen[outcome_of(content, Path(place))] += 1
            except BaseException:
                keep(content, options.keep)
                print(
                    f"folder {number} of seed {options.seed} breaks the rule; it is in {options.keep}", file=sys.stderr
                )
                raise
            slowest = max(slowest, time.process_time() - started)
    kinds = Counter[str]()
    for outcome, count in seen.items():
        kinds[outcome.kind] += count
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    messages = len({outcome.message for outcome in seen if outcome.message})
    print(
        f"{options.count:,} folders: {counts}; {messages} messages; slowest {slowest:.2f} s with the official library"
    )
    for outcome, count in seen.most_common():
        if outcome.kind == "stricter":
            print(f"{count:>7,} stricter: {outcome.message}")


if __name__ == "__main__":
    main()
