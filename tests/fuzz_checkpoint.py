"""Mutated models on their way to a pruned checkpoint: each is refused with a message, or written as it should be.

`python tests/fuzz_checkpoint.py --count 5000 --configs 100 --seed 0` mutates the files of weights of tiny models, then
their configs, and prints how many were written or refused, the slowest, and why models were refused that the official
library reads. What must be written is worked out here a second time: the official library reads the mutated files, a
rule renames blocks, and what was written is read by the official library and loaded by the stock class. It stops at
the first that breaks the rule, writing it down. The tests run a bounded number through the same code.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import fuzz_tensor_files as files
import torch
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import ModelSource, find_source
from surgery.anatomy.tensor_files import BITS, find_weights
from surgery.checkpoint.byte_plan import plan_bytes
from surgery.checkpoint.compile_plan import FittedPlan, fields_of_plan, fit_plan, lay_out
from surgery.checkpoint.folding import find_folds
from surgery.checkpoint.unrolled import unroll_plan
from surgery.checkpoint.write import write_weights
from surgery.errors import SurgeryError
from surgery.plan.lower import lower_spec
from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.spec.load import read_spec
from surgery.testing import tiny_call

MAX_SECONDS = {"weights": 2.0, "config": 60.0}
MAX_MEMORY = 16 * 2**30  # of address space: what a config asks for beyond it is refused here as on a small machine
SHARD_SIZES = ("700B", "5KB", "1GB")
CONFIG = "config.json"

Folder = dict[str, bytes]  # name of the file -> its content
Read = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes
Order = Callable[[int], list[int]]  # the number of blocks of a stack -> which of them run, in their new order


class TooSlowError(BaseException):
    """No error that code under test may catch."""


@dataclass(frozen=True)
class Surgery:
    """Operations on a tiny model, and what they come to, by hand: orders, and tensors that become zero."""

    build: Callable[[], nn.Module]
    operations: str
    orders: Mapping[str, Order]
    lengths: Mapping[str, str]  # stack -> the field that counts its blocks
    zeroed: str = "nothing"  # the names of the original's tensors, as a pattern

    @property
    def spec(self) -> str:
        """The spec as it would be written."""
        return f"surgery: v1\noperations:\n{self.operations}"


@dataclass(frozen=True)
class Fitted:
    """A surgery fitted to its model as diffusers saves it: in one file and in several."""

    surgery: Surgery
    source: ModelSource
    plan: FittedPlan
    folders: tuple[Folder, ...]

    @property
    def config(self) -> bytes:
        """The config as diffusers writes it."""
        assert self.source.folder is not None
        return (self.source.folder / CONFIG).read_bytes()


@dataclass(frozen=True)
class Case:
    """What is tried: a surgery, and the mutated files; `config` is None where only weights are mutated."""

    fitted: Fitted
    weights: Folder
    config: bytes | None
    shard_size: str


@dataclass(frozen=True)
class Outcome:
    """`kind`: written, refused (by the official library, too) or stricter (it reads the files); and our message."""

    kind: str
    message: str = ""


def build_pixart() -> nn.Module:
    """Four blocks of 4 channels."""
    return diffusers.PixArtTransformer2DModel(
        **{"num_attention_heads": 1, "attention_head_dim": 4, "in_channels": 2, "out_channels": 4, "num_layers": 4},
        **{"cross_attention_dim": 4, "sample_size": 4, "caption_channels": 3, "use_additional_conditions": False},
    )


def build_flux() -> nn.Module:
    """Three blocks of either kind, of 6 channels."""
    return diffusers.FluxTransformer2DModel(
        **{"in_channels": 4, "num_layers": 3, "num_single_layers": 3, "attention_head_dim": 6},
        **{"num_attention_heads": 1, "joint_attention_dim": 3, "pooled_projection_dim": 2, "axes_dims_rope": (2, 2, 2)},
    )


def build_sd3() -> nn.Module:
    """Four blocks, the first and third with another attention, the last with one stream."""
    return diffusers.SD3Transformer2DModel(
        **{"sample_size": 4, "in_channels": 2, "out_channels": 2, "num_layers": 4, "attention_head_dim": 4},
        **{"num_attention_heads": 1, "joint_attention_dim": 3, "caption_projection_dim": 4, "pos_embed_max_size": 4},
        **{"pooled_projection_dim": 2, "dual_attention_layers": (0, 2), "qk_norm": "rms_norm"},
    )


SURGERIES = {
    "pixart": Surgery(
        build_pixart,
        "  - skip: transformer_blocks[1]\n"
        '  - repeat: {layers: "transformer_blocks[0]", times: 3}\n'
        "  - reverse: transformer_blocks[2:4]\n"
        '  - replace: {component: "transformer_blocks[2].ff", with: zero}\n',
        {"transformer_blocks": lambda n: [0, 0, 0, *reversed(range(2, min(n, 4))), *range(4, n)]},
        {"transformer_blocks": "num_layers"},
        r"transformer_blocks\.2\.ff\.net\.2\.(weight|bias)",
    ),
    "flux": Surgery(
        build_flux,
        "  - skip: transformer_blocks[1]\n"
        '  - repeat: {layers: "transformer_blocks[0]", times: 2}\n'
        "  - skip: single_transformer_blocks[0]\n"
        "  - reverse: single_transformer_blocks[1:3]\n"
        '  - replace: {component: "transformer_blocks[0].ff", with: zero}\n',
        {
            "transformer_blocks": lambda n: [0, 0, *range(2, n)],
            "single_transformer_blocks": lambda n: [*reversed(range(1, min(n, 3))), *range(3, n)],
        },
        {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"},
        r"transformer_blocks\.0\.ff\.net\.2\.(weight|bias)",
    ),
    "sd3": Surgery(
        build_sd3,
        '  - skip: transformer_blocks[1]\n  - repeat: {layers: "transformer_blocks[0]", times: 2}\n',
        {"transformer_blocks": lambda n: [0, 0, *range(2, n)]},
        {"transformer_blocks": "num_layers"},
    ),
}


def fit_surgeries(place: Path) -> list[Fitted]:
    """Save the tiny models below `place`, and fit each surgery to its model."""
    fitted = []
    for name, surgery in SURGERIES.items():
        torch.manual_seed(0)
        model: Any = surgery.build().eval()
        model.save_pretrained(place / name)
        model.save_pretrained(place / f"{name}-many", max_shard_size="2KB")
        source = find_source(str(place / name))
        anatomy = read_anatomy(model)
        plan = lower_spec(read_spec(surgery.spec), anatomy)
        layers = unroll_plan(plan, anatomy)
        folds = find_folds(model, tiny_call(model), anatomy, plan, layers)
        fit = fit_plan(source, layers, fields_of_plan(source, layers), folds)
        folders = tuple(read_folder(place / folder) for folder in (name, f"{name}-many"))
        fitted.append(Fitted(surgery, source, fit, folders))
    return fitted


def read_folder(folder: Path) -> Folder:
    """The files of weights of a folder and their index, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != CONFIG}


