"""Functions of the package's face that join rooms: `surgery.evaluate`, `surgery.search` and `surgery.train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgery.demo.bundled_judges import bundled_judges
from surgery.demo.drawn_emoji import draw_all_emoji
from surgery.experiment.engine_choice import EngineChoice, EngineName
from surgery.experiment.evaluation import MAX_VARIANTS, Evaluation, EvaluationRequest
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet, read_prompt_file
from surgery.experiment.search.conclusion import Search
from surgery.experiment.search.objective import Damage
from surgery.experiment.search.request import DENOISING, MOST_SETS, SearchRequest
from surgery.report.evaluation_folder import KeepImages, evaluate_into
from surgery.report.search_folder import search_into
from surgery.training.dit.read_config import load_config
from surgery.training.dit.train_request import TrainRequest
from surgery.training.dit.training_run import TrainedModel, train_model


def evaluate(
    specs: str | Path | Sequence[str | Path],
    prompts: str | Path | Sequence[str],
    out: str | Path,
    *,
    model: str | None = None,
    profile: str | Path | None = None,
    reference: str | Path | None = None,
    extractors: Sequence[str] = ("auto",),
    clip: str = "auto",
    lpips: str = "auto",
    cmmd: bool = False,
    seed: int = 0,
    batch_size: int = 8,
    bins: int = 10,
    max_variants: int = MAX_VARIANTS,
    engine: EngineName = "serial",
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    call: Mapping[str, Any] | None = None,
    keep_images: KeepImages = "grid",
    force: bool = False,
) -> Evaluation:
    """Measure variants of one model as `surgery evaluate` does: beside the baseline and three controls.

    `specs` are files of specs, sweeps among them, compiled folders, and stock models beside `model`; `prompts` a list
    of prompts, or the file of them that the command takes; what is measured is written to the folder `out`, where an
    interrupted call goes on. The other arguments are the command's options; `call` are arguments of the pipeline's
    call. Each row of the result has its `scores`, one a metric, with an interval over the N prompts, its denoising
    `errors` by prompt and timestep bin (N, bins), and with `keep_images="all"` its `pictures`.

    Raises:
        InputError: a spec, the model, a judge, the prompts or an option is not usable.
        SpecError: a spec has faults; all of them, with their places.
        RefusedError: a spec can't be done on this model.
        WorkerError: the workers of the engine can't do their work.
    """
    folder = Path(out)
    request = EvaluationRequest(
        specs=tuple(map(str, [specs] if isinstance(specs, (str, Path)) else specs)),
        prompts=read_prompt_file(Path(prompts)) if isinstance(prompts, (str, Path)) else PromptSet(tuple(prompts)),
        out=folder,
        judges=JudgeRequest(
            extractors=tuple(dict.fromkeys(extractors)),
            clip=clip,
            lpips=lpips,
            cmmd=cmmd,
            reference=None if reference is None else Path(reference),
            bundled=bundled_judges(),
        ),
        model=model,
        profile=None if profile is None else Path(profile),
        seed=seed,
        batch_size=batch_size,
        bins=bins,
        max_variants=max_variants,
        engine=EngineChoice(engine, workers, threads, address),
        dtype=dtype,
        device=device,
        call=dict(call or {}),
    )
    evaluation, _ = evaluate_into(request, keep_images, force=force)
    return evaluation


def search(
    model: str | Path,
    prompts: str | Path | Sequence[str],
    out: str | Path,
    *,
    budget: str,
    units: str = "blocks",
    forbid: Sequence[str] = (),
    method: str = "greedy",
    windows: int = 1,
    objective: str | Damage = DENOISING,
    name: str | None = None,
    weights: Sequence[float] | None = None,
    bins: int = 10,
    max_sets: int = MOST_SETS,
    seed: int = 0,
    batch_size: int = 8,
    engine: EngineName = "serial",
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    call: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Search:
    """Look for what may be left out of a model within a budget, by measured damage, as `surgery search` does.

    `prompts` are a list, or the file of them that the command takes; what is found is written to the folder `out`,
    where an interrupted call goes on. The other arguments are the command's options.

    `objective` is a name, or a function that is given a `Spec` and prompts and returns a number a prompt, less is
    better: it may do anything, such as heal what the spec leaves and measure that. What it returned is kept under its
    `name` (by default the function's own): give another function another name.

    The result has the `chosen` point and the whole `front`; of each the text of its spec, and its damage on the prompts
    that it was `choosing` by and on those that were `held_out` (N,).

    Raises:
        InputError: a word means nothing, the budget can't be met, there are too few prompts, or the model is not
            usable.
        WorkerError: the workers of the engine can't do their work.
    """
    damage = None if isinstance(objective, str) else objective
    called = objective if isinstance(objective, str) else name or str(getattr(objective, "__qualname__", "function"))
    found = read_prompt_file(Path(prompts)).prompts if isinstance(prompts, (str, Path)) else tuple(prompts)
    request = SearchRequest(
        model=str(model),
        prompts=found,
        out=Path(out),
        budget=budget,
        units=units,
        forbid=tuple(forbid),
        method=method,
        windows=windows,
        objective=called,
        weights=None if weights is None else ",".join(map(str, weights)),
        bins=bins,
        max_sets=max_sets,
        seed=seed,
        batch_size=batch_size,
        engine=EngineChoice(engine, workers, threads, address),
        dtype=dtype,
        device=device,
        call=dict(call or {}),
    )
    return search_into(request, force=force, damage=damage)[0]


def train(
    config: str | Path,
    out: str | Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    work: str | Path | None = None,
    cache: str | Path | None = None,
    log_gates: bool = False,
    force: bool = False,
) -> TrainedModel:
    """Train the reference DiT as a config file says, as `surgery train` does, and write its pipeline into `out`.

    The other arguments are the command's options. An interrupted call goes on. The result has the `folder`, the `facts`
    that its `training.json` has, and how it was `trained`.

    Raises:
        InputError: something can't be read or written; a loss is no number; the folder is of another run.
        SpecError: the config has faults, or does not fit its pictures; with the places.
    """
    request = TrainRequest(
        config=load_config(config).overridden(steps=steps, seed=seed),
        out=Path(out),
        draw_emoji=draw_all_emoji,
        device=device,
        work=None if work is None else Path(work),
        cache=None if cache is None else Path(cache),
        log_gates=log_gates,
        force=force,
    )
    return train_model(request)
