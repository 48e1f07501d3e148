"""The denoising errors of the rows of an evaluation, on the pictures of its prompts or the baseline's."""

from collections.abc import Sequence

import torch
from PIL import Image

from surgery.experiment.bench import Bench
from surgery.experiment.denoising_error import DenoisingErrors, denoising_errors
from surgery.experiment.drawing import telling
from surgery.experiment.engines import SERIAL, Engine
from surgery.experiment.error_store import ErrorStore
from surgery.experiment.prompts import PromptSet
from surgery.experiment.rows import Row
from surgery.metrics.open_picture import open_picture
from surgery.metrics.pictures import PictureSet
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.noised import picture_size
from surgery.progress import show_progress


def measure_errors(
    bench: Bench,
    rows: Sequence[Row],
    baseline: PictureSet,
    prompts: PromptSet,
    store: ErrorStore,
    *,
    count: int,
    bins: int,
    engine: Engine = SERIAL,
) -> dict[str, DenoisingErrors]:
    """The denoising errors of all rows with predictions of their own, on the pictures of the first `count` prompts, or
    the baseline's; those that an earlier run has measured are found again.

    Pictures of other sizes are scaled and cut to the middle.

    Raises:
        InputError, RefusedError: the pipeline encodes no pictures, refuses the call, or packs latents in unknown ways.
    """
    pipe, call, run = bench.run.pipe, bench.run.call, bench.run.request
    height, width = picture_size(pipe, {**call, "height": baseline.size[1], "width": baseline.size[0]})
    predictors = {row.name: row.predictor for row in rows if row.predictor is not None}
    images = open_pictures(prompts, baseline)[:count]
    clean = [
        encode_picture(pipe, image, height, width, torch.Generator().manual_seed(run.seed + number))
        for number, image in enumerate(images)
    ]
    total = bins * len(images) * len(predictors)
    with show_progress(total, unit="prediction", label="denoising error") as meter:
        return denoising_errors(
            predictors,
            pipe,
            torch.cat(clean),
            bench.prompts[:count],
            seeds=[run.seed + number for number in range(len(images))],
            bins=bins,
            batch_size=run.batch_size,
            call=call,
            has_truth=bool(prompts.pictures),
            memory=bench.memory,
            run_units=lambda units: store.run(bench, units, engine, telling(meter)),
        )


def open_pictures(prompts: PromptSet, baseline: PictureSet) -> list[Image.Image]:
    """The pictures that the prompts describe, where there are such, or else those that the baseline has drawn."""
    if prompts.pictures:
        return [open_picture(file).image for file in prompts.pictures]
    return [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in baseline.all_pixels()]