def mutate_weights(fitted: Sequence[Fitted], rng: random.Random) -> Case:
    """A tiny model whose files of weights are edited, or hold tensors that the class does not know."""
    chosen = rng.choice(fitted)
    folder = rng.choice(chosen.folders)
    if rng.random() < 0.6:
        folder = files.mutate([folder], rng)
    else:
        folder = dict(folder)
        for _ in range(rng.randint(1, 3)):
            add_tensor(folder, rng)
    return Case(chosen, folder, None, rng.choice(SHARD_SIZES))


def add_tensor(folder: Folder, rng: random.Random) -> None:
    """One more tensor at the end of a file, of any dtype, named like one of a block or not, as a rule in the index."""
    name = rng.choice([name for name in folder if name != files.INDEX])
    content = folder[name]
    end = files.PREFIX_BYTES + files.header_length(content)
    header = files.parse(content[files.PREFIX_BYTES : end])
    if header is None:
        return
    dtype = rng.choice([*BITS, "F4", "F32", "F8_E9M9"])
    shape = [rng.choice((0, 1, 2, 2, 3, 8)) for _ in range(rng.randint(0, 3))]
    size = BITS.get(dtype, 8)
    for number in shape:
        size *= number
    data = rng.randbytes(size // 8 if dtype in BITS else rng.choice((size // 8, rng.randint(0, 9))))
    start = len(content) - end
    offsets = [start, start + len(data)]
    called = name_tensor(rng.choice(header)[0], rng)
    header.append((called, files.Pairs([("dtype", dtype), ("shape", shape), ("data_offsets", offsets)])))
    folder[name] = files.with_header(files.dump(header).encode(), content[end:] + data)
    index = files.parse(folder.get(files.INDEX, b""))
    if index is not None and rng.random() < 0.95:
        files.value_of(index, "weight_map").append((called, name))
        folder[files.INDEX] = files.dump(index).encode()


def name_tensor(known: str, rng: random.Random) -> str:
    """A name for a tensor: of a block of any number, written in any way, or of none."""
    stack = rng.choice(("transformer_blocks", "single_transformer_blocks", "blocks", "transformer_blocks.0.blocks"))
    number = rng.choice(("0", "1", "2", "3", "4", "99", "00", "02", "-1", "+1", "1_0", "²", "٢", "", "9" * 30))
    rest = known.split(".", maxsplit=2)[-1]
    rest = rng.choice((rest, rest, f"{rest}_scale", "extra", "", "0", "ünïcode", "new\nline", "\x1b[31m", '"', "\0"))
    return rng.choice((f"{stack}.{number}.{rest}", f"{stack}.{number}.{rest}", f"{stack}.{number}", rest, known))


def expected_tensors(read: Read, surgery: Surgery, config: Mapping[str, Any], known: set[str]) -> Read:
    """What must be written, from what the official library reads: blocks renamed, all else as it is.

    A tensor belongs to block K if it is called STACK.K.REST, K as Python writes numbers; `known` are the names that
    the stock class has.
    """
    orders = {stack: order(int(config[surgery.lengths[stack]])) for stack, order in surgery.orders.items()}
    written: Read = {}
    for name, (dtype, shape, data) in read.items():
        if name in known and re.fullmatch(surgery.zeroed, name):
            data = bytes(len(data))  # noqa: PLW2901  (of this tensor alone)
        stack, number, rest = next(
            (
                (stack, found[1], found[2])
                for stack in orders
                if (found := re.fullmatch(rf"{stack}\.(0|[1-9][0-9]*)\.(.*)", name, re.DOTALL))
            ),
            (None, "", ""),
        )
        names = [name]
        if stack is not None:
            names = [f"{stack}.{place}.{rest}" for place, block in enumerate(orders[stack]) if f"{block}" == number]
        written.update(dict.fromkeys(names, (dtype, shape, data)))
    return written


def read_official(folder: Path) -> Read | None:
    """What the official library reads of a folder, None where it refuses; dtypes that it does not know it takes too."""
    described = {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in folder.iterdir():
            content = path.read_bytes()
            if path.name not in (CONFIG, files.INDEX):
                header = header_of(content)
                content = with_known_dtypes(content, header)
                described.update(header)
            (Path(scratch) / path.name).write_bytes(content)
        read: Read | None = files.read_official_folder(Path(scratch))
    if read is None:
        return None
    return {
        name: (described[name]["dtype"], tuple(described[name]["shape"]), data) for name, (_, _, data) in read.items()
    }


def header_of(content: bytes) -> dict[str, Any]:
    """The header of a file as JSON; nothing where it is none."""
    try:
        header = json.loads(content[files.PREFIX_BYTES : files.PREFIX_BYTES + files.header_length(content)])
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def with_known_dtypes(content: bytes, header: Mapping[str, Any]) -> bytes:
    """A file of weights whose tensors of unknown dtype are said to be bytes, where there are any; else as it is."""
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    if not all(isinstance(entry, dict) and isinstance(entry.get("dtype"), str) for entry in entries):
        return content
    if all(entry["dtype"] in BITS for entry in entries):
        return content
    try:
        known: bytes = files.with_known_dtypes(content)
    except (KeyError, TypeError, ValueError):
        return content
    return known


def check_files(case: Case, folder: Path, written: Path) -> Read:
    """Raise AssertionError unless the files in `written` hold what they must; returns what they hold."""
    read = read_official(folder)
    assert read is not None, "the official library refuses the model, and something was written"
    found = read_official(written)
    assert found is not None, "the official library refuses what was written"
    config = json.loads(case.config or case.fitted.config)
    known = set(case.fitted.plan.original.state_dict())
    expected = expected_tensors(read, case.fitted.surgery, config, known)
    assert found.keys() == expected.keys(), f"the names differ: {sorted(found.keys() ^ expected.keys())}"
    wrong = [name for name in expected if found[name] != expected[name]]
    assert not wrong, f"the tensors differ: {wrong}"
    return found


def write_model(case: Case, place: Path) -> tuple[Path, Path]:
    """The folders of the mutated model and of what is to be written, the second empty."""
    folder, written = place / "model", place / "written"
    for path in (folder, written):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    for name, raw in {**case.weights, CONFIG: case.config or case.fitted.config}.items():
        (folder / name).write_bytes(raw)
    return folder, written


def outcome_of(case: Case, place: Path) -> Outcome:
    """Try one. Raises AssertionError where what is written is wrong or a message is bad, and whatever else goes wrong.

    Files of weights go through the code that lays them out and writes them; with a config the whole compiler runs.
    """
    folder, written = write_model(case, place)
    family = "weights" if case.config is None else "config"
    run = write_pruned if case.config is None else compile_whole
    started = time.process_time()
    try:
        with limited_seconds(10 * MAX_SECONDS[family]):
            run(case, folder, written)
    except SurgeryError as error:
        check_message(str(error), (folder, written.parent))
        kind = "refused" if read_official(folder) is None else "stricter"
        return Outcome(kind, summary_of(str(error), folder))
    finally:
        seconds = time.process_time() - started
    assert seconds <= MAX_SECONDS[family], f"it took {seconds:.1f} s"
    found = check_files(case, folder, written)
    if case.config is not None:
        check_stock_class(found, folder, written)
    return Outcome("written")


def write_pruned(case: Case, folder: Path, written: Path) -> None:
    """The way of files of weights: headers, layout, bytes."""
    weights = find_weights(folder)
    new = lay_out(case.fitted.plan, replace(case.fitted.source, folder=folder), weights)
    byte_plan = plan_bytes(new, weights, max_shard_size=case.shard_size)
    write_weights(written, byte_plan, weights, metadata={"format": "pt"})


def compile_whole(case: Case, folder: Path, written: Path) -> None:
    """The way of a model: what `surgery compile --verify structure` does."""
    spec = written.parent / "spec.yaml"
    spec.write_text(case.fitted.surgery.spec)
    written.rmdir()
    planned = plan_spec_file(spec, model=str(folder))
    compile_planned(planned, written, CompileOptions(verify="structure", max_shard_size=case.shard_size))
    for name in ("plan.json", "surgery.json", "spec.yaml", "README.md"):
        (written / name).unlink()


def check_stock_class(found: Read, folder: Path, written: Path) -> None:
    """Raise AssertionError unless stock diffusers loads what was written, and misses nothing in it.

    A model that it does not load itself (a dtype that PyTorch has not, say) is not asked for.
    """
    stock: Any = getattr(diffusers, json.loads((folder / CONFIG).read_bytes())["_class_name"])
    try:
        before = stock.from_pretrained(folder, output_loading_info=True)[1]
    except (OSError, ValueError, RuntimeError, KeyError):
        return
    model, after = stock.from_pretrained(written, output_loading_info=True)
    assert not after["missing_keys"] and not after["mismatched_keys"], f"the stock class says {after}"
    extra = set(after["unexpected_keys"])
    assert not extra or before["unexpected_keys"], f"the stock class does not expect {extra}"
    assert set(model.state_dict()) | extra == found.keys(), "the stock class has other tensors"


def check_message(message: str, places: Sequence[Path]) -> None:
    """Raise AssertionError unless a message can be printed and says where."""
    assert message.strip(), "there is an error without a message"
    assert all(line.isprintable() for line in message.split("\n")), f"it is not for a terminal: {message!r}"
    assert len(message) < 5000, f"it has {len(message)} characters: {message[:200]!r}"
    assert any(str(place) in message for place in places) or SAYS_WHERE.search(message), f"it says no place: {message}"


SAYS_WHERE = re.compile(r"transformer_blocks|Transformer\w*Model|no stock checkpoint|the stock class|config")


def summary_of(message: str, folder: Path) -> str:
    """The message without what is particular to one model."""
    text: str = files.summary_of(message, folder)
    return text.split("\n", maxsplit=1)[0][:200]


@contextmanager
def limited_seconds(seconds: float) -> Iterator[None]:
    """Raise TooSlowError in what takes longer."""

    def stop(signum: int, frame: Any) -> None:
        raise TooSlowError(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


VALUES = (
    *("-1", "0", "1", "2", "3", "5", "7", "1.5", "true", "false", "null", "NaN", "Infinity", '"2"', '""', "[]", "{}"),
    *("100", "4096", str(10**5), str(2**31), str(2**63), str(10**9), str(10**30)),
    *("9" * 400, "-" + "9" * 25, "1e30", "[1, 2]", "[2, 2, 2]", "[0, 2]", "[[]]", '[null, "a"]'),
    *("[0, 0]", "[3, 2, 1, 0]", "[-1]", "[true, false, true, true]", f"[{10**9}]", '{"a": 1}', '"swiglu"', '"silu"'),
    *('"\\ud800"', '"\\u001b[31m"', '"a\\nb"', "[" * 300 + "]" * 300, '"ada_norm"', '"layer_norm"', '"rms_norm"'),
)
FIELDS = (
    "num_layers",
    "num_single_layers",
    "sample_size",
    "attention_head_dim",
    "dual_attention_layers",
    "out_channels",
)
CLASSES = (
    *("DiTTransformer2DModel", "SanaTransformer2DModel", "ChromaTransformer2DModel", "AuraFlowTransformer2DModel"),
    *("UNet2DModel", "AutoencoderKL", "DDPMScheduler", "FluxPipeline", "DiffusionPipeline", "ModelMixin", "AutoModel"),
    *(
        "FlaxUNet2DConditionModel",
        "ConfigMixin",
        "Transformer2DModel",
        "QwenImageTransformer2DModel",
        "models",
        "__name__",
    ),
    *(
        "HunyuanDiT2DModel",
        "WanTransformer3DModel",
        "Lumina2Transformer2DModel",
        "CogVideoXTransformer3DModel",
        "",
        "a b",
    ),
    *("FluxControlNetModel", "MultiControlNetModel", "OnnxStableDiffusionPipeline", "VQModel", "EMAModel", "\x1b[31m"),
)


def mutate_config(fitted: Sequence[Fitted], rng: random.Random) -> Case:
    """A tiny model whose config is edited, now and then its files of weights as well."""
    chosen = rng.choice(fitted)
    weights = dict(rng.choice(chosen.folders))
    if rng.random() < 0.15:
        weights = mutate_weights([chosen], rng).weights
    config = chosen.config
    for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2, 2, 3))):
        config = edit_field(config, rng)
    if rng.random() < 0.1:
        config = edit_text(config, rng)
    return Case(chosen, weights, config, rng.choice(SHARD_SIZES))


