"""Which removal, which part and which loss heal best: the bundled pipeline without 3 of 12 blocks, 300 steps each.

All rows learn from the same latents in the same batches, one after the other in one process, and are measured by the
denoising error, before and after, on prompts by which nothing was chosen (exports/demo/heldout.txt); differences to the
first row are prompt by prompt. What is done is kept in --out, and the same command goes on behind it; `--only ROW...`
prints what is there of these rows. --cache is a folder of latents that `surgery heal` has made (`OUT.healing/data`);
without it they are made first.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import surgery
from surgery.bundled import demo_prompt_file
from surgery.experiment.evaluation import EvaluatedRow, Evaluation, EvaluationRequest, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import read_prompt_file
from surgery.experiment.stages import Stage
from surgery.metrics.intervals import Interval, difference_interval, mean_interval
from surgery.training.trained_parts import Part

PROMPTS = Path(__file__).parents[1] / "exports" / "demo"
LEARNT, HELD_OUT = PROMPTS / "train.txt", PROMPTS / "heldout.txt"
REMOVED = {  # by what chose them: the search as in the README, and `surgery suggest --remove 3 --by ...`
    "search": (1, 2, 5),
    "influence": (3, 4, 6),
    "greedy": (2, 4, 6),
    "span": (3, 4, 5),
}
SETTINGS = surgery.TrainingSettings(
    steps=300, learning_rate=6e-4, schedule="cosine", validate_every=300, checkpoint_every=300
)
FASTER = 3e-3  # a rate for parts of the weights


@dataclass(frozen=True)
class Run:
    """A row: what is removed, and how it is healed."""

    name: str
    removed: str = "search"
    train: Part = "all"
    features: float = 0.0
    learning_rate: float = SETTINGS.learning_rate
    seed: int = SETTINGS.seed

    @property
    def settings(self) -> surgery.TrainingSettings:
        """How it is trained."""
        weights = {"output": 1.0, "features": self.features}
        return replace(SETTINGS, learning_rate=self.learning_rate, weights=weights, seed=self.seed)


RUNS = (
    Run("search-all"),
    Run("influence-all", "influence"),
    Run("search-lora", train="lora"),
    Run("search-norms", train="norms"),
    Run("search-neighbours", train="neighbours"),
    Run("search-features", features=0.5),
    Run("greedy-all", "greedy"),
    Run("span-all", "span"),
    Run("search-lora-faster", train="lora", learning_rate=FASTER),
    Run("search-norms-faster", train="norms", learning_rate=FASTER),
    Run("search-all-again", seed=1),
)


def main() -> None:
    """Heal what is not healed yet, measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/healing_table"))
    parser.add_argument("--cache", type=Path, help="latents and texts; default: OUT/data")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="rows, by name; default: all")
    options = parser.parse_args()
    cache = options.cache or options.out / "data"
    runs = [run for run in RUNS if not options.only or run.name in options.only]
    for removed in dict.fromkeys(run.removed for run in runs):
        prune(removed, options.out)
    for run in runs:
        heal(run, options.out, cache, options.batch_size)
    report(measure(runs, options.out), runs, options.out)


def prune(removed: str, out: Path) -> None:
    """The checkpoint without these blocks."""
    folder, spec = out / removed, out / f"{removed}.yaml"
    if folder.exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    blocks = ", ".join(map(str, REMOVED[removed]))
    spec.write_text(f'surgery: v1\nmodel: demo\noperations:\n  - skip: "transformer_blocks[{blocks}]"\n')
    surgery.compile_checkpoint(spec, folder)


def heal(run: Run, out: Path, cache: Path, batch_size: int) -> None:
    """Heal by a run, and keep how long it took; a first run of one step makes the latents, so that no row pays them."""
    if not cache.exists():
        heal_into(replace(run, name="first"), out, cache, batch_size, replace(run.settings, steps=1))
    if not (out / run.name).exists():
        began = time.process_time()
        heal_into(run, out, cache, batch_size, run.settings)
        seconds_file(run, out).write_text(json.dumps(time.process_time() - began))


def heal_into(run: Run, out: Path, cache: Path, batch_size: int, settings: surgery.TrainingSettings) -> None:
    """The call."""
    surgery.heal(
        out / run.removed, out / run.name, settings, prompts=LEARNT, held_out=demo_prompt_file(), train=run.train,
        batch_size=batch_size, bins=5, device="cpu", cache=cache,
    )  # fmt: skip


def seconds_file(run: Run, out: Path) -> Path:
    """Where the CPU seconds of a run stand."""
    return out / f"{run.name}.seconds.json"


def measure(runs: Sequence[Run], out: Path) -> Evaluation:
    """Denoising errors of all, before and after, on the held-out prompts."""
    folders = dict.fromkeys([*(run.removed for run in runs), *(run.name for run in runs)])
    prompts = read_prompt_file(HELD_OUT)
    return run_evaluation(
        EvaluationRequest(
            specs=tuple(str(out / name) for name in folders), prompts=prompts, out=out / "evaluation",
            judges=JudgeRequest(extractors=("none",), clip="none", lpips="none"), batch_size=64,
            stages=(Stage("error", len(prompts.prompts)),), call={"num_inference_steps": 10},
        )
    )  # fmt: skip


def report(found: Evaluation, runs: Sequence[Run], out: Path) -> None:
    """A line a row, in Markdown."""
    first = found.row(runs[0].name)
    print(f"N = {found.num_prompts}, 95% intervals (Student's t over prompts)\n")
    print("| row | rate | before | after | more than the first | CPU s a step |")
    print("|---|---:|---:|---:|---:|---:|")
    for run in runs:
        before, after = found.row(run.removed), found.row(run.name)
        seconds = json.loads(seconds_file(run, out).read_text()) / run.settings.steps
        apart = difference_interval(errors_of(after), errors_of(first))
        cells = [
            run.name, f"{run.learning_rate:g}", plus_minus(mean_interval(errors_of(before)), 3),
            plus_minus(mean_interval(errors_of(after)), 3), plus_minus(apart, 4), f"{seconds:.2f}",
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


def errors_of(row: EvaluatedRow) -> NDArray[np.float64]:
    """A mean over the noise range for each prompt (N,)."""
    assert row.errors is not None, "it has a model of its own"
    return row.errors.mean(1)


def plus_minus(found: Interval, digits: int) -> str:
    """`0.305 ± 0.019`."""
    half = 0.0 if found.high is None else found.high - found.value
    return f"{found.value:.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    main()
