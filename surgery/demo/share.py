"""What the demo ends with, beside its pictures: the page of its evaluation, and a LoKr config with its profile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.demo.training_config import TrainingConfig, make_config, profile_demo
from surgery.outputs import added_files, refuse_in_the_way
from surgery.report.evaluation_read import read_evaluation_folder
from surgery.report.page import make_report, render_page

COMMAND = "demo"
PAGE, CONFIG, PROFILE = "page.html", "lycoris_config.json", "profile.safetensors"


@dataclass(frozen=True)
class SharedFiles:
    """The page, the config, and the profile that the config comes of."""

    page: Path
    config: TrainingConfig
    profile: Path

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"page": str(self.page), "lokr": {**self.config.to_json(), "profile": str(self.profile)}}

    def describe(self) -> str:
        """Two lines: where they are, and what they are."""
        return f"{self.page}: all of it on one page, to be opened in a browser or mailed\n{self.config.describe()}"


def refuse_others(out: Path) -> None:
    """Raise InputError where a file in the folder that the demo did not write has one of these names."""
    refuse_in_the_way(out, (PAGE, CONFIG, PROFILE), COMMAND)


def write_shared(
    out: Path, evaluation: Path, prompts: Sequence[str], *, steps: int, bins: int, seed: int
) -> SharedFiles:
    """Write the files into the demo's folder, in place of those of an earlier run.

    `evaluation` is the folder of the evaluation; the profile is of these prompts, steps and bins.

    Raises:
        InputError: a file of such a name is there that the demo did not write.
    """
    with added_files(out, COMMAND, force=True) as folder:
        measured, missing = read_evaluation_folder(evaluation)
        page = render_page(make_report(measured, evaluation, missing=missing))
        (folder / PAGE).write_text(page, encoding="utf-8")
        profile = profile_demo(prompts, folder / PROFILE, steps=steps, bins=bins, seed=seed)
        text, config = make_config(profile, out / CONFIG)
        (folder / CONFIG).write_text(text, encoding="utf-8")
    return SharedFiles(out / PAGE, config, out / PROFILE)
