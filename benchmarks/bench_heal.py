"""Steps of healing against a bare PyTorch loop of the same work, on the bundled pipeline. Aim: 0.9 of its speed.

The bare loop has its rows in memory, and does nothing but noise them, run teacher and student, and move the weights.
"""

import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from training_steps import loop_began, seconds_of_step

from surgery.anatomy.sources import find_source
from surgery.bundled import DEMO_CALL, DEMO_PROMPTS, demo_folder
from surgery.pipelines.pretrained import load_pretrained
from surgery.progress import quietly
from surgery.training.call_form import learn_form, noised_rows
from surgery.training.healing_data import Maker
from surgery.training.healing_loss import OUTPUT, HealingLoss
from surgery.training.noised_batches import NoisedBatches
from surgery.training.settings import TrainingSettings
from surgery.training.shelf import Shelf

SIZE, STEPS, ROUNDS, KEPT = 16, 8, 3, (0, 1, 3, 4, 6, 7, 9, 10, 11)


def pruned(model: nn.Module) -> nn.Module:
    """A copy with fewer blocks."""
    student = copy.deepcopy(model).requires_grad_(True).train()
    student.transformer_blocks = nn.ModuleList(student.transformer_blocks[index] for index in KEPT)
    return student


def bare_seconds(pipe: object, form: object, clean: torch.Tensor, texts: dict[int, torch.Tensor]) -> list[float]:
    """When each step of the bare loop began."""
    teacher, student = pipe.transformer, pruned(pipe.transformer)
    optimizer, began = torch.optim.AdamW(student.parameters(), lr=1e-4), []
    for _ in range(STEPS):
        began.append(time.perf_counter())
        rows = torch.randint(len(clean), (SIZE,))
        noised, shares = noised_rows(
            pipe.scheduler, clean[rows], torch.randn(SIZE, *clean.shape[1:]), torch.rand(SIZE, dtype=torch.float64)
        )
        args, kwargs = form.arguments(noised, shares, {number: text[rows] for number, text in texts.items()})
        with torch.no_grad():
            expected = form.prediction_of(teacher(*args, **kwargs))
        F.mse_loss(form.prediction_of(student(*args, **kwargs)), expected).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return began


def healing_seconds(pipe: object, batches: NoisedBatches) -> list[float]:
    """When each step of healing began."""
    student = pruned(pipe.transformer)
    loss = HealingLoss(pipe.transformer, student, (), batches.form, pipe.scheduler, {OUTPUT: 1.0}, None)
    return loop_began(student, batches, loss, TrainingSettings(steps=STEPS, warmup=0))


def main() -> None:
    """Print the ratio of speeds."""
    pipe = load_pretrained(find_source(str(demo_folder())), dtype="float32", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.requires_grad_(False)
    call = {**DEMO_CALL, "num_inference_steps": 2}
    form = learn_form(pipe, call)
    with tempfile.TemporaryDirectory() as folder, quietly():
        maker = Maker(pipe, form, Shelf(Path(folder)), {}, call, SIZE, 0)
        latents, texts = maker.trajectories(DEMO_PROMPTS, 4, ""), maker.texts(DEMO_PROMPTS)
        of_rows = [*range(len(DEMO_PROMPTS))] * 4
        batches = NoisedBatches(form, pipe.scheduler, latents, texts, of_rows, len(DEMO_PROMPTS), 0.1, SIZE, 0)
        clean = latents.read(range(len(latents)))["latents"]
        in_memory = {int(number): rows for number, rows in texts.read(of_rows).items()}
        ratios = []
        for _ in range(ROUNDS):
            bare = seconds_of_step(bare_seconds(pipe, form, clean, in_memory))
            ratios.append(bare / seconds_of_step(healing_seconds(pipe, batches)))
    print(f"healing / bare loop: {statistics.median(ratios):.3f} of its steps a second (median of {ROUNDS} rounds)")


if __name__ == "__main__":
    main()
