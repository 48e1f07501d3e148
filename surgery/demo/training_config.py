"""A short profile of the bundled pipeline -> a LoKr config: what `surgery profile` and `surgery export lokr` make."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from surgery.anatomy.sources import build_on_meta, find_source
from surgery.bundled import DEMO_NAME
from surgery.experiment.profile_units import ProfileSettings
from surgery.experiment.profiling import ProfileRequest, measure_profile
from surgery.export.target_text import TargetRequest
from surgery.export.targets import TARGETS
from surgery.export.weighted_layers import Settings, choose_factors, plan_layers, weigh_layers
from surgery.profiles.layer_profile import Profile

TRAINER = "simpletuner"


@dataclass(frozen=True)
class TrainingConfig:
    """Where a config is, and how many modules and parameters it trains.

    `is_verified` says whether LyCORIS was there to build its network for comparison.
    """

    path: Path
    num_modules: int
    num_parameters: int
    is_verified: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "path": str(self.path),
            "for": TRAINER,
            "modules": self.num_modules,
            "parameters": self.num_parameters,
            "verified": self.is_verified,
        }

    def describe(self) -> str:
        """A line: where it is, and what it trains."""
        checked = "built by LyCORIS and compared" if self.is_verified else "not verified, as LyCORIS is not installed"
        return (
            f"{self.path}: LoKr factors by layer from the profile beside it, {self.num_parameters / 1e3:.0f} k "
            f"parameters in {self.num_modules} modules, {checked}"
        )


def profile_demo(prompts: Sequence[str], path: Path, *, steps: int, bins: int, seed: int) -> Profile:
    """Measure the bundled pipeline's layers over few prompts and steps, into a file."""
    call = {"num_inference_steps": steps}
    request = ProfileRequest(
        model=DEMO_NAME, out=path, prompts=tuple(prompts), call=call, settings=ProfileSettings(bins), seed=seed
    )
    return measure_profile(request)


def make_config(profile: Profile, path: Path) -> tuple[str, TrainingConfig]:
    """The text of the LoKr config of a profile of the bundled pipeline, for a file at `path`, and what it trains."""
    settings, transformer = Settings(), build_on_meta(find_source(DEMO_NAME))
    layers = weigh_layers(profile, transformer, settings)
    factors = choose_factors(layers, settings)
    plan = plan_layers(layers, factors, settings)
    is_verified = find_spec("lycoris") is not None
    verified_on = transformer if is_verified else None
    written = TARGETS[TRAINER].write(TargetRequest(layers, plan, factors, path=str(path), verified_on=verified_on))
    return written.text, TrainingConfig(path, len(plan.asked), plan.num_parameters, is_verified)
