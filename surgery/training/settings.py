"""How a model is trained, whatever it learns: plain data, and the checks of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from surgery.errors import InputError

Precision = Literal["no", "bf16", "fp16"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"]  # diffusers' names
ENDLESS = ("constant", "constant_with_warmup")  # under which a step does not depend on how many there will be


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained.

    A step is one move of the weights, by the gradients of `accumulate` batches in each process. `weights` are what the
    named losses count in their sum (1 where one is not named, and 0 for one that is only looked at). `ema` is the decay
    of the moving average whose weights are measured and kept, None for none. `validate_every`, `checkpoint_every`
    and `warmup` count steps; `patience` is how many measurements in a row may bring nothing better. `seed` decides all
    that is random.
    """

    steps: int
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup: int = 10
    schedule: Schedule = "constant_with_warmup"
    accumulate: int = 1
    clip: float = 1.0
    ema: float | None = None
    precision: Precision = "no"
    gradient_checkpointing: bool = False
    validate_every: int = 50
    patience: int | None = None
    checkpoint_every: int = 50
    trackers: tuple[str, ...] = ()
    seed: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError where a value is none."""
        for name in ("steps", "accumulate", "validate_every", "checkpoint_every"):
            _refuse(getattr(self, name) < 1, name, getattr(self, name), "1 or more")
        _refuse(self.warmup < 0, "warmup", self.warmup, "0 or more")
        _refuse(not 0 < self.learning_rate < float("inf"), "learning_rate", self.learning_rate, "more than 0")
        _refuse(not self.clip > 0, "clip", self.clip, "more than 0")
        _refuse(not self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _refuse(self.ema is not None and not 0 < self.ema < 1, "ema", self.ema, "a number between 0 and 1")
        _refuse(self.patience is not None and self.patience < 1, "patience", self.patience, "1 or more")
        for name, kinds in (("precision", get_args(Precision)), ("schedule", get_args(Schedule))):
            _refuse(getattr(self, name) not in kinds, name, getattr(self, name), ", ".join(kinds))
        for name, weight in self.weights.items():
            _refuse(not 0 <= weight < float("inf"), f"weight of loss {name}", weight, "0 or more")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "weights": dict(self.weights), "trackers": list(self.trackers)}

    def path_to_json(self) -> dict[str, Any]:
        """What the weights at a step depend on: a run that differs in nothing of it may go on where another was."""
        apart = {"trackers", "checkpoint_every", *(("steps",) if self.schedule in ENDLESS else ())}
        return {name: value for name, value in self.to_json().items() if name not in apart}


def _refuse(is_wrong: bool, name: str, value: object, wanted: str) -> None:
    if is_wrong:
        raise InputError(f"the {name.replace('_', ' ')} is {value}; write {wanted}")
