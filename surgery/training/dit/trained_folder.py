"""A trained model -> the folder of its pipeline, with a card and all that it was made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgery.finite import to_finite
from surgery.outputs import added_files
from surgery.progress import library_bars

TRAIN = "train"  # the command, as folders know it
FACTS, CARD = "training.json", "README.md"


def write_trained(pipe: Any, out: Path, facts: Mapping[str, Any], *, request: str, force: bool) -> None:
    """Write the folder `out`, whole or not at all.

    Raises:
        InputError: it can't be written, or there is something in it and no `force`.
    """
    with added_files(out, TRAIN, force=force, request=request) as folder:
        with library_bars():
            pipe.to("cpu").save_pretrained(folder)
        text = json.dumps(to_finite(facts), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / FACTS).write_text(text + "\n", encoding="utf-8")
        (folder / CARD).write_text(_card(out.name, type(pipe).__name__, facts), encoding="utf-8")


def _card(name: str, kind: str, facts: Mapping[str, Any]) -> str:
    validation, pictures = facts["validation"], facts["pictures"]
    bins = "\n".join(f"| {middle} | {loss:.4f} |" for middle, loss in validation["bins"].items())
    labels = list(pictures["labels"])
    of_labels = f"{len(labels)} labels: {', '.join(labels[:10])}{', ...' * (len(labels) > 10)}"
    return f"""---
library_name: diffusers
pipeline_tag: unconditional-image-generation
---

# {name}

A `surgery.dit.DiT` ({facts["model"]["conditioning"]}, {facts["parameters"]:,} parameters) in a `{kind}`, trained from
nothing on {pictures["learnt"]:,} pictures ({pictures["source"]}; {of_labels}). The package `layer-surgery` loads it:
`surgery generate {name} --prompt "{labels[0]}" --out pictures`, or from Python

```python
from surgery.dit import {kind}

pipe = {kind}.from_pretrained("{name}")
```

Trained for {facts["steps"]:,} steps; the weights are those after {validation["step"]:,}, which measured best on
{pictures["held_out"]:,} pictures that were held out: mean square of the error of the noise {validation["loss"]:.4f}.

| share of the noise range | error |
|---|---|
{bins}

`{FACTS}` has the config, the settings and the course of the run.
"""