def edit_field(config: bytes, rng: random.Random) -> bytes:
    """Change, drop, double, rename or add a field."""
    fields = files.parse(config)
    if not fields:
        return config
    number = rng.randrange(len(fields))
    name, value = fields[number]
    match rng.randrange(12):
        case 0:
            del fields[number]
        case 1:
            fields.insert(rng.randint(0, len(fields)), (name, files.Raw(rng.choice(VALUES))))
        case 2:
            fields.append((rng.choice((*FIELDS, "unknown", "_unknown", "", "\x1b[31m")), files.Raw(rng.choice(VALUES))))
        case 3:
            fields[number] = (rng.choice(FIELDS), value)
        case 4:
            fields[:] = files.replaced(fields, "_class_name", rng.choice(CLASSES))
        case 5 if type(value) is int:
            fields[number] = (name, rng.choice((float(value), str(value), [value], value + 1, value - 1, -value)))
        case 6 if isinstance(value, list) and value:
            fields[number] = (name, edit_list(value, rng))
        case _:
            fields[number] = (name, files.Raw(rng.choice(VALUES)))
    raw: str = files.dump(fields)
    return raw.encode()


def edit_list(value: list[Any], rng: random.Random) -> list[Any]:
    """A list with one change."""
    number = rng.randrange(len(value))
    changed = rng.choice(([], value[:number] + value[number:] * 2, value[::-1], [files.Raw(rng.choice(VALUES))]))
    return [*value[:number], *changed, *value[number + 1 :]]


