"""Contributions of layers that come with the package, by the name of a preset: exports that need no profile.

The folder of a preset has them, and the config of the model that they were measured on.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from surgery.errors import InputError
from surgery.export.contributions import Contributions

FOLDER = Path(__file__).parent / "presets"


def shipped_model(preset: str) -> str:
    """The folder of a preset, as a model of which there is nothing but `config.json`."""
    return str(FOLDER / preset)


def shipped_contributions(preset: str, class_name: str, lengths: Mapping[str, int]) -> tuple[Contributions, ...]:
    """The contributions of a preset for a model of a class, whose numbers of blocks are `lengths` by stack.

    Raises:
        InputError: they were measured on another class, or on as many blocks as the model does not have.
    """
    found = json.loads((FOLDER / preset / "contributions.json").read_text())
    contributions = tuple(
        Contributions(stack, tuple(part["shares"]), tuple(part["weights"].items()), part["num_measured"])
        for stack, part in found["stacks"].items()
    )
    measured = ", ".join(f"{len(part.shares)} {part.stack}" for part in contributions)
    if class_name != found["class_name"] or any(lengths.get(part.stack) != len(part.shares) for part in contributions):
        has = ", ".join(f"{length} {stack}" for stack, length in lengths.items())
        raise InputError(
            f"the contributions of the preset {preset} are those of {found['title']}, a {found['class_name']} with "
            f"{measured}; this is a {class_name} with {has}: give a profile of it"
        )
    return contributions
