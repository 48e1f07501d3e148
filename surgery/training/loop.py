"""The loop: a model, batches by number, a loss and a measure -> the weights that measured best.

It knows neither what is learnt nor from whom. A run that was killed goes on from its last state, and ends as it would
have ended, to the bit on a CPU: batches are a function of their number, what torch draws is seeded by it, and all else
is in the state.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from surgery.errors import InputError
from surgery.progress import Meter, say_stage, show_progress
from surgery.training.settings import TrainingSettings
from surgery.training.state import NAME, read_state, write_state

Batch = TypeVar("Batch")
Batches = Callable[[int, torch.device], Batch]  # the batch of a number, on a device; the same whenever it is asked for
LossOf = Callable[[Any, Batch], Mapping[str, torch.Tensor]]  # model x batch -> scalars by their names
Validate = Callable[[Any], Mapping[str, float]]  # model -> numbers; ERROR is the one that is to become small
Sampler = Callable[[Any, int], None]  # keeps what a model draws after so many steps
ERROR = "error"
WHOLE = ("loss", "gradient", "held-out error")  # numbers that are of no one loss
SMOOTHING = 0.9  # of the loss that is shown


@dataclass(frozen=True)
class Measured:
    """What was measured after so many steps."""

    step: int
    values: Mapping[str, float]

    @property
    def error(self) -> float:
        """The number that is to become small."""
        return self.values[ERROR]


@dataclass(frozen=True)
class Trained:
    """How a run went: after how many steps it ended, what was measured on the way, and the best of it."""

    steps: int
    history: tuple[Measured, ...]
    best: Measured


@dataclass
class _Course:
    """Where a run is. `best_weights` are those of the trained parameters, by name, on the CPU."""

    step: int = 0
    history: list[Measured] = field(default_factory=list)
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def best(self) -> Measured:
        return min(self.history, key=lambda measured: (measured.error, measured.step))

    def is_stale(self, patience: int | None) -> bool:
        """Whether the last `patience` measurements brought nothing better."""
        since = sum(measured.step > self.best.step for measured in self.history)
        return patience is not None and since >= patience


def train_(
    model: nn.Module,
    *,
    batches: "Batches[Batch]",
    loss_of: "LossOf[Batch]",
    validate: Validate,
    settings: TrainingSettings,
    accelerator: Any,
    folder: Path,
    samples: Sampler | None = None,
    label: str = "training",
) -> Trained:
    """Train the parameters of a model that take gradients, in place, and leave it with the weights that measured best.

    It is trained in the mode that it is in: in evaluation mode nothing of it is dropped by chance (DiT drops labels).
    The state lies in `folder`, and a run goes on from it. Process p of P takes, for step s, the batches numbered
    (s x accumulate + micro-step) x P + p. `validate` runs in the main process, before the first step, at intervals and
    after the last.

    Raises:
        InputError: nothing is to be trained; a loss or a measure is no finite number; the state can't be written, or is
            of another model.
    """
    run = _Run(model, settings, accelerator, folder)
    with torch.random.fork_rng(devices=_devices_of(accelerator)), _checkpointed(model, settings):
        course = run.resume()
        if not course.history:
            say_stage(f"{label}: measuring the model as it is")
            run.measure(course, validate, samples)
        with show_progress(settings.steps, unit="step", label=label, done=course.step) as meter:
            _walk(run, course, batches, loss_of, validate, samples, meter)
    run.load_(course.best_weights)
    accelerator.unwrap_model(run.model, keep_fp32_wrapper=False)
    return Trained(course.step, tuple(course.history), course.best)


def _walk(
    run: "_Run",
    course: _Course,
    batches: "Batches[Batch]",
    loss_of: "LossOf[Batch]",
    validate: Validate,
    samples: Sampler | None,
    meter: Meter,
) -> None:
    """Take the steps that are left."""
    settings, shown = run.settings, math.nan
    while course.step < settings.steps and not course.is_stale(settings.patience):
        values = run.take_step(course.step, batches, loss_of)
        course.step += 1
        shown = values["loss"] if math.isnan(shown) else SMOOTHING * shown + (1 - SMOOTHING) * values["loss"]
        is_last = course.step == settings.steps
        if is_last or course.step % settings.validate_every == 0:
            meter.note(f"measuring after {course.step:,} steps")
            run.measure(course, validate, samples)
        if is_last or course.step % settings.checkpoint_every == 0 or course.is_stale(settings.patience):
            run.keep(course)
        meter.note(f"loss {shown:.4g}, held-out error {course.history[-1].error:.4g}, best {course.best.error:.4g}")
        meter.advance(1)


class _Run:
    """What moves in a run: the model, its optimiser, the schedule of its rate, the average of its weights."""

    def __init__(self, model: nn.Module, settings: TrainingSettings, accelerator: Any, folder: Path) -> None:
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self.settings, self.accelerator, self.folder = settings, accelerator, folder
        self.trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        if not self.trained:
            raise InputError(f"nothing of {type(model).__name__} is to be trained; choose other parts of it")
        values = list(self.trained.values())
        optimizer = torch.optim.AdamW(values, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.rates = get_scheduler(
            settings.schedule, optimizer, num_warmup_steps=settings.warmup, num_training_steps=settings.steps
        )
        self.average = None if settings.ema is None else EMAModel(values, decay=settings.ema)
        self.own = model
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        if self.average is not None:
            self.average.to(accelerator.device)

    def take_step(self, step: int, batches: "Batches[Batch]", loss_of: "LossOf[Batch]") -> dict[str, float]:
        """Move the weights once; the losses, by their names, and their weighted sum as `loss`."""
        count, processes = self.settings.accumulate, self.accelerator.num_processes
        sums: dict[str, float] = {}
        for micro in range(count):
            number = (step * count + micro) * processes + self.accelerator.process_index
            torch.manual_seed(seed_of(self.settings.seed, number))  # of dropout, if the model has any
            batch = batches(number, self.accelerator.device)
            with nullcontext() if micro == count - 1 else self.accelerator.no_sync(self.model):
                losses = dict(loss_of(self.model, batch))
                total = sum((self.settings.weights.get(name, 1.0) * value for name, value in losses.items()), 0.0)
                assert isinstance(total, torch.Tensor), "there is a loss"
                for name, value in {**losses, "loss": total}.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) / count
                self._refuse_no_number(sums, step)
                self.accelerator.backward(total / count)
        self._move(sums, step)
        self.accelerator.log({**sums, "learning_rate": self.rates.get_last_lr()[0]}, step=step + 1)
        return sums

    def _move(self, sums: dict[str, float], step: int) -> None:
        norm = self.accelerator.clip_grad_norm_(list(self.trained.values()), self.settings.clip)
        if self.settings.precision != "fp16":  # whose scaler leaves such a step out
            self._refuse_no_number({WHOLE[1]: float(norm)}, step)
        sums["gradient_norm"] = float(norm)
        self.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.rates.step()
            if self.average is not None:
                self.average.step(list(self.trained.values()))
        self.optimizer.zero_grad(set_to_none=True)

    def _refuse_no_number(self, values: Mapping[str, float], step: int) -> None:
        wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
        if wrong is None:
            return
        what = wrong if wrong in WHOLE else f"loss {wrong}"
        state = read_state(self.folder)
        kept = "no state was kept before it" if state is None else _kept_text(self.folder, state["step"])
        raise InputError(
            f"the {what} is {values[wrong]} at step {step + 1}: training has stopped, and {kept}; write a lower "
            "learning rate, or another precision"
        )

    def measure(self, course: _Course, validate: Validate, samples: Sampler | None) -> None:
        """Measure the weights as they are kept: averaged, where there is an average."""
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [None]
        with self._averaged():
            if self.accelerator.is_main_process:
                with _evaluating(self.own):
                    found = [dict(validate(self.own))]
                    if samples is not None:
                        samples(self.own, course.step)
            broadcast_object_list(found)
            measured = Measured(course.step, found[0])
            self._refuse_no_number({WHOLE[2]: measured.error}, course.step - 1)
            course.history.append(measured)
            if course.best is measured:
                course.best_weights = {name: value.detach().cpu().clone() for name, value in self.trained.items()}
        self.accelerator.log({f"held_out/{name}": value for name, value in measured.values.items()}, step=course.step)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        values = list(self.trained.values())
        if self.average is None:
            yield
            return
        self.average.store(values)
        self.average.copy_to(values)
        try:
            yield
        finally:
            self.average.restore(values)

    def keep(self, course: _Course) -> None:
        """Write all that the rest of the run depends on."""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "step": course.step,
                "model": {name: value.detach() for name, value in self.trained.items()},
                "optimizer": self.optimizer.state_dict(),
                "rates": self.rates.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "history": [(measured.step, dict(measured.values)) for measured in course.history],
                "best": course.best_weights,
            }
            write_state(self.folder, state)
        self.accelerator.wait_for_everyone()

    def resume(self) -> _Course:
        """Where the last state of the run is; its beginning without one.

        Raises:
            InputError: the state is damaged, or of other parameters.
        """
        state = read_state(self.folder)
        if state is None:
            return _Course()
        shapes = {name: value.shape for name, value in self.trained.items()}
        if {name: value.shape for name, value in state["model"].items()} != shapes:
            raise InputError(f"{self.folder / NAME} is the state of other parameters; remove it to begin again")
        self.load_(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rates.load_state_dict(state["rates"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        history = [Measured(step, values) for step, values in state["history"]]
        return _Course(state["step"], history, state["best"])

    def load_(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give the trained parameters these values."""
        with torch.no_grad():
            for name, value in self.trained.items():
                value.copy_(weights[name])


def _kept_text(folder: Path, step: int) -> str:
    return f"the last good state, of step {step}, is kept in {folder / NAME}"


def seed_of(seed: int, number: int) -> int:
    """The seed of what is random in one batch."""
    return (seed * 1_000_003 + number) % 2**63


def _devices_of(accelerator: Any) -> list[torch.device]:
    return [accelerator.device] if accelerator.device.type == "cuda" else []


@contextmanager
def _checkpointed(model: nn.Module, settings: TrainingSettings) -> Iterator[None]:
    """Within it the blocks of a model are checkpointed, where that is asked for.

    Raises:
        InputError: its class checkpoints no blocks.
    """
    if settings.gradient_checkpointing:
        try:
            model.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' models have it
        except (AttributeError, ValueError) as error:
            raise InputError(f"{type(model).__name__} has no gradient checkpointing ({error}); leave it out") from None
    try:
        yield
    finally:
        if settings.gradient_checkpointing:
            model.disable_gradient_checkpointing()  # type: ignore[operator]  # the same


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
