"""The card of a pruned model -> that of the same model, healed: what was done, and what is no longer true of it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from surgery.publish.model_card import UNTRAINED

HEADING = "## How it was healed"
BEFORE = "## Limits"  # where that goes
TRAINED = (
    "It was trained after the surgery to predict what the base model predicts, on the data above: pictures of what "
    "that data does not show may have gained less. Look at pictures of your own prompts before relying on it."
)
CHANGES = (
    (
        "It was not trained again, and needs no code of its own",
        "It was healed afterwards, and needs no code of its own",
    ),
    (UNTRAINED, TRAINED),
    ("all others are copied bit for bit", "all others were copied bit for bit, before it was healed"),
)


def healed_card(card: str, name: str, healed: Mapping[str, Any]) -> str:
    """The text of the card; `healed` is the manifest's entry, `name` that of the folder.

    A card that was changed by hand keeps what it says; one without the section on limits gets the new one at its end.
    """
    for old, new in (*CHANGES, *_names(card, name)):
        card = card.replace(old, new)
    card = _without_section(card)
    section = "\n".join([HEADING, "", *_lines(name, healed), ""])
    head, found, tail = card.partition(f"\n{BEFORE}\n")
    if not found:
        return f"{card.rstrip()}\n\n{section}".lstrip()
    return f"{head}\n{section}\n{BEFORE}\n{tail}"


def _names(card: str, name: str) -> Iterator[tuple[str, str]]:
    """Where the card calls the folder by its name, and what is said there of the new one."""
    found = re.search(r"^`([^`\n]+)` is this folder", card, flags=re.MULTILINE)
    if found is not None:
        yield f"`{found[1]}` is this folder", f"`{name}` is this folder"
        for old in (f'from_pretrained("{found[1]}"', f"# {found[1]}\n"):
            yield old, old.replace(found[1], name)


def _without_section(card: str) -> str:
    """Without what an earlier healing said."""
    head, found, tail = card.partition(f"\n{HEADING}\n")
    if not found:
        return card
    _, heading, rest = tail.partition("\n## ")
    return f"{head}\n## {rest}" if heading else head


def _lines(name: str, healed: Mapping[str, Any]) -> Iterator[str]:
    validation = healed["validation"]
    yield f"- teacher: `{healed['teacher']['model']}`, the base model under no surgery"
    yield f"- data: {data_text(healed['data'])}"
    kept = f"{healed['steps']} steps, and the weights after step {healed['best_step']} kept"
    yield f"- trained: {healed['trained']}; {kept}"
    losses = ", ".join(f"{loss} {weight:g}" for loss, weight in healed["losses"].items())
    yield f"- losses, by weight: {losses}"
    yield (
        f"- denoising error on {validation['prompts']} held-out prompts, relative to the base model's predictions: "
        f"{validation['before']:.3f} before, {validation['after']:.3f} after"
    )
    for file, digest in healed["weights"].items():
        yield f"- `{file}` has the SHA-256 `{digest}`"
    yield "- all settings, and every measurement on the way: `healed` in `surgery.json`\n"
    yield f"```bash\n{healed['command'].replace('OUT', name)}\n```"


def data_text(data: Mapping[str, Any]) -> str:
    """What was learnt from, in words."""
    if "pictures" in data:
        return f"{data['rows']} pictures with captions"
    return (
        f"{data['prompts']} prompts, {data['latents_per_prompt']} latents each, drawn by the teacher in "
        f"{data['trajectory_steps']} steps ({json.dumps(data['call'], sort_keys=True)})"
    )
