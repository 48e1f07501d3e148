"""All targets, as data: `--help`, refused options and messages follow from TARGETS.

A target is added here, with the function that writes its text; what a trainer calls things is in `trainer_table`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from surgery.errors import InputError
from surgery.export import trainer_table
from surgery.export.authors_targets import to_block_indices, to_lycoris_toml, to_musubi, to_reg_dims, to_reg_lrs
from surgery.export.diffusers_targets import (
    to_ai_toolkit,
    to_ai_toolkit_full,
    to_diffusers,
    to_onetrainer,
    to_peft,
    to_simpletuner_blocks,
    to_simpletuner_peft,
    to_simpletuner_tread,
)
from surgery.export.simpletuner import to_lycoris, to_simpletuner
from surgery.export.target_text import LycorisText, TargetRequest, TargetText
from surgery.export.trainers import Family, Trainer

Granularity = Literal[
    "factor per layer", "rank per layer", "learning rate per layer", "on or off per layer", "tokens per layer"
]
ON_OFF: Granularity = "on or off per layer"
FACTORS = ("max_factor", "budget", "multiply", "powers_of_two")  # options of LoKr
LYCORIS = (*FACTORS, "layout", "no_verify")
SWITCHED = ("threshold", "max_rank")


@dataclass(frozen=True)
class Target:
    """What is written for a trainer: how finely it tells layers apart, and which options of the command it reads that
    not all do.

    `trainer` has the classes that it knows, and their names; none: any. `needs` is what a class must have there.
    `title` is what messages call the target, where that is not its name.
    """

    name: str
    granularity: Granularity
    reads: tuple[str, ...]
    writer: Callable[[TargetRequest], TargetText | LycorisText]
    trainer: Trainer | None = None
    needs: str = ""
    title: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of diffusers that it knows; none: it takes any."""
        return () if self.trainer is None else tuple(self.trainer.known(self.needs))

    def find(self, class_name: str) -> Family | None:
        """What it knows of a class: of stacks only those that it counts, where that is what it needs."""
        family = None if self.trainer is None else self.trainer.find(class_name, self.needs)
        if family is None or self.needs not in trainer_table.COUNTED:
            return family
        return replace(family, stacks={name: family.stacks[name] for name in family.counted})

    def write(self, request: TargetRequest) -> TargetText | LycorisText:
        """Its text.

        Raises:
            InputError: it does not train models of this class, or none of the layers would be trained.
        """
        if self.trainer is None or self.trainer.families is None:
            return self.writer(request)
        family = self.find(request.layers.class_name)
        if family is None:
            raise InputError(self._unknown_class(request.layers.class_name))
        left_out = [stack for stack in request.layers.stacks if stack not in family.stacks]
        narrowed = request.within(family)
        if not narrowed.layers.stacks:
            raise InputError(
                f"{self.title or self.name} does not train {', '.join(left_out)} of {request.layers.class_name}; "
                f"it trains {', '.join(family.stacks)}"
            )
        written = self.writer(narrowed)
        if not left_out or isinstance(written, LycorisText):
            return written
        return replace(written, lost=f"{written.lost}; {', '.join(left_out)}: not trained by {self.trainer.title}")

    def _unknown_class(self, class_name: str) -> str:
        others = [other.name for other in TARGETS.values() if other.trainer is None or other.find(class_name)]
        return (
            f"{self.title or self.name} does not train {class_name} by names that are known here; "
            f"it is known for {', '.join(self.classes)}; {class_name} can be exported --for {', '.join(others)}"
        )


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("simpletuner", "factor per layer", LYCORIS, to_simpletuner, trainer_table.SIMPLETUNER),
        Target("lycoris", "factor per layer", LYCORIS, to_lycoris, trainer_table.LYCORIS),
        Target("peft", "rank per layer", ("max_rank",), to_peft, trainer_table.PEFT),
        Target("sd-scripts", "factor per layer", FACTORS, to_lycoris_toml, trainer_table.SD_SCRIPTS, "lycoris"),
        Target(
            *("sd-scripts-reg-dims", "rank per layer", ("max_rank", "learning_rate"), to_reg_dims),
            *(trainer_table.SD_SCRIPTS, "reg_dims", "network_reg_dims of sd-scripts"),
        ),
        Target(
            *("sd-scripts-reg-lrs", "learning rate per layer", ("max_rank", "learning_rate"), to_reg_lrs),
            *(trainer_table.SD_SCRIPTS, "reg_dims", "network_reg_lrs of sd-scripts"),
        ),
        Target(
            *("sd-scripts-blocks", ON_OFF, SWITCHED, to_block_indices),
            *(trainer_table.SD_SCRIPTS, "block_indices", "block indices of sd-scripts"),
        ),
        Target("simpletuner-peft", ON_OFF, SWITCHED, to_simpletuner_peft, trainer_table.SIMPLETUNER),
        Target(
            *("simpletuner-blocks", ON_OFF, SWITCHED, to_simpletuner_blocks),
            *(trainer_table.SIMPLETUNER, "blocks", "blocks_to_train of SimpleTuner"),
        ),
        Target(
            *("simpletuner-tread", "tokens per layer", ("threshold",), to_simpletuner_tread),
            *(trainer_table.SIMPLETUNER, "routes", "TREAD of SimpleTuner"),
        ),
        Target("diffusers", ON_OFF, SWITCHED, to_diffusers, trainer_table.DIFFUSERS),
        Target("ai-toolkit", ON_OFF, SWITCHED, to_ai_toolkit, trainer_table.AI_TOOLKIT),
        Target("ai-toolkit-full", ON_OFF, SWITCHED, to_ai_toolkit_full, trainer_table.AI_TOOLKIT),
        Target("onetrainer", ON_OFF, SWITCHED, to_onetrainer, trainer_table.ONETRAINER),
        Target("musubi-tuner", ON_OFF, SWITCHED, to_musubi, trainer_table.MUSUBI),
    )
}


def unread_options(target: Target) -> set[str]:
    """The options that some targets read and this one does not."""
    return {option for other in TARGETS.values() for option in other.reads} - set(target.reads)
