"""Write a pruned checkpoint of real size: our copy, our whole command, and by hand with diffusers, against `cp`.

Aims: the copy takes at most 1.10x `cp --reflink=never` of the same bytes, both followed by `sync`; the process that
copies stays below 150 MB whatever the size. `cp` copies files that hold exactly what is kept. All of them begin with
empty caches where this may be done (as root); each round runs all of them, every other round in the opposite order.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from surgery.anatomy.tensor_files import WEIGHTS_NAME

CONFIG = Path(__file__).parents[1] / "tests" / "configs" / "flux.1-schnell" / "transformer" / "config.json"
LAYERS_GB, REST_GB = 1.25, 0.15  # one double block and two single ones of FLUX.1; what is no block
SHARD_BYTES, SHARDS = 3 * 10**9, "3GB"  # of a file of the original, and of what is written
SKIPPED = {"transformer_blocks": slice(1, None, 4), "single_transformer_blocks": slice(2, None, 4)}
FIELDS = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass
class Taken:
    """What one run of an alternative took; `peaks` are the most memory (MB) of its process, then of its children."""

    seconds: float
    peaks: list[float] = field(default_factory=list)


def main() -> None:
    """Print seconds, ratios to cp and peaks of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=8.8, help="size of the original model; more layers, same widths")
    parser.add_argument("--folder", type=Path, help="where to write it (3 times its size is needed)")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-", dir=options.folder) as name:
        folder = Path(name)
        if (free := shutil.disk_usage(folder).free / 1e9) < 3 * options.gb:
            raise SystemExit(f"{folder.parent} has {free:.0f} GB left, and 3 x {options.gb} GB are needed")
        write_original(folder / "flux", layers=max(4, round((options.gb - REST_GB) / LAYERS_GB)))
        spec = write_spec(folder / "skip.yaml", folder / "flux")
        compile_checkpoint(spec, folder / "kept", "structure")
        report(measure(folder, spec, options.rounds), folder)


def measure(folder: Path, spec: Path, rounds: int) -> dict[str, list[Taken]]:
    """Run all alternatives in turn, and remove what they wrote."""
    out = folder / "out"
    within: list[float] = []

    def whole() -> Taken:
        taken, document = compile_checkpoint(spec, out, "numeric")
        within.append(document["seconds"]["copy"])
        return taken

    def cp() -> Taken:
        return run("cp", "-r", "--reflink=never", str(folder / "kept"), str(out))[0]

    alternatives: dict[str, Callable[[], Taken]] = {
        "cp": cp,
        "copy": lambda: copy_alone(spec, out),
        "command": whole,
        "by hand": lambda: run_here("by_hand", str(folder / "flux"), str(out))[0],
        "cp again": cp,  # how far two runs of the same are apart
    }
    found: dict[str, list[Taken]] = {name: [] for name in alternatives}
    for number in range(rounds):
        for name in list(alternatives)[:: -1 if number % 2 else 1]:
            drop_caches()
            taken = alternatives[name]()
            taken.seconds += sync()
            found[name].append(taken)
            print(f"  round {number + 1}, {name}: {taken.seconds:.2f} s", file=sys.stderr)
            shutil.rmtree(out)
    found["copy within the command (the original is in the cache)"] = [Taken(seconds) for seconds in within]
    return found


def report(found: dict[str, list[Taken]], folder: Path) -> None:
    """A table of medians. Ratios are medians over rounds of the ratio within a round."""
    sizes = [sum(path.stat().st_size for path in (folder / name).glob("*.safetensors")) for name in ("flux", "kept")]
    shards = len(list((folder / "flux").glob("*.safetensors")))
    print(f"FLUX.1's widths, {sizes[0] / 1e9:.1f} GB in {shards} files, of which {sizes[1] / 1e9:.1f} GB are kept;")
    print(f"caches were {'empty' if os.access(DROP_CACHES, os.W_OK) else 'NOT emptied'} before each run; with sync")
    for name, runs in found.items():
        ratios = [taken.seconds / cp.seconds for taken, cp in zip(runs, found["cp"], strict=True)]
        peaks = [statistics.median(of_process) for of_process in zip(*(taken.peaks for taken in runs), strict=False)]
        print(
            f"{name}: {statistics.median(taken.seconds for taken in runs):.1f} s, {statistics.median(ratios):.2f} x cp "
            f"({min(ratios):.2f} to {max(ratios):.2f})" + "".join(f"; {peak:,.0f} MB" for peak in peaks)
        )


