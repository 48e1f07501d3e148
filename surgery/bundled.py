"""Where the bundled pipeline lies, and what its stock pipeline call wants. Imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).parent / "demo"  # of the package: the files of the pipeline
DEMO_NAME = "demo"
DEMO_CALL: Mapping[str, Any] = {
    "height": 64,
    "width": 64,
    "use_resolution_binning": False,
    "clean_caption": False,
    "num_inference_steps": 20,
    "guidance_scale": 1.5,
}
DEMO_PROMPTS = (
    "red apple",
    "hamburger",
    "dog face",
    "sunflower",
    "smiling face with sunglasses",
    "rocket",
    "guitar",
    "blue heart",
)


def demo_folder() -> Path:
    """The folder of the bundled pipeline, as `DiffusionPipeline.from_pretrained` takes it."""
    return INSIDE / "pipeline"


def demo_anatomy() -> Path:
    """What the bundled transformer is made of, so that no library is needed to know it."""
    return demo_folder() / "anatomy.json"


def demo_specs() -> list[Path]:
    """The specs that `surgery demo` shows."""
    return sorted(_beside_or_within("specs", "specs/demo").glob("*.yaml"))


def demo_prompt_file() -> Path:
    """The prompts that the bundled pipeline is measured with, one a line."""
    return _beside_or_within("prompts.txt", "exports/demo/prompts.txt")


def _beside_or_within(installed: str, in_checkout: str) -> Path:
    """What lies beside the package in a checkout, and within it once installed."""
    inside = INSIDE / installed
    return inside if inside.exists() else INSIDE.parents[1] / in_checkout
