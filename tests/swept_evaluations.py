"""Evaluations of made-up sweeps with numbers that are given: folders as `surgery evaluate` leaves them."""

import json

import numpy as np
from evaluations_made import STACK, plan_of
from PIL import Image

from surgery.experiment.folder_names import folder_names

NUM = 12  # prompts
LEVEL = 0.95
SCORE, SSIM, ERROR = "text score x 100", "SSIM", "denoising error"
HIGHER = {SCORE: True, SSIM: True, ERROR: False}
CONTROLS = {
    "baseline": {SCORE: (80.0, 1.0), SSIM: (1.0, 0.0), ERROR: (0.0, 0.0)},
    "no-op": {SCORE: (80.0, 1.0), SSIM: (1.0, 0.0), ERROR: (0.0, 0.0)},
    "reseeded": {SCORE: (80.1, 1.0), SSIM: (0.8, 0.02)},
    "noise": {SCORE: (10.0, 1.0), SSIM: (0.01, 0.001)},
}


def interval(value, half, num=NUM):
    """A number with Student's interval, as the file holds it."""
    ends = {"low": value - half, "high": value + half}
    return {"value": value, **ends, "num": num, "method": "Student's t over prompts", "level": LEVEL}


def scores_of(numbers, difference=None):
    """Scores by metric from (value, half); `difference` is that of the text score to the baseline."""
    found = {
        name: {
            **interval(*number),
            "key": name,
            "head": name.split()[0],
            "higher_is_better": HIGHER[name],
            "made_with": "a test",
            "paired_with_the_baseline": name != SCORE,
        }
        for name, number in numbers.items()
    }
    if difference is not None and SCORE in found:
        found[SCORE]["difference_to_baseline"] = interval(*difference)
    return found


def cost_of(share):
    """A cost of that share of the baseline's, in whatever is counted."""
    parts = ("parameters", "bytes", "executions", "flops")
    return {
        f"{part}_{when}": 1000 * (share if when == "after" else 1) for part in parts for when in ("before", "after")
    }


def variant(name, stem, point, numbers, *, plan=None, difference=(0.0, 1.0), share=0.9):
    """A row of a spec."""
    row = {"name": name, "kind": "variant", "spec": stem, "point": point, "scores": scores_of(numbers, difference)}
    row |= {"spec_text": f"surgery: v1  # {stem}\n", "cost": cost_of(share)}
    return row if plan is None else {**row, "plan": plan.to_json()}


def single_layers(num_layers, components, value_of, *, stem="each", bins=3):
    """A sweep over single layers and components: the error is `value_of(layer, component)`, the others follow it."""
    rows = []
    for layer in range(num_layers):
        for component in components:
            error = value_of(layer, component)
            numbers = {SCORE: (80 - 20 * error, 1.0), SSIM: (0.98 - error, 0.01), ERROR: (error, error / 10)}
            row = variant(
                f"{stem} layer={layer} component={component}",
                stem,
                {"layer": layer, "component": component},
                numbers,
                plan=plan_of({STACK: num_layers}, STACK, layer, f"{component} = zero"),
                difference=(-20 * error, 1.0),
                share=0.9 if component == "ff" else 0.95,
            )
            ends = {"low": [error / 2] * bins, "high": [error * 2] * bins}
            row["denoising_error_by_bin"] = [error] * bins
            row["denoising_error_by_bin_interval"] = {**ends, "num": NUM, "method": "t", "level": LEVEL}
            rows.append(row)
    return rows


def document_of(variants, *, notes=(), prompts=None):
    """The document: the baseline, variants, and the three controls."""
    kinds = {"baseline": "baseline"}
    rows = [
        {"name": name, "kind": kinds.get(name, "control"), "scores": scores_of(numbers)}
        for name, numbers in CONTROLS.items()
    ]
    prompts = [f"prompt {number}" for number in range(NUM)] if prompts is None else prompts
    recipe = {"prompts": prompts, "seed": 0, "versions": {"surgery": "0"}, "judges": {"clip": ["a", 1]}}
    return {"rows": [rows[0], *variants, *rows[1:]], "notes": list(notes), "recipe": recipe}


def write_swept(folder, document, *, pictures=0, pixels=8):
    """Write the document into a folder, and so many pictures of every row, which differ by row and prompt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(document))
    names = folder_names([row["name"] for row in document["rows"]]) if pictures else {}
    for number, own in enumerate(names.values()):
        (folder / "pictures" / own).mkdir(parents=True)
        for prompt in range(pictures):
            cells = np.full((pixels, pixels, 3), (7 * number * (prompt + 1)) % 256, dtype=np.uint8)
            Image.fromarray(cells).save(folder / "pictures" / own / f"{prompt:05d}.png")
    return folder
