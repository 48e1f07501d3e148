"""The model card of a pruned model: what was removed, how large it is now, how it is loaded, whose it is.

The head of the file is the metadata that the hub reads (https://huggingface.co/docs/hub/model-cards): licence and
languages are those of the base model.
"""

import contextlib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from surgery.anatomy.classes import DIFFUSERS, home_of_class
from surgery.anatomy.identity import Identity
from surgery.damage import told_as
from surgery.errors import InputError
from surgery.plan.plan import Plan
from surgery.plan.text import items_to_text

CARRIED_KEYS = ("license", "license_name", "license_link", "language", "pipeline_tag")
CARRIED_STARTS = "extra_gated_"  # the conditions on which the base model is given out
ADAPTERS = (
    "Blocks are numbered anew: an adapter (LoRA) made for the base model fits when `surgery remap` has renumbered it "
    "by `spec.yaml`."
)
ADAPTERS_OF_PARTS = "Such an adapter is for one of the two: `--transformer` says for which."
UNTRAINED = (
    "Nothing was trained after the surgery: expect pictures of lower quality than those of the base model, the more so "
    "the more was removed. Look at pictures of your own prompts before relying on it; fine-tuning may win some back."
)
INHERITED = "Uses, limits and biases are those of the base model; so is its licence, with its conditions."
CHECKED = "These checks say that the surgery was carried out exactly, and nothing of how the pictures look."


@dataclass(frozen=True)
class Size:
    """Parameters and bytes of weights; the parameters are None where they can't be counted without loading."""

    num_parameters: int | None
    size_bytes: int


@dataclass(frozen=True)
class TransformerFacts:
    """What a card says of a transformer; `checks` are sentences on how it was verified."""

    plan: Plan
    base: Identity
    before: Size
    after: Size
    checks: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_layers(self) -> int:
        """The number of its layers before."""
        return sum(schedule.num_blocks for schedule in self.plan.schedules)

    @property
    def num_removed(self) -> int:
        """The number of the layers that are gone."""
        return sum(len(schedule.removed) for schedule in self.plan.schedules)


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    `parts` are the transformers by their names in the pipeline, one or two; `rest` is of the rest of that (None without
    one). `plan_hash` is of the plan of all; `loading` is Python, `command` makes it again.
    """

    name: str
    title: str | None
    spec_text: str
    plan_hash: str
    parts: Mapping[str, TransformerFacts]
    base_card: Mapping[str, Any]
    rest: Size | None
    loading: str
    command: str
    versions: Mapping[str, str]

    @property
    def base(self) -> Identity:
        """The base model, as its first transformer."""
        return next(iter(self.parts.values())).base

    def of_part(self, part: str) -> str:
        """What stands before what is said of one of two transformers."""
        return f"`{part}`: " if len(self.parts) > 1 else ""


def read_card_head(path: Path) -> dict[str, Any]:
    """The metadata at the head of a model card; empty where there is no card, or no sound head."""
    with contextlib.suppress(InputError), told_as("there is no sound head"):
        text = path.read_text(encoding="utf-8")
        head = yaml.safe_load(text[4:].partition("\n---")[0]) if text.startswith("---\n") else None
        return head if isinstance(head, dict) else {}
    return {}


def write_card(facts: CardFacts) -> str:
    """The text of the card."""
    head = yaml.safe_dump(card_head(facts), sort_keys=False, allow_unicode=True, width=1000).rstrip()
    sections = [
        f"---\n{head}\n---",
        f"# {_as_it_stands(one_line(facts.title or facts.name))}",
        _summary(facts),
        _table(facts),
        "## What was changed",
        _bullets(_changes(facts)),
        "## How to load it",
        _fenced("python", facts.loading),
        _usage(facts),
        "## Limits",
        _bullets(_limits(facts)),
        "## How it was checked",
        _bullets(
            facts.of_part(part) + check.removeprefix("checked: ")
            for part, each in facts.parts.items()
            for check in each.checks
        ),
        CHECKED,
        "## How to make it again",
        f"With `spec.yaml` from this folder ({_versions(facts.versions)}):",
        _fenced("bash", facts.command),
        _fenced("yaml", facts.spec_text.rstrip()),
        "## Where it comes from",
        _bullets(_origin(facts)),
    ]
    return "\n\n".join(sections) + "\n"


def card_head(facts: CardFacts) -> dict[str, Any]:
    """The metadata: what is carried over from the base model's card, and what is new."""
    carried = {
        key: value for key, value in facts.base_card.items() if key in CARRIED_KEYS or key.startswith(CARRIED_STARTS)
    }
    tags = ["layer-surgery", "pruned" if any(each.num_removed for each in facts.parts.values()) else "edited"]
    library = DIFFUSERS if home_of_class(facts.base.class_name) == DIFFUSERS else "layer-surgery"
    return {**carried, **_base_model(facts), "library_name": library, "tags": tags}


def _base_model(facts: CardFacts) -> dict[str, Any]:
    """The hub id of the base model, or of what a local one says it was made from."""
    if facts.base.revision is not None:
        return {"base_model": facts.base.model}
    return {"base_model": facts.base_card["base_model"]} if "base_model" in facts.base_card else {}


def _summary(facts: CardFacts) -> str:
    loader = "stock diffusers" if home_of_class(facts.base.class_name) == DIFFUSERS else "layer-surgery (`surgery.dit`)"
    told = f"changed as below by layer surgery. It was not trained again, and needs no code of its own: {loader} loads it."
    if len(facts.parts) > 1:
        kept = " and ".join(f"a `{part}` with {_kept_text(each)} layers" for part, each in facts.parts.items())
        return f"{_model_link(facts.base)}: {kept}, {told}"
    (only,) = facts.parts.values()
    return f"The `{facts.base.class_name}` of {_model_link(facts.base)} with {_kept_text(only)} layers, {told}"


