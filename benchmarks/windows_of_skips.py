"""A quarter of all block executions left out of the bundled pipeline: always the same blocks, or by the timestep.

`windows_of_skips.py` measures specs/demo-windows on 64 prompts that nothing was chosen on: SSIM to the unedited model's
pictures from the same noise, the bundled CLIP's score of the text, and how the specs differ from each other, prompt by
prompt. `windows_of_skips.py --choose` looks for such a spec on other prompts, and prints it: each layer is
left out alone, and of the cells of layer and fifth of the noise range the quarter is taken whose denoising error is
least.
"""

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from surgery.bundled import demo_prompt_file
from surgery.demo.bundled_judges import bundled_judges
from surgery.experiment.evaluation import EvaluatedRow, Evaluation, EvaluationRequest, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet, read_prompt_file
from surgery.experiment.scores import Score
from surgery.metrics.intervals import Interval, difference_interval

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs" / "demo-windows").glob("*.yaml"))
EACH_ALONE = ROOT / "specs" / "demo-sweeps" / "skip_sweep_each.yaml"
HELD_OUT = ROOT / "exports" / "demo" / "heldout.txt"
CALL = {"num_inference_steps": 10, "guidance_scale": 1.5}
NUM_LEFT_OUT = 15  # of 60 cells: a quarter
NUM_TO_CHOOSE_ON = 24  # prompts
Cells = Sequence[tuple[int, int]]  # (fifth, block)
Values = NDArray[np.float64]


def main() -> None:
    """Print the table, or the specs that were chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="look for specs, on the prompts of exports/demo")
    parser.add_argument("--out", type=Path, default=Path("out/windows"))
    options = parser.parse_args()
    if options.choose:
        choose(options.out / "choose")
    else:
        report(measure(SPECS, read_prompt_file(HELD_OUT), options.out / "held_out", clip="auto"))


def measure(specs: Sequence[Path], prompts: PromptSet, out: Path, *, clip: str = "none") -> Evaluation:
    """Pictures of all specs from shared noise, and what they score."""
    judges = JudgeRequest(extractors=("none",), clip=clip, lpips="none", bundled=bundled_judges())
    return run_evaluation(
        EvaluationRequest(
            specs=tuple(map(str, specs)), prompts=prompts, out=out, judges=judges, bins=5, batch_size=64, call=CALL
        )
    )


def report(found: Evaluation) -> None:
    """A line a spec, and one for each two."""
    variants = [row for row in found.rows if row.kind == "variant"]
    print(f"N = {found.num_prompts}, with 95% intervals (Student's t over prompts)")
    for row in (found.row("baseline"), *variants):
        text = score_of(row, "text score")
        less = "" if text.difference is None else f" ({interval_text(text.difference, 2)} to the baseline)"
        errors = "" if row.errors is None else " ".join(f"{error:.3f}" for error in row.errors.mean(0))
        print(f"{row.name}: SSIM {interval_text(score_of(row, 'ssim').interval, 4)}")
        print(f"  text score {interval_text(text.interval, 2)}{less}; denoising error by fifths {errors}")
    for one, other in itertools.combinations(variants, 2):
        difference = difference_interval(ssim_of(one), ssim_of(other))
        print(f"{one.name} - {other.name}: SSIM {interval_text(difference, 4)}")


def score_of(row: EvaluatedRow, kind: str) -> Score:
    """Its number of a kind."""
    return next(score for score in row.scores if score.metric.kind == kind)


def ssim_of(row: EvaluatedRow) -> Values:
    """The SSIM to the baseline's picture, a prompt each (N,)."""
    return np.asarray(score_of(row, "ssim").values)


def interval_text(found: Interval, digits: int) -> str:
    """`0.986 (0.981 to 0.990)`."""
    low, high = (np.nan if end is None else end for end in (found.low, found.high))
    return f"{found.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def choose(out: Path) -> None:
    """Measure each layer's absence by fifths, leave out the cheapest quarter, and draw that on the same prompts."""
    prompts = PromptSet(read_prompt_file(demo_prompt_file()).prompts[:NUM_TO_CHOOSE_ON])
    rows = [row for row in measure([EACH_ALONE], prompts, out).rows if row.kind == "variant"]
    damage = np.stack([row.errors.mean(0) for row in rows if row.errors is not None], axis=1)  # (fifths, layers)
    print(f"denoising error by fifths from clean (rows) and layers, N = {NUM_TO_CHOOSE_ON}\n{np.round(damage, 3)}")
    cheapest = np.argsort(damage, axis=None, kind="stable")[:NUM_LEFT_OUT]
    with tempfile.TemporaryDirectory() as name:
        chosen = write_spec(Path(name) / "chosen.yaml", [divmod(int(cell), len(rows)) for cell in cheapest])
        print(chosen.read_text())


def write_spec(file: Path, cells: Cells) -> Path:
    """A spec that leaves out blocks within fifths of the noise range."""
    lines = ["surgery: v1", "model: demo", "operations:"]
    for fifth, group in itertools.groupby(sorted(cells), key=lambda cell: cell[0]):
        blocks = ", ".join(str(block) for _, block in group)
        window = f"[{fifth / 5}, {(fifth + 1) / 5}]"
        lines.append(f'  - {{skip: "transformer_blocks[{blocks}]", when: {{timesteps: {window}}}}}')
    file.write_text("\n".join(lines) + "\n")
    return file


if __name__ == "__main__":
    main()
