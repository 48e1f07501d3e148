"""Draw with a pipeline as someone would who does not have this package: run as a file, it can't import it.

    python stock_draw.py FOLDER OUT '{"prompts": [...], "seed": 0, "batch_size": 8, "dtype": "float32", "call": {...}}'

Picture k starts from the noise of seed + k, as everywhere here; it is written to OUT/000k.png.
"""

import json
import sys
from pathlib import Path
from typing import Any


class Forbidden:
    """Finds no module of the package that made the folder: it is as if it were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002  (the import system's)
        """Refuse what belongs to the package."""
        if name.partition(".")[0] == "surgery":
            raise ModuleNotFoundError(f"No module named {name!r}")


def main(folder: str, out: str, request: str) -> None:
    """Load the pipeline with diffusers alone, and draw."""
    sys.meta_path.insert(0, Forbidden())
    import torch
    from diffusers import DiffusionPipeline

    wanted = json.loads(request)
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, wanted["dtype"]))
    pipe.set_progress_bar_config(disable=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    for start in range(0, len(wanted["prompts"]), wanted["batch_size"]):
        batch = wanted["prompts"][start : start + wanted["batch_size"]]
        noise = [torch.Generator().manual_seed(wanted["seed"] + start + k) for k in range(len(batch))]
        for k, image in enumerate(pipe(batch, generator=noise, **wanted["call"]).images):
            image.save(Path(out) / f"{start + k:04d}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