def _kept_text(facts: TransformerFacts) -> str:
    kept = facts.num_layers - facts.num_removed
    return f"{kept if facts.num_removed else 'all'} of its {facts.num_layers}"


def _usage(facts: CardFacts) -> str:
    place = f"`{facts.name}` is this folder; on the hub, write its id instead."
    if facts.rest is not None or facts.base.revision is None:
        return f"{place} It is called as the base model is."
    if home_of_class(facts.base.class_name) != DIFFUSERS:
        return f"{place} The base model's pipeline draws with it: `from_pretrained(..., transformer=transformer)`."
    return f'{place} `DiffusionPipeline.from_pretrained("{facts.base.model}", transformer=transformer)` draws with it.'


def _model_link(base: Identity) -> str:
    return f"[{base.model}](https://huggingface.co/{base.model})" if base.revision is not None else f"`{base.model}`"


def _table(facts: CardFacts) -> str:
    rows = [(part, each.before, each.after) for part, each in facts.parts.items()]
    if facts.rest is not None:
        before, after = (
            functools.reduce(_add, sizes, facts.rest) for sizes in zip(*(row[1:] for row in rows), strict=True)
        )
        rows.append(("whole pipeline", before, after))
    lines = ["| | before | after | change |", "|---|---:|---:|---:|"]
    for name, before, after in rows:
        if before.num_parameters is not None and after.num_parameters is not None:
            lines.append(_row(f"{name}, parameters", before.num_parameters, after.num_parameters, ""))
        lines.append(_row(f"{name}, size", before.size_bytes, after.size_bytes, "B"))
    return "\n".join(lines)


def _add(size: Size, rest: Size) -> Size:
    if size.num_parameters is None or rest.num_parameters is None:
        return Size(None, size.size_bytes + rest.size_bytes)
    return Size(size.num_parameters + rest.num_parameters, size.size_bytes + rest.size_bytes)


def _row(name: str, before: int, after: int, unit: str) -> str:
    share = 100 * (after - before) / before if before else 0.0
    return f"| {name} | {amount_text(before, unit)} | {amount_text(after, unit)} | {share:+.1f}% |"


def amount_text(number: int, unit: str) -> str:
    """`11,901,408,320` -> `11.90 billion`, or `11.90 GB` for the unit B."""
    names = ("GB", "MB", "kB") if unit else ("billion", "million", "thousand")
    for size, name in zip((10**9, 10**6, 10**3), names, strict=True):
        if number >= size:
            return f"{number / size:.2f} {name}"
    return f"{number} bytes" if unit else str(number)


def _changes(facts: CardFacts) -> list[str]:
    lines = []
    for part, each in facts.parts.items():
        lines += [facts.of_part(part) + line for line in (*_changes_of_plan(each.plan), *each.notes)]
    return lines


def _changes_of_plan(plan: Plan) -> list[str]:
    lines = []
    for schedule in plan.schedules:
        if schedule.is_identity:
            continue
        gone = f"removed {_numbers(schedule.removed)}" if schedule.removed else "none removed"
        order = f"layers of the base model (ranges without their ends): `{items_to_text(schedule.items)}`"
        lines.append(f"`{schedule.stack}` ({schedule.num_blocks} layers): {gone}; what runs now, in {order}")
    lines += [f"`{item.stack}[{item.index}].{item.component}` replaced by {item.kind}" for item in plan.replacements]
    return lines or ["nothing: the plan leaves the model as it is"]


def _numbers(numbers: Sequence[int]) -> str:
    """`layer 5`, `layers 5, 6 and 7`."""
    *first, last = map(str, numbers)
    return f"layers {', '.join(first)} and {last}" if first else f"layer {last}"


def _limits(facts: CardFacts) -> list[str]:
    plans = [each.plan for each in facts.parts.values()]
    if all(plan.is_identity for plan in plans):
        return [INHERITED]
    renumbered = any(not schedule.is_identity for plan in plans for schedule in plan.schedules)
    adapters = ADAPTERS if len(plans) == 1 else f"{ADAPTERS} {ADAPTERS_OF_PARTS}"
    return [UNTRAINED, *([adapters] if renumbered else []), INHERITED]


def _origin(facts: CardFacts) -> list[str]:
    base, card = facts.base, facts.base_card
    licence = card.get("license_name") or card.get("license") or "that of the base model, whose card states none"
    revision = f", revision `{base.revision}`" if base.revision is not None else ""
    return [
        f"base model: {_model_link(base)}{revision}",
        *(
            f"{facts.of_part(part)}`{name}` of the base model: SHA-256 `{digest}`"
            for part, each in facts.parts.items()
            for name, digest in each.base.weights.items()
        ),
        f"licence: {one_line(licence)}",
        f"plan: `{facts.plan_hash}` (`plan.json`)",
    ]


def _versions(versions: Mapping[str, str]) -> str:
    names = {"surgery": "layer-surgery"}
    return ", ".join(f"{names.get(name, name)} {version}" for name, version in versions.items())


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _fenced(language: str, content: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"{fence}{language}\n{content}\n{fence}"


def _as_it_stands(text: str) -> str:
    """A text in which Markdown finds no link, picture or HTML."""
    return re.sub(r"([\\`*_\[\]<>!#|])", r"\\\1", text)


def one_line(text: Any) -> str:
    """Any value as one line of text."""
    return " ".join(str(text).split())
