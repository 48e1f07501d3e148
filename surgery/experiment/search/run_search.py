"""A model, prompts and a budget -> the best sets of edits within it, and the front up to it."""

from collections.abc import Callable

from surgery.anatomy.sources import anatomy_of_source
from surgery.errors import InputError
from surgery.experiment.bench import Bench
from surgery.experiment.engine_choice import open_engine
from surgery.experiment.engines import SERIAL
from surgery.experiment.run import open_run, source_with_pipeline
from surgery.experiment.search.budget import Gauge, amount_text, read_budget
from surgery.experiment.search.conclusion import Search, conclude
from surgery.experiment.search.edits import Candidate, edits_text
from surgery.experiment.search.front import front_of
from surgery.experiment.search.halves import split_prompts
from surgery.experiment.search.latency import open_gauge
from surgery.experiment.search.measuring import Measuring
from surgery.experiment.search.methods import read_method, search_by_beam
from surgery.experiment.search.objective import Damage, DenoisingObjective, Objective
from surgery.experiment.search.open_objective import open_objective
from surgery.experiment.search.price import price_exhaustive
from surgery.experiment.search.problem import MeasuredSets, Sets
from surgery.experiment.search.request import SETS, STORE, SearchRequest, refuse_unknown
from surgery.experiment.search.store import Store
from surgery.experiment.search.units import edits_of
from surgery.pipelines.learn import learn_unless_known
from surgery.pipelines.pretrained import check_device
from surgery.pipelines.sampler_clock import shares_of_steps
from surgery.plan.cost import course_of
from surgery.progress import say_stage


def run_search(request: SearchRequest, damage: Damage | None = None) -> Search:
    """Search; what was measured lies in the target, and a later run goes on from it.

    `damage` is a function of a spec and prompts that gives a number a prompt, less is better, in place of an objective
    with a name.

    Raises:
        InputError: a word of the request means nothing, the budget can't be met, there are too few prompts, or the
            model is not usable.
        WorkerError: the workers of the engine can't do their work.
    """
    width, budget = read_method(request.method), read_budget(request.budget)
    refuse_unknown(request, damage)
    prompts, choosing, held_out = split_prompts(request.prompts)
    device = check_device(request.device)
    source = source_with_pipeline(str(request.model), "to measure what layers do")
    if source.has_second:
        raise InputError(f"{source.name} has two transformers; a search takes the layers of pipelines with one")
    anatomy = anatomy_of_source(source)
    edits = edits_of(anatomy, request.units, request.forbid, request.windows)
    if budget.kind != "latency":  # what can be known before anything is loaded
        gauge = Gauge(budget.kind, anatomy, course_of(None))
        Sets(source.name, anatomy, edits, request.windows, budget, gauge, _accept).refuse_unmet()
    with open_engine(request.engine, device) as engine:
        run = open_run(source, request, prompts)
        learn_unless_known(run.pipe, run.call)
        bench = Bench(run, (), prompts, request.memory)
        store = Store(request.out / STORE / SETS)
        recipe = {**run.recipe(), "prompts": list(prompts)}
        shares = shares_of_steps(run.pipe, run.call)
        objective = open_objective(request, damage, bench, engine, recipe, num_steps=len(shares))
        gauge = open_gauge(budget, anatomy, bench, store, recipe, shares)
        sets = Sets(source.name, anatomy, edits, request.windows, budget, gauge, bench.variants.refuse_unfit_plan)
        sets.refuse_unmet()
        timesteps = _num_timesteps(objective, len(shares))
        num_forwards = timesteps * len(choosing)
        candidates = None if width else price_exhaustive(sets, objective, request.max_sets, num_forwards)
        used = SERIAL if damage is not None else engine
        at_once = request.batch_size if damage is None else len(prompts)  # a function is asked of a set once a half
        measuring = Measuring(objective, bench, used, store, recipe, at_once)
        measured = MeasuredSets(sets, measuring, choosing, tell_front())
        if candidates is None:
            search_by_beam(measured, width or 1)
        else:
            measured.measure(candidates)
        return conclude(measured, held_out, request, recipe, num_timesteps=timesteps)


def _accept(planned: object) -> None:
    """Every plan, where no model is at hand to refuse it."""


def tell_front() -> Callable[[MeasuredSets], None]:
    """Say each point of the front as it is found: what it leaves, its damage so far, what it does."""
    told: set[Candidate] = set()

    def tell(measured: MeasuredSets) -> None:
        for candidate in front_of(measured):
            if candidate and candidate not in told:
                amount, what = measured.sets.amount(candidate), edits_text(candidate, measured.sets.num_windows)
                kind = measured.sets.budget.kind
                say_stage(f"{amount_text(amount)} {kind}: damage {measured.mean(candidate):.4f}: {what}")
                told.add(candidate)

    return tell


def _num_timesteps(objective: Objective, num_steps: int) -> int:
    """At how many timesteps a prompt is measured."""
    if isinstance(objective, DenoisingObjective):
        return sum(weight > 0 for weight in objective.weights)
    return num_steps
