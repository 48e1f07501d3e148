"""Mutated files of every kind that a command takes: each is read, or refused in words, quickly.

`python tests/fuzz_readers.py --count 100000 --seed 0` tries so many, spread over all kinds, and stops at the first that
breaks the rule, writing it down. The tests run a bounded number through the same code. Specs and weights have fuzzers
of their own (fuzz.py, fuzz_tensor_files.py, fuzz_checkpoint.py).
"""

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from anatomies import sd3
from evaluations_made import STACK, write_evaluation
from PIL import Image
from profiles_made import make_profile
from safetensors.numpy import save_file
from torch import nn

from surgery.anatomy import known
from surgery.anatomy.sources import find_source, inspect
from surgery.anatomy.tensor_files import read_header
from surgery.checkpoint.new_checkpoint import Segment
from surgery.checkpoint.remap import FittedClass, remap_adapter
from surgery.errors import SurgeryError
from surgery.experiment.captions import read_captions
from surgery.experiment.damage_map import read_damage
from surgery.experiment.picture_store import StoredPictures
from surgery.experiment.prompts import read_prompt_file
from surgery.export.check_config import judge_config, read_config
from surgery.metrics.feature_sets import Features, Origin, Statistics
from surgery.metrics.open_picture import open_picture
from surgery.metrics.pictures import read_pictures
from surgery.metrics.reference import read_reference, write_features, write_statistics
from surgery.plan.planned import plan_spec_file
from surgery.profiles.layer_profile import Moments, Profile
from surgery.profiles.means import read_means
from surgery.profiles.profile_file import read_profile, write_profile
from surgery.profiles.unfinished import Unfinished
from surgery.publish.graph_folder import read_artefact, write_artefact
from surgery.publish.model_card import read_card_head
from surgery.written import Written, read_written, write_written

MAX_SECONDS = 60.0  # of CPU, on a busy machine: a config is built, of up to 15,000 modules
FAILED = Path("out/fuzz_readers")
PREFIX_BYTES = 8
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 1.5, -0.0, 10**9, 2**31, 2**63, 2**64, float("inf"), float("nan"), 1e308),
    *("", "x", "..", "/etc/passwd", "a/b", "\0", "\ud800", "é", "9" * 5000, "[" * 50, "x" * 5000, "mean/x/y"),
    *([], {}, [[]], [None], [1, 2], ["a"], [{}], {"": 1}, {"a": {"b": []}}),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: `files` are sound ones, by their paths; `read` takes the folder that they lie in."""

    files: Mapping[str, bytes]
    read: Callable[[Path], object]
    mutated: tuple[str, ...] = field(default=())  # all, where it is empty

    def names(self) -> list[str]:
        """The files that are mutated."""
        return list(self.mutated or self.files)


def made(write: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        return {
            path.relative_to(place).as_posix(): path.read_bytes()
            for path in sorted(Path(place).rglob("*"))
            if path.is_file()
        }


def picture_of(suffix: str, mode: str = "RGB", **options: Any) -> bytes:
    """A small picture in a format."""
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(content, suffix, **options)
    return content.getvalue()


def small_profile(num_layers: int = 3) -> Profile:
    """A profile of one stack, with moments of a component."""
    profile = make_profile((("transformer_blocks", num_layers),), num_bins=2)
    moments = {("transformer_blocks.1.attn", "hidden_states", "conditional"): Moments(4.0, np.ones(3), np.ones(3))}
    return Profile(dict(profile.recipe), profile.stacks, profile.num_bins, profile.streams, moments)


class Tiny(nn.Module):
    """Something for configs of adapters to name."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)])


COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"image_id": 1, "caption": "a cat"}, {"image_id": 2, "caption": "a dog"}],
}
CONFIG = {
    "_class_name": "PixArtTransformer2DModel",
    "num_layers": 3,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 16,
    "caption_channels": 12,
    "sample_size": 8,
}
INDEX = {
    "_class_name": "PixArtAlphaPipeline",
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": [None, None],
}
LOKR = {
    "algo": "lokr",
    "linear_dim": 10000,
    "factor": 4,
    "full_matrix": True,
    "apply_preset": {
        "target_module": ["__none__"],
        "use_fnmatch": True,
        "name_algo_map": {"blocks.0.*": {"algo": "lokr", "factor": 2, "full_matrix": True}},
    },
}
SHAPES = {f"blocks.{n}.0.weight": [4, 4] for n in range(3)}
FITTED = FittedClass(
    "Tiny",
    SHAPES,
    {name: (Segment(name, 0, 4),) for name in SHAPES},
    {"blocks": [0, 1, 2]},
    {"blocks": 3},
)


