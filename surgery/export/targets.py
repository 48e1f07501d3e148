"""All trainers that a profile is exported for, as data: `--help`, refused options and messages follow from TARGETS.

A trainer is added here and nowhere else, with the function that writes its text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from surgery.errors import InputError
from surgery.export.authors_targets import to_lycoris_toml, to_musubi, to_reg_dims
from surgery.export.diffusers_targets import to_ai_toolkit, to_diffusers, to_onetrainer, to_peft, to_simpletuner_peft
from surgery.export.simpletuner import to_simpletuner
from surgery.export.target_text import LycorisText, TargetRequest, TargetText

Granularity = Literal["factor per layer", "rank per layer", "on or off per layer"]
ON_OFF: Granularity = "on or off per layer"
FACTORS = ("max_factor", "budget", "multiply", "powers_of_two")  # options of LoKr
FLUX, SD3 = "FluxTransformer2DModel", "SD3Transformer2DModel"


@dataclass(frozen=True)
class Target:
    """A trainer: how finely it tells layers apart, and which options of the command it reads that not all do.

    `classes` are those of diffusers that it is known to train, where it takes the names of the models' authors; none:
    it takes any. `title` is what messages call it, where that is not its name.
    """

    name: str
    granularity: Granularity
    reads: tuple[str, ...]
    writer: Callable[[TargetRequest], TargetText | LycorisText]
    classes: tuple[str, ...] = ()
    title: str = ""

    def write(self, request: TargetRequest) -> TargetText | LycorisText:
        """Its text.

        Raises:
            InputError: it does not train models of this class, or none of the layers would be trained.
        """
        class_name = request.layers.class_name
        if self.classes and class_name not in self.classes:
            raise InputError(
                f"{self.title or self.name} does not train {class_name} by names that are known here; "
                f"it is known for {', '.join(self.classes)}"
            )
        return self.writer(request)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("simpletuner", "factor per layer", (*FACTORS, "layout", "no_verify"), to_simpletuner),
        Target("peft", "rank per layer", ("max_rank",), to_peft),
        Target(
            *("sd-scripts", "factor per layer", FACTORS, to_lycoris_toml),
            classes=(FLUX, SD3, "Lumina2Transformer2DModel"),
        ),
        Target(
            *("sd-scripts-reg-dims", "rank per layer", ("max_rank",), to_reg_dims),
            classes=(FLUX,),
            title="network_reg_dims of sd-scripts",
        ),
        Target("simpletuner-peft", ON_OFF, ("threshold",), to_simpletuner_peft),
        Target("diffusers", ON_OFF, ("threshold",), to_diffusers),
        Target("ai-toolkit", ON_OFF, ("threshold", "max_rank"), to_ai_toolkit),
        Target("onetrainer", ON_OFF, ("threshold",), to_onetrainer),
        Target(
            *("musubi-tuner", ON_OFF, ("threshold",), to_musubi),
            classes=(
                *(FLUX, "WanTransformer3DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel"),
                "HunyuanVideoTransformer3DModel",
            ),
        ),
    )
}


def unread_options(target: Target) -> set[str]:
    """The options that some targets read and this one does not."""
    return {option for other in TARGETS.values() for option in other.reads} - set(target.reads)
