"""What a search is asked for."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from surgery.errors import InputError
from surgery.experiment.engine_choice import EngineChoice
from surgery.experiment.run import RunRequest
from surgery.experiment.search.drawn import DRAWN
from surgery.experiment.search.objective import Damage, read_weights
from surgery.files import key_of_recipe
from surgery.graph.shared_forward import DEFAULT_MEMORY
from surgery.spec.nearest import unknown_text

STORE, PICTURES, SETS = "store", "pictures", "sets"
DENOISING = "denoising-error"
OBJECTIVES = (DENOISING, *DRAWN)
MOST_SETS = 2_000  # of an exhaustive search, where nothing else is said
MOST_WINDOWS = 100


@dataclass(frozen=True, kw_only=True)
class SearchRequest(RunRequest):
    """What to search; see `surgery search --help`. `objective` is a name, or that of the function that is handed in."""

    prompts: tuple[str, ...]
    out: Path
    budget: str
    units: str = "blocks"
    forbid: tuple[str, ...] = ()
    method: str = "greedy"
    windows: int = 1
    objective: str = DENOISING
    weights: str | None = None
    bins: int = 10
    max_sets: int = MOST_SETS
    memory: int = DEFAULT_MEMORY
    engine: EngineChoice = field(default_factory=EngineChoice)


def key_of_request(request: SearchRequest) -> str:
    """The hash of all that a search is asked for: results of another key are not its own."""
    asked = dataclasses.asdict(request)
    for name in ("out", "memory", "max_sets", "engine"):
        del asked[name]
    return key_of_recipe(json.loads(json.dumps(asked, default=str)))


def refuse_unknown(request: SearchRequest, damage: Damage | None) -> None:
    """Raise InputError where words of a request mean nothing, or not together."""
    if damage is None and request.objective not in OBJECTIVES:
        raise InputError(unknown_text("objective", request.objective, OBJECTIVES))
    if damage is not None and request.objective in OBJECTIVES:
        raise InputError(f"the objective {request.objective} is one of the search's own; name the function otherwise")
    if request.weights is not None and (damage is not None or request.objective != DENOISING):
        raise InputError(f"--weights are of the timestep bins of {DENOISING}; {request.objective} has none")
    if request.bins < 1:
        raise InputError(f"{request.bins} timestep bins measure nothing; give 1 or more")
    if not 1 <= request.windows <= MOST_WINDOWS:
        raise InputError(f"{request.windows} is no number of windows; give 1 (none) to {MOST_WINDOWS}")
    read_weights(request.weights, request.bins)
    if request.objective == DENOISING and request.bins % request.windows:
        least = request.windows * -(-request.bins // request.windows)
        raise InputError(
            f"{request.bins} timestep bins do not fall into {request.windows} windows; give --bins {least}, or another "
            "number of windows"
        )
