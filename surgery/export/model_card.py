"""The model card of a pruned model: what was removed, how large it is now, how it is loaded, whose it is.

The head of the file is the metadata that the hub reads (https://huggingface.co/docs/hub/model-cards): licence and
languages are those of the base model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from surgery.anatomy.identity import Identity
from surgery.plan.plan import Plan
from surgery.plan.text import items_to_text
from surgery.spec.load import Spec

CARRIED_KEYS = ("license", "license_name", "license_link", "language", "pipeline_tag", "extra_gated_prompt")


@dataclass(frozen=True)
class Size:
    """Parameters and bytes of a transformer's weights."""

    num_parameters: int
    size_bytes: int


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from. `loading` is Python; `checks` are sentences on how it was verified."""

    name: str
    spec: Spec
    plan: Plan
    base: Identity
    base_card: Mapping[str, Any]
    before: Size
    after: Size
    loading: str
    checks: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_card_head(path: Path) -> dict[str, Any]:
    """The metadata at the head of a model card; empty where there is no card, or no sound head."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    if not text.startswith("---\n"):
        return {}
    try:
        head = yaml.safe_load(text[4:].partition("\n---")[0])
    except (yaml.YAMLError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def write_card(facts: CardFacts) -> str:
    """The text of the card."""
    head = {
        **{key: facts.base_card[key] for key in CARRIED_KEYS if key in facts.base_card},
        **_base_model(facts),
        "library_name": "diffusers",
        "tags": ["layer-surgery", "pruned"],
    }
    licence = facts.base_card.get("license_name") or facts.base_card.get("license")
    fence = "```"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {facts.spec.title or facts.name}",
        "",
        f"A `{facts.base.class_name}` made from `{facts.base.model}` by layer surgery. Stock diffusers loads it.",
        "",
        "| transformer | before | after | |",
        "|---|---|---|---|",
        _row("parameters", facts.before.num_parameters, facts.after.num_parameters, 1e6, "M"),
        _row("bytes", facts.before.size_bytes, facts.after.size_bytes, 1e6, "MB"),
        "",
        "## What was changed",
        "",
        *_changes(facts.plan),
        *(f"- {note}" for note in facts.notes),
        "",
        "## How to load it",
        "",
        f"{fence}python",
        facts.loading,
        fence,
        "",
        "## Where it comes from",
        "",
        f"- base model: `{facts.base.model}`" + (f", revision `{facts.base.revision}`" if facts.base.revision else ""),
        *(f"- `{name}`: SHA-256 `{digest}`" for name, digest in facts.base.weights.items()),
        f"- licence: {licence or 'that of the base model, which states none in its card'}",
        f"- plan: `{facts.plan.hash}`",
        *(f"- {check}" for check in facts.checks),
        "",
        "Blocks are numbered anew, so adapters made for the base model must be renumbered too (`surgery remap`).",
        "",
        "The spec:",
        "",
        f"{fence}yaml",
        facts.spec.text.rstrip(),
        fence,
    ]
    return "\n".join(lines) + "\n"


def _base_model(facts: CardFacts) -> dict[str, Any]:
    """The hub id of the base model, or of what a local one says it was made from."""
    if facts.base.revision is not None:
        return {"base_model": facts.base.model}
    return {"base_model": facts.base_card["base_model"]} if "base_model" in facts.base_card else {}


def _row(what: str, before: int, after: int, unit: float, name: str) -> str:
    share = 100 * (after - before) / before if before else 0.0
    return f"| {what} | {before / unit:,.1f} {name} | {after / unit:,.1f} {name} | {share:+.1f}% |"


def _changes(plan: Plan) -> list[str]:
    lines = []
    for schedule in plan.schedules:
        if schedule.is_identity:
            continue
        text = items_to_text(schedule.items)
        gone = f"; without {', '.join(map(str, schedule.removed))}" if schedule.removed else ""
        lines.append(f"- `{schedule.stack}`, {schedule.num_blocks} layers before, in this order now: `{text}`{gone}")
    lines += [f"- `{item.stack}[{item.index}].{item.component}` replaced by {item.kind}" for item in plan.replacements]
    return lines or ["- nothing: the plan leaves the model as it is"]
