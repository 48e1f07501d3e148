"""A pipeline that is being trained -> sheets of samples: a row a label, the same noises in every sheet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from surgery.metrics.contact_sheet import contact_sheet
from surgery.pipelines.conditions import as_argument, conditions_of
from surgery.progress import library_bars
from surgery.training.dit.config import SamplingConfig

MAX_LABELS = 12
CELL_PX = 64


@dataclass(frozen=True)
class SampleSheets:
    """Draws the labels `names` into `folder`; `last` is the step that is drawn whatever the interval."""

    pipe: Any
    names: tuple[str, ...]
    sampling: SamplingConfig
    seed: int
    last: int
    folder: Path

    def __call__(self, _model: Any, step: int) -> None:
        """Draw after so many steps, if it is their turn; the pipeline runs the model that is trained."""
        if not self.sampling.every or (step % self.sampling.every and step != self.last):
            return
        rows = [self._draw(name) for name in self.names]
        columns = [str(number) for number in range(self.sampling.columns)]
        sheet = contact_sheet(rows, row_names=self.names, column_names=columns, cell_px=CELL_PX)
        self.folder.mkdir(parents=True, exist_ok=True)
        sheet.save(self.folder / f"step-{step:06}.png")

    def _draw(self, name: str) -> list[Any]:
        count = self.sampling.columns
        generators = [torch.Generator().manual_seed(self.seed + number) for number in range(count)]
        with library_bars():
            drawn: list[Any] = self.pipe(
                **as_argument(self.pipe, conditions_of(self.pipe, [name] * count)),
                generator=generators,
                num_inference_steps=self.sampling.steps,
                guidance_scale=self.sampling.guidance_scale,
            ).images
        return drawn