def write_reference(folder: Path) -> None:
    """Features with digests."""
    origin = Origin("inception", "ab" * 32, "bilinear")
    write_features(Features(np.eye(4, 3, dtype=np.float32), origin, ("ab" * 32,) * 4), folder / "r.safetensors")


def write_sums(path: Path) -> None:
    """Statistics, in the format that the name says."""
    write_statistics(Statistics(np.zeros(3), np.eye(3), 9, Origin()), path)


def write_adapter(folder: Path) -> None:
    """A LoRA with the metadata of PEFT."""
    shapes = {"A": (2, 4), "B": (4, 2)}
    tensors = {
        f"transformer.blocks.{n}.0.lora_{side}.weight": np.ones(shape, np.float32)
        for n in range(3)
        for side, shape in shapes.items()
    }
    save_file(tensors, folder / "lora.safetensors", metadata={"format": "pt"})


def compile_small(folder: Path) -> None:
    """The folder of a variant."""
    (folder / "base").mkdir()
    (folder / "base/config.json").write_text(json.dumps(CONFIG))
    (folder / "spec.yaml").write_text("surgery: v1\noperations: [{skip: 'transformer_blocks[0]'}]\n")
    planned = plan_spec_file(folder / "spec.yaml", model=str(folder / "base"))
    write_artefact(folder / "out", spec=planned.spec, source=planned.source, anatomy=planned.anatomy, plan=planned.plan)


def begin(folder: Path) -> None:
    """The profile of a run that was stopped."""
    Unfinished(folder / "u.safetensors", "key").write(replace(small_profile(), recipe={"samples": ["a"]}))


def resume(folder: Path) -> object:
    """Go on from what lies there."""
    return Unfinished(folder / "u.safetensors", "key").resume()


def recall(folder: Path) -> object:
    """An anatomy from a cache that lies there."""
    os.environ["SURGERY_CACHE"] = str(folder)
    return known.recall_anatomy("ab" * 32)


def remember(folder: Path) -> None:
    """A cache of one anatomy."""
    os.environ["SURGERY_CACHE"] = str(folder)
    known.keep_anatomy("ab" * 32, sd3(), None)


