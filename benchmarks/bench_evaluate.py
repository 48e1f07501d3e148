"""What measuring costs beside drawing: `surgery evaluate` of one spec against its four rows of pictures alone.

Bare generation loads the pipeline, applies the spec and draws baseline, variant, unchanged graph and reseeded baseline.
The evaluation does so too, and scores them by all that ships with the bundled pipeline.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from pairs import median_seconds

from surgery.anatomy.sources import find_source
from surgery.bundled import DEMO_CALL, DEMO_NAME, demo_prompt_file, demo_specs
from surgery.demo.bundled_judges import bundled_judges
from surgery.experiment.evaluation import EvaluationRequest, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet, read_prompt_file
from surgery.experiment.rows import RESEED
from surgery.graph.apply import apply
from surgery.pipelines.draw import draw_pictures
from surgery.pipelines.pretrained import load_pretrained
from surgery.spec.load import read_spec

SPEC = next(path for path in demo_specs() if path.stem == "skip")


def main() -> None:
    """Print the ratio with the denoising error at 10 timesteps, and with it at one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prompts = PromptSet(read_prompt_file(demo_prompt_file()).prompts[: options.prompts])
    seconds = median_seconds(
        {
            "bare": lambda: draw_bare(prompts),
            "10 timesteps": lambda: measure(prompts, bins=10),
            "1 timestep": lambda: measure(prompts, bins=1),
        },
        rounds=options.rounds,
    )
    for name, taken in seconds.items():
        print(f"{name}: {taken:.1f} s, {taken / seconds['bare']:.3f} of bare generation")


def draw_bare(prompts: PromptSet) -> None:
    """The pictures of four rows."""
    pipe = load_pretrained(find_source(DEMO_NAME), dtype="auto", device="auto")
    pipe.set_progress_bar_config(disable=True)
    unchanged = apply(pipe, read_spec("surgery: v1\noperations: []"))
    for row, seed in ((pipe, 0), (apply(pipe, SPEC), 0), (unchanged, 0), (pipe, RESEED)):
        draw_pictures(row, prompts.prompts, seed=seed, batch_size=8, call=DEMO_CALL)


def measure(prompts: PromptSet, *, bins: int) -> None:
    """The same rows drawn and scored, into a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        judges = JudgeRequest(bundled=bundled_judges())
        run_evaluation(
            EvaluationRequest(specs=(str(SPEC),), prompts=prompts, out=Path(folder), judges=judges, bins=bins)
        )


if __name__ == "__main__":
    main()
