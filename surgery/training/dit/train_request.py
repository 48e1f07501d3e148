"""What is asked of training: a config, a folder; where the run lies, and what tells two runs apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.files import expand_home, key_of_recipe
from surgery.training.dit.config import SIDES, TrainConfig
from surgery.training.dit.config_sections import MODEL_DEFAULTS
from surgery.training.dit.pictures import DrawEmoji, Picture

GATED = "freq_gate"  # the conditioning that has gates


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """`draw_emoji` hands over the emoji, where the config asks for them; the rest are the command's options.

    With `log_gates` the gates are read out at every measure; raises SpecError where the config's model has none.
    """

    config: TrainConfig
    out: Path
    draw_emoji: DrawEmoji
    device: str = "auto"
    work: Path | None = None
    cache: Path | None = None
    force: bool = False
    log_gates: bool = False

    def __post_init__(self) -> None:
        """Refuse to log gates of a model that has none, before anything is read."""
        conditioning = self.config.model.get("conditioning", MODEL_DEFAULTS["conditioning"])
        if self.log_gates and conditioning != GATED:
            raise self.config.fault(
                "model.conditioning",
                f"a DiT of conditioning {conditioning} has no gates to log; write {GATED}, or leave --log-gates out",
            )

    @property
    def work_folder(self) -> Path:
        """Where the state, the samples and the logs of the run lie: beside the target, unless it is said."""
        return self.out.with_name(f"{self.out.name}.training") if self.work is None else self.work

    @property
    def cache_folder(self) -> Path:
        """Where encoded pictures are kept."""
        return self.work_folder / "data" if self.cache is None else self.cache


def refuse_among_pictures(request: TrainRequest) -> None:
    """Raise InputError where a run would write among the pictures that it learns from."""
    config = request.config
    if config.data.pictures in SIDES:
        return
    pictures = (config.folder / expand_home(config.data.pictures)).resolve()
    for folder in (request.out, request.work_folder, request.cache_folder):
        if folder.resolve().is_relative_to(pictures):
            raise InputError(f"{folder} lies among the pictures of {pictures}; give a folder elsewhere")


def key_of(config: TrainConfig) -> str:
    """What tells a run from another, as far as the config says it: a state of one is none of the other."""
    return key_of_recipe(
        {
            "model": dict(config.model),
            "data": asdict(config.data),
            "parts": [config.autoencoder, config.text_encoder],
            "batches": [config.batch_size, config.label_dropout],
            "settings": config.settings.path_to_json(),
            "validation": asdict(config.validation),
        }
    )


def key_of_pictures(pictures: Sequence[Picture], parts: Sequence[str]) -> str:
    """The same of the pictures, and of the `parts` that encode them, by the hashes of these."""
    recipe: dict[str, Any] = {"pictures": [[one.key, one.label] for one in pictures], "parts": list(parts)}
    return key_of_recipe(recipe)