def write_original(folder: Path, *, layers: int) -> None:
    """A transformer folder with random bytes: `layers` double blocks and twice as many single ones."""
    config = {**json.loads(CONFIG.read_text()), "num_layers": layers, "num_single_layers": 2 * layers}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shards: list[dict[str, list[int]]] = [{}]
    size = 0
    for name, shape in json.loads(run_here("list_shapes", str(folder))[1]).items():
        if size > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += 2 * int(np.prod(shape))
    weight_map = {}
    for number, shapes in enumerate(shards, 1):
        file = f"{WEIGHTS_NAME}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_random(folder / file, shapes, seed=number)
        weight_map |= dict.fromkeys(shapes, file)
    (folder / f"{WEIGHTS_NAME}.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def write_random(path: Path, shapes: dict[str, list[int]], *, seed: int) -> None:
    """A safetensors file of bfloat16 tensors with random bytes; it is never whole in memory."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        stop = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, position, 2**24):
            file.write(random.bytes(min(2**24, position - start)))


def write_spec(path: Path, model: Path) -> Path:
    """A spec that skips every fourth layer."""
    lines = [f'  - skip: "{stack}[{part.start}::{part.step}]"' for stack, part in SKIPPED.items()]
    path.write_text("\n".join(["surgery: v1", f"model: {model}", "operations:", *lines, ""]))
    return path


def compile_checkpoint(spec: Path, out: Path, verify: str) -> tuple[Taken, dict[str, dict[str, float]]]:
    """The whole command, and what its --json says."""
    command = "from surgery.commands.main import main; main()"
    arguments = [
        "compile",
        str(spec),
        "--to",
        "checkpoint",
        "--out",
        str(out),
        "--verify",
        verify,
        "--max-shard-size",
        SHARDS,
        "--json",
    ]
    taken, output = run(sys.executable, "-c", command, *arguments)
    return taken, json.loads(output)


def copy_alone(spec: Path, out: Path) -> Taken:
    """What the command does between planning and verifying, with empty caches as `cp` has them."""
    taken, output = run_here("compile_cold", str(spec), str(out))
    return Taken(float(output), taken.peaks[:1])


def compile_cold(spec: str, out: str) -> None:
    """Compile; empty the caches when the copying begins; print the seconds until all bytes are on the disk."""
    from surgery.checkpoint.copy_bytes import ignore_progress
    from surgery.plan.planned import plan_spec_file
    from surgery.publish.pruned_model import CompileOptions, compile_planned

    dropping = 0.0

    def start(total_bytes: int) -> Callable[[int], None]:  # noqa: ARG001  (it is told of them)
        nonlocal dropping
        started = time.perf_counter()
        drop_caches()
        dropping = time.perf_counter() - started
        return ignore_progress

    planned = plan_spec_file(Path(spec))
    pruned = compile_planned(planned, Path(out), CompileOptions("structure", SHARDS), progress=start)
    print(pruned.seconds["copy"] - dropping)


def by_hand(model: str, out: str) -> None:
    """The same checkpoint as one writes it with diffusers."""
    import torch
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel.from_pretrained(model, torch_dtype=torch.bfloat16)
    for stack, part in SKIPPED.items():
        blocks = getattr(transformer, stack)
        skipped = range(len(blocks))[part]
        kept = [block for index, block in enumerate(blocks) if index not in skipped]
        setattr(transformer, stack, torch.nn.ModuleList(kept))
        transformer.register_to_config(**{FIELDS[stack]: len(kept)})
    transformer.save_pretrained(out)


def list_shapes(folder: str) -> None:
    """Print the names and shapes of the stock class's tensors."""
    from surgery.anatomy.sources import build_on_meta, find_source

    values = build_on_meta(find_source(folder)).state_dict().items()
    print(json.dumps({name: list(value.shape) for name, value in values}))


def run_here(function: str, *arguments: str) -> tuple[Taken, str]:
    """Call a function of this file in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {Path(__file__).stem} as bench"
    return run(sys.executable, "-c", f"{code}; bench.{function}(*sys.argv[1:])", *arguments)


def run(*command: str) -> tuple[Taken, str]:
    """Run a command; its seconds, the peaks of memory of it and its children, and its standard output."""
    started = time.perf_counter()
    peaks: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        while process.poll() is None:
            peaks |= dict(peaks_of(process.pid))
            time.sleep(0.01)
        taken = Taken(time.perf_counter() - started, [peaks[pid] for pid in peaks])
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
        output.seek(0)
        return taken, output.read()


def peaks_of(pid: int) -> Iterator[tuple[int, float]]:
    """The most memory (resident, MB) that a process and its children have had until now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            yield pid, int(line.split()[1]) * 1024 / 1e6
    for child in children.split():
        yield from peaks_of(int(child))


def sync() -> float:
    """Wait until everything is on the disk; the seconds of that."""
    started = time.perf_counter()
    os.sync()
    return time.perf_counter() - started


def drop_caches() -> None:
    """Forget all files that are in memory, where this may be done."""
    os.sync()
    if os.access(DROP_CACHES, os.W_OK):
        DROP_CACHES.write_text("3")


if __name__ == "__main__":
    main()
