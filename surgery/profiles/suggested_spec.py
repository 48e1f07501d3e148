"""What a profile suggests, as a spec that says why."""

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import yaml

from surgery.spec.nearest import shorten
from surgery.spec.selector import FIRST, indices_to_text
from surgery.text_table import lay_out

if TYPE_CHECKING:
    from surgery.profiles.suggestion import Choice

Use = Literal["remove", "repeat"]
LINE = 116  # characters of a comment
WARNING = (
    "These numbers say how much a layer changes what flows through it, not what it is good for. Importance does not "
    "predict quality after fine-tuning: draw pictures, or evaluate the variant, before you build on it."
)


@dataclass(frozen=True)
class ProfileFacts:
    """The profile that a spec comes from: its file's name and SHA-256 (None of one that is no file), and its recipe."""

    file: str | None
    digest: str | None
    recipe: Mapping[str, Any]

    @property
    def transformer(self) -> str:
        """The transformer that was measured, by its name in the pipeline."""
        return str(self.recipe.get("transformer", FIRST))

    def describe(self) -> str:
        """`p.safetensors, a profile of demo: 24 samples, trajectories; SHA-256 ...`, or only what a profile it is."""
        count = len(self.recipe.get("samples", ()))
        model = shorten(str(self.recipe.get("model") or "an unnamed model"), 80)
        mode = shorten(str(self.recipe.get("mode") or "mode unknown"), 40)
        part = f", part {self.recipe['part']}" if "part" in self.recipe else ""
        model += f", {self.transformer}" if self.transformer != FIRST else ""
        text = f"a profile of {model}: {count} sample{'s' * (count != 1)}, {mode}{part}"
        return text if self.file is None else f"{shorten(self.file, 80)}, {text}; SHA-256 {self.digest}"


def write_suggestion(
    choice: "Choice", use: Use, facts: ProfileFacts, num_blocks: Mapping[str, int], *, model: str | None
) -> str:
    """The text of the spec. `num_blocks` of every stack that was looked at."""
    from surgery.profiles.suggestion import forbidden_text

    total = sum(num_blocks[stack] for stack in choice.streams)
    title = f"{len(choice.layers)} of {_count(total)} {'left out' if use == 'remove' else 'run twice'}"
    how = "greedily" if choice.by == "greedy" else f"by {choice.by}"
    head = [
        _comment(f"Suggested from {facts.describe()}."),
        _comment(f"{_reason(choice)}, {_streams(choice)}."),
        _comment(f"Left alone: {forbidden_text(choice.forbidden)}."),
        _comment(WARNING),
        "surgery: v1\n",
        f"model: {as_yaml(model)}\n" if model is not None else "",
        f"title: {title}, chosen {how}\n",
        "operations:\n",
        *(f"  # {line}\n" for line in _table(choice)),
        *_operations(choice, use, "" if facts.transformer == FIRST else f"{facts.transformer}/"),
    ]
    return "".join(head)


def as_yaml(text: str) -> str:
    """A text as a YAML scalar, quoted where it must be."""
    is_plain = re.fullmatch(r"[A-Za-z]+|[\w.-]*/[\w./-]*", text) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text)


def _count(number: int) -> str:
    return f"{number} layer{'s' * (number != 1)}"


def _streams(choice: "Choice") -> str:
    names = list(dict.fromkeys(name for streams in choice.streams.values() for name in streams))
    return f"over all timesteps of {' and '.join(names)}" + (", the mean of them" if len(names) > 1 else "")


def _comment(text: str) -> str:
    """A paragraph as comment lines."""
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, LINE, break_on_hyphens=False))


def _reason(choice: "Choice") -> str:
    """What was looked for."""
    where = " and ".join(choice.streams)
    match choice.by:
        case "influence":
            return (
                f"Chosen by influence: the layers of {where} of least Block Influence, which is 1 - E[cosine of a "
                "token before and after the layer] (ShortGPT, arXiv 2403.03853)"
            )
        case "span":
            return (
                f"Chosen by span: the {_count(len(choice.layers))} of {where} in a row of least angular distance "
                "between the input of the first and the output of the last (arXiv 2403.17887)"
            )
        case "greedy":
            return (
                f"Chosen greedily: of {where} one layer after the other, each time, of those whose Block Influence is "
                "within a tenth of the least that is left, the one whose gap, with what is gone beside it, is bridged "
                "over the least angular distance"
            )


def _table(choice: "Choice") -> list[str]:
    """A line a layer with its number and rank; one line for a span."""
    if choice.by == "span":
        first = choice.layers[0]
        name = f"{first.stack}[{indices_to_text(layer.index for layer in choice.layers)}]"
        return [f"{name}: {first.value:.6f} of pi, the least of {choice.num_candidates} spans"]
    what = "influence" if choice.by == "influence" else "distance (of pi)"
    ranks = f"rank (1 is the least of {choice.num_candidates})" if choice.by == "influence" else "turn"
    rows = [[f"{layer.stack}[{layer.index}]", f"{layer.value:.6f}", str(layer.rank)] for layer in choice.layers]
    return lay_out([["layer", what, ranks], *rows], right={1}).splitlines()


def _operations(choice: "Choice", use: Use, prefix: str) -> list[str]:
    """The operations on the transformer of which a prefix is."""
    found = []
    for stack, indices in choice.indices.items():
        if use == "remove":
            found.append(f'  - skip: "{prefix}{stack}[{indices_to_text(indices)}]"\n    expect: {len(indices)}\n')
        else:
            runs = [indices_to_text(indices)] if choice.by == "span" else [str(index) for index in indices]
            found += [f'  - repeat: {{layers: "{prefix}{stack}[{run}]", times: 2}}\n' for run in runs]
    return found