def list_kinds() -> dict[str, Kind]:
    """Every kind of file, with a sound one."""
    pictures = {"a.png": picture_of("PNG"), "b.png": picture_of("PNG")}
    lines = '{"file_name": "a.png", "text": "a cat"}\n{"file_name": "b.png", "caption": ["b", "c"]}\n'
    folder = Path("pictures")
    compiled = {name: content for name, content in made(compile_small).items() if name.startswith("out/")}
    kinds = {
        "prompts.txt": Kind({"p.txt": b"a cat\na dog\n"}, lambda place: read_prompt_file(place / "p.txt")),
        "prompts.csv": Kind(
            {"p.csv": b'prompt,n\n"a, cat",1\na dog,2\n'}, lambda place: read_prompt_file(place / "p.csv")
        ),
        "coco": Kind(
            {
                "p.json": json.dumps(COCO).encode(),
                **{f"pictures/{name}": content for name, content in pictures.items()},
            },
            lambda place: read_prompt_file(place / "p.json", pictures=place / folder),
            ("p.json",),
        ),
        "captions.jsonl": Kind({"metadata.jsonl": lines.encode(), **pictures}, read_captions, ("metadata.jsonl",)),
        "captions.csv": Kind(
            {"metadata.csv": b"file_name,text\na.png,a cat\n", **pictures}, read_captions, ("metadata.csv",)
        ),
        "pictures": Kind(pictures, lambda place: read_pictures(place, role="reference")),
        "profile": Kind(
            made(lambda place: write_profile(small_profile(), place / "p.safetensors")),
            lambda place: (read_profile(place / "p.safetensors"), read_means(place / "p.safetensors")),
        ),
        "features": Kind(made(write_reference), lambda place: read_reference(place / "r.safetensors")),
        "statistics": Kind(
            made(lambda place: write_sums(place / "s.safetensors")),
            lambda place: read_reference(place / "s.safetensors"),
        ),
        "npz": Kind(made(lambda place: write_sums(place / "s.npz")), lambda place: read_reference(place / "s.npz")),
        "config": Kind({"config.json": json.dumps(CONFIG).encode()}, inspect),
        "index": Kind(
            {
                "model_index.json": json.dumps(INDEX).encode(),
                "transformer/config.json": json.dumps(CONFIG).encode(),
            },
            lambda place: find_source(str(place)),
        ),
        "adapter": Kind(
            made(write_adapter), lambda place: remap_adapter(read_header(place / "lora.safetensors").tensors, FITTED)
        ),
        "lycoris": Kind(
            {"c.json": json.dumps(LOKR).encode()}, lambda place: judge_config(read_config(place / "c.json"), Tiny())
        ),
        "marker": Kind(
            made(lambda place: write_written(place, "evaluate", Written("key", {"a.png": (3, "ab")}, True))),
            lambda place: read_written(place, "evaluate"),
        ),
        "stored pictures": Kind(
            {"pictures.json": b'{"00000.png": "ab", "00001.png": "cd"}'},
            lambda place: StoredPictures(place).has([0, 1]),
        ),
        "unfinished": Kind(
            made(begin),
            resume,
        ),
        "anatomy": Kind(made(remember), recall),
        "graph folder": Kind(
            compiled, lambda place: read_artefact(place / "out"), ("out/surgery.json", "out/plan.json")
        ),
        "evaluation": Kind(
            made(lambda place: write_evaluation(place, {(STACK, "skip"): np.ones((2, 3))}, {STACK: 3})),
            lambda place: read_damage(place / "evaluation.json"),
        ),
        "card": Kind(
            {"README.md": b"---\nlicense: mit\ntags: [a, b]\nbase_model: {x: 1}\n---\n# Title\n"},
            lambda place: read_card_head(place / "README.md"),
        ),
    }
    for suffix, name in (
        ("JPEG", "jpg"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
    ):
        kinds[name] = Kind(
            {f"a.{name}": picture_of(suffix)}, lambda place, name=name: open_picture(place / f"a.{name}")
        )
    kinds["png"] = Kind({"a.png": picture_of("PNG", "RGBA")}, lambda place: open_picture(place / "a.png"))
    return kinds


# ------------------------------------------------------------------------------------------------------ mutations


def mutate(name: str, content: bytes, rng: random.Random) -> bytes:
    """A file that differs in one to four places: of its bytes, or of what its format holds."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(edits_of(name))(content, rng)
    return content


def edits_of(name: str) -> tuple[Callable[[bytes, random.Random], bytes], ...]:
    """What can be done to a file of this name."""
    suffix = Path(name).suffix
    if suffix == ".json":
        return (edit_json, edit_json, edit_json, edit_bytes)
    if suffix == ".jsonl":
        return (edit_lines, edit_lines, edit_bytes)
    if suffix == ".safetensors":
        return (edit_header, edit_header, edit_header, edit_bytes)
    if suffix == ".npz":
        return (edit_zip, edit_zip, edit_bytes)
    return (edit_bytes,)


def edit_bytes(content: bytes, rng: random.Random) -> bytes:
    """One byte, or one run of bytes, is another, is gone, or is there twice."""
    at = rng.randrange(len(content) + 1)
    until = min(len(content), at + rng.choice((1, 1, 2, 8, 64, 100_000)))
    kind = rng.randrange(5)
    if kind == 0:
        return (
            content[:at]
            + rng.choice((b"\0", b"\xff", b"\x80", b"\n", b'"', b"{", b"\xef\xbb\xbf", b"\r", b","))
            + content[until:]
        )
    if kind == 1:
        return content[:at] + rng.randbytes(until - at) + content[until:]
    if kind == 2:
        return content[:at] + content[until:]
    if kind == 3:
        return content[:until] + content[at:]
    return content[:at]


def edit_tree(tree: Any, rng: random.Random) -> Any:
    """JSON in which one node is another value, is gone, is there twice, or lies deep in lists."""
    places = list(walk(tree))
    where = rng.choice(places)
    if not where:
        return rng.choice(VALUES)
    *above, key = where
    holder = tree
    for step in above:
        holder = holder[step]
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 1:
        holder[rng.choice(("", "x", "format", "a/b/c", "blocks.0"))] = holder.pop(key)
    elif kind == 2:
        nested: Any = []
        for _ in range(rng.choice((3, 90, 900))):
            nested = [nested]
        holder[key] = nested
    elif kind == 3:
        other = tree
        for step in rng.choice(places):
            other = other[step] if other is not holder else other
        holder[key] = json.loads(json.dumps(other))
    else:
        holder[key] = rng.choice(VALUES)
    return tree


def walk(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all nodes."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from walk(value, (*path, key))


def edit_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON text with one node edited; bytes, where it is none any more."""
    try:
        tree = json.loads(content)
        return json.dumps(edit_tree(tree, rng)).encode()
    except (ValueError, RecursionError, KeyError, TypeError):
        return edit_bytes(content, rng)


def edit_lines(content: bytes, rng: random.Random) -> bytes:
    """JSON lines with one line edited."""
    lines = content.split(b"\n")
    number = rng.randrange(len(lines))
    lines[number] = edit_json(lines[number], rng)
    return b"\n".join(lines)


def edit_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with one node of its header, or of the JSON within its metadata, edited."""
    try:
        length = int.from_bytes(content[:PREFIX_BYTES], "little")
        header, data = json.loads(content[PREFIX_BYTES : PREFIX_BYTES + length]), content[PREFIX_BYTES + length :]
        metadata = header.get("__metadata__", {})
        if metadata and rng.random() < 0.7:
            key = rng.choice(list(metadata))
            metadata[key] = edit_json(metadata[key].encode(), rng).decode()
        else:
            header = edit_tree(header, rng)
        raw = json.dumps(header).encode()
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        return edit_bytes(content, rng)
    return len(raw).to_bytes(PREFIX_BYTES, "little") + raw + data


def edit_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip with a member edited, renamed, gone, packed in another way, or that says to be encrypted."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = {name: file.read(name) for name in file.namelist()}
    except Exception:  # it need not be a zip any more
        return edit_bytes(content, rng)
    name = rng.choice(list(members) or ["mu.npy"])
    kind = rng.randrange(5)
    held = members.pop(name, b"")
    if kind != 0:
        members[name if kind != 1 else rng.choice(("mu.npy", "x", "../x.npy", "é"))] = edit_bytes(held, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as file:
        for member, raw in members.items():
            file.writestr(member, raw)
    raw = bytearray(out.getvalue())
    if kind == 2 and len(raw) > 8:
        raw[6] |= 1  # the flag for encryption
        at = raw.find(b"PK\x01\x02")
        raw[at + 8] |= 1
    return bytes(raw)


# --------------------------------------------------------------------------------------------------------- running


def outcome_of(kind: Kind, files: Mapping[str, bytes], place: Path) -> str:
    """`read` or `refused`; anything else breaks the rule."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    started = time.process_time()
    try:
        kind.read(place)
        outcome = "read"
    except SurgeryError as error:
        outcome = "refused"
        assert str(error).strip(), "a message without words"
        str(error).encode(errors="surrogatepass")
    seconds = time.process_time() - started
    assert seconds < MAX_SECONDS, f"it took {seconds:.1f} s"
    return outcome


def try_many(kinds: Mapping[str, Kind], count: int, seed: object) -> Counter[tuple[str, str]]:
    """Mutate and read, `count` times in all; the outcomes by kind. Raises what a reader raised, and keeps its files."""
    found: Counter[tuple[str, str]] = Counter()
    names = list(kinds)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(count):
            name = names[number % len(names)]
            kind, rng, place = kinds[name], random.Random(f"{seed}/{number}"), Path(scratch) / f"{number}"
            files = dict(kind.files)
            chosen = rng.choice(kind.names())
            files[chosen] = mutate(chosen, files[chosen], rng)
            try:
                found[name, outcome_of(kind, files, place)] += 1
            except BaseException as error:
                kept = FAILED / name.replace(" ", "_")
                shutil.copytree(place, kept, dirs_exist_ok=True)
                error.add_note(f"{name}, number {number} of seed {seed}: {chosen}, kept in {kept}")
                raise
            shutil.rmtree(place)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--only", help="one kind")
    given = parser.parse_args()
    kinds = {name: kind for name, kind in list_kinds().items() if given.only in (None, name)}
    started = time.perf_counter()
    found = try_many(kinds, given.count, given.seed)
    for name in kinds:
        print(f"{name:16} read {found[name, 'read']:6}  refused {found[name, 'refused']:6}")
    print(f"{given.count} files in {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
