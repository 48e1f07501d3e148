"""A measure of a DiT with frequency gates -> the same measure, and how far its gates are open, as numbers of the run.

So they are kept in the state, go to the trackers, and a run that was stopped has those of before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surgery.dit.gates import read_gates
from surgery.training.loop import Measured, Validate

GATE = "gate"  # what the names of these numbers begin with


def middles_of(bins: int) -> list[float]:
    """The middles of so many equal parts of the noise range, as shares of it."""
    return [(number + 0.5) / bins for number in range(bins)]


@dataclass(frozen=True)
class LoggedGates:
    """Measures by `validate`, and reads out the gates at the middles of `bins`."""

    validate: Validate
    bins: int
    num_train_timesteps: int

    def __call__(self, model: Any) -> dict[str, float]:
        """The numbers of the measure, and one a block and bin: the share of the low adapter."""
        low = read_gates(model, [share * self.num_train_timesteps for share in middles_of(self.bins)]).tolist()
        gates = {_name(block, bin_): gate for block, row in enumerate(low) for bin_, gate in enumerate(row)}
        return {**self.validate(model), **gates}


def without_gates(values: Mapping[str, float]) -> dict[str, float]:
    """The other numbers of a measure."""
    return {name: value for name, value in values.items() if not name.startswith(f"{GATE} ")}


def course_of_gates(history: Sequence[Measured], blocks: int, bins: int) -> list[dict[str, Any]]:
    """The gates after so many steps, [block][bin], of those measures that have them."""
    return [
        {
            "step": one.step,
            "low": [[one.values[_name(block, bin_)] for bin_ in range(bins)] for block in range(blocks)],
        }
        for one in history
        if _name(0, 0) in one.values
    ]


def _name(block: int, bin_: int) -> str:
    return f"{GATE} of block {block} in bin {bin_}"
