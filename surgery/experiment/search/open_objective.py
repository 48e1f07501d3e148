"""A request and an open pipeline -> the objective, with what the model as it is draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from surgery.experiment.bench import Bench
from surgery.experiment.drawing import draw, draw_units, telling
from surgery.experiment.engines import Engine
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.rows import baseline_row
from surgery.experiment.search.drawn import DRAWN, DrawnObjective, DrawnUnit, What
from surgery.experiment.search.halves import Half
from surgery.experiment.search.objective import Damage, DenoisingObjective, HandedIn, Objective, read_weights
from surgery.experiment.search.request import DENOISING, PICTURES, STORE, SearchRequest
from surgery.metrics.pictures import PictureSet
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.noised import picture_size
from surgery.progress import show_progress


def open_objective(
    request: SearchRequest,
    damage: Damage | None,
    bench: Bench,
    engine: Engine,
    recipe: Mapping[str, Any],
    *,
    num_steps: int,
) -> Objective:
    """The objective of a request, with what the model as it is draws."""
    if damage is not None:
        return HandedIn(request.objective, damage, bench.prompts)
    if request.objective == DENOISING:
        clean = clean_latents(bench, draw_baseline(bench, request, recipe, engine))
        return DenoisingObjective(clean, bench.prompts, request.seed, read_weights(request.weights, request.bins))
    what, compare = DRAWN[request.objective]
    baseline = draw_unedited(bench, request.batch_size, what, engine)
    return DrawnObjective(request.objective, what, compare, baseline, num_steps)


def batches_of(num_prompts: int, size: int) -> list[range]:
    """The batches of both halves; none reaches over both, so that a set is drawn as the model as it is was."""
    middle = -(-num_prompts // 2)
    halves = Half("choosing", 0, middle), Half("held out", middle, num_prompts)
    return [numbers for half in halves for numbers in half.batches(size)]


def draw_unedited(bench: Bench, batch_size: int, what: What, engine: Engine) -> NDArray[Any]:
    """What the model as it is draws of all prompts (N, ...)."""
    units = [DrawnUnit(None, what, numbers) for numbers in batches_of(len(bench.prompts), batch_size)]
    with show_progress(len(bench.prompts), unit="drawing", label="the model as it is") as meter:
        found = dict(engine.run(bench, units, telling(meter)))
    return np.concatenate([found[number] for number in range(len(units))])


def draw_baseline(bench: Bench, request: SearchRequest, recipe: Mapping[str, Any], engine: Engine) -> PictureSet:
    """The pictures of the model as it is; those that an earlier run has drawn are found again."""
    row = baseline_row(bench.run.pipe, request.seed)
    drawing = Bench(bench.run, (row,), bench.prompts, request.memory)
    place = PictureStore(request.out / STORE / PICTURES).open({**recipe, **row.recipe()})
    num = len(bench.prompts)
    missing = [unit for unit in draw_units([row], num, bench.run) if not place.has(unit.numbers)]
    for unit, images in draw(drawing, missing, done=num - sum(unit.size for unit in missing), engine=engine):
        place.keep(unit.numbers, images)
    return place.read(num)


def clean_latents(bench: Bench, pictures: PictureSet) -> torch.Tensor:
    """Pictures encoded (N, ...), as `evaluate` does."""
    pipe, seed = bench.run.pipe, bench.run.request.seed
    height, width = picture_size(pipe, {**bench.run.call, "height": pictures.size[1], "width": pictures.size[0]})
    images = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in pictures.all_pixels()]
    return torch.cat(
        [
            encode_picture(pipe, image, height, width, torch.Generator().manual_seed(seed + number))
            for number, image in enumerate(images)
        ]
    )