def edit_text(config: bytes, rng: random.Random) -> bytes:
    """Cut the text off, or put something in that is no JSON, no UTF-8, or nested deeply."""
    position = rng.randint(0, len(config))
    depth = rng.choice((100, 900, 960, 990, 2000, 100_000))
    deep = b'{"a": ' + b"[" * depth + b"]" * depth + b", " + config[1:]
    middle = rng.choice((b"\xff", b"\0", b"\xed\xa0\x80", b",", b"\xef\xbb\xbf", b"9" * 5000, rng.randbytes(3)))
    spliced = config[:position] + middle + config[position:]
    return rng.choice(
        (config[:position], spliced, deep, deep, b"\xef\xbb\xbf" + config, config.decode().encode("utf-16"))
    )


def try_many(
    name: str, count: int, make: Callable[[random.Random], Case], place: Path, options: argparse.Namespace
) -> None:
    """Try `count` of one family, and print what came of them."""
    seen, slowest = Counter[Outcome](), 0.0
    for number in range(count):
        case = make(random.Random(f"{options.seed}/{name}/{number}"))
        started = time.process_time()
        try:
            seen[outcome_of(case, place)] += 1
        except BaseException:
            files.keep({**case.weights, CONFIG: case.config or case.fitted.config}, options.keep)
            (options.keep / "spec.yaml").write_text(case.fitted.surgery.spec)
            print(f"{name} {number} of seed {options.seed} break the rule; they are in {options.keep}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - started)
    kinds = Counter[str]()
    for outcome, times in seen.items():
        kinds[outcome.kind] += times
    counts = ", ".join(f"{times:,} {kind}" for kind, times in kinds.most_common())
    messages = len({outcome.message for outcome in seen if outcome.message})
    print(f"{count:,} mutated {name}: {counts}; {messages} messages; slowest {slowest:.2f} s with the oracle")
    for outcome, times in seen.most_common():
        if outcome.kind == "stricter":
            print(f"{times:>7,} stricter: {outcome.message}")


def main() -> None:
    """Try `--count` models with mutated weights and `--configs` with mutated configs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--configs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("out/fuzz_checkpoint"), help="where a model that breaks the rule goes"
    )
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["SURGERY_CACHE"] = str(place / "cache")
        fitted = fit_surgeries(place)
        try_many("weights", options.count, lambda rng: mutate_weights(fitted, rng), place, options)
        try_many("configs", options.configs, lambda rng: mutate_config(fitted, rng), place, options)


if __name__ == "__main__":
    main()
