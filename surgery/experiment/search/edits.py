"""What a search chooses: sets of edits, as data; and the operations of a spec that make them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from surgery.anatomy.anatomy import Anatomy
from surgery.spec.selector import indices_to_text

ALWAYS = -1  # the window of an edit that holds at all times


@dataclass(frozen=True, order=True)
class Edit:
    """A block that is left out, or a component of it that gives zero; in one window of the noise range, or always.

    Windows are counted from the clean end. `component` is empty where the whole block goes.
    """

    stack: str
    index: int
    component: str = ""
    window: int = ALWAYS

    @property
    def text(self) -> str:
        """`blocks[3]`, `blocks[3].attn1`."""
        return f"{self.stack}[{self.index}]" + (f".{self.component}" if self.component else "")

    def holds_in(self, other: "Edit") -> bool:
        """Whether this edit leaves out the block of which the other edits a component, in the same window."""
        return not self.component and (self.stack, self.index, self.window) == (other.stack, other.index, other.window)


Candidate = frozenset[Edit]
UNEDITED: Candidate = frozenset()


def with_edit(candidate: Candidate, edit: Edit) -> Candidate | None:
    """The set with one edit more, without those that it makes idle; None where the set has it, or makes it idle."""
    if edit in candidate or any(other.holds_in(edit) for other in candidate):
        return None
    return frozenset({edit, *(other for other in candidate if not edit.holds_in(other))})


def window_of(number: int, count: int) -> tuple[float, float]:
    """The ends of one of `count` equal windows, as shares of the noise range."""
    return number / count, (number + 1) / count


def operations_of(candidate: Candidate, anatomy: Anatomy, num_windows: int) -> list[str]:
    """The operations that make the edits, each as the lines of a YAML list; stacks in the order in which they run."""
    found = []
    for stack in anatomy.stacks:
        own = [edit for edit in candidate if edit.stack == stack.name]
        for window, component, indices in _grouped(own, num_windows):
            selector = json.dumps(f"{stack.name}[{indices_to_text(indices)}]" + (f".{component}" if component else ""))
            done = f"skip: {selector}" if not component else f"replace: {{component: {selector}, with: zero}}"
            low, high = window_of(window, num_windows)
            when = "" if window == ALWAYS else f"    when: {{timesteps: [{low:.6g}, {high:.6g}]}}\n"
            found.append(f"  - {done}\n    expect: {len(indices)}\n{when}")
    return found


def _grouped(edits: Iterable[Edit], num_windows: int) -> Iterator[tuple[int, str, list[int]]]:
    """The layers of each window and component; what is done in all windows is done always."""
    layers: dict[tuple[int, str], list[int]] = {}
    by_place: dict[tuple[str, int], list[Edit]] = {}
    for edit in edits:
        by_place.setdefault((edit.component, edit.index), []).append(edit)
    for (component, index), same in by_place.items():
        windows = [ALWAYS] if len(same) == num_windows > 1 else [edit.window for edit in same]
        for window in windows:
            layers.setdefault((window, component), []).append(index)
    for (window, component), indices in sorted(layers.items()):
        yield window, component, sorted(indices)


def edits_text(candidate: Candidate, num_windows: int) -> str:
    """`blocks[1, 3:5], blocks[6].attn1`; with windows, `0.0-0.2: blocks[1]; ...`; `nothing` of no edit."""
    texts: dict[int, list[str]] = {}
    for stack in dict.fromkeys(edit.stack for edit in sorted(candidate)):
        for window, component, indices in _grouped([edit for edit in candidate if edit.stack == stack], num_windows):
            name = f"{stack}[{indices_to_text(indices)}]" + (f".{component}" if component else "")
            texts.setdefault(window, []).append(name)
    parts = []
    for window in sorted(texts):
        low, high = window_of(window, num_windows)
        where = "" if window == ALWAYS else f"{low:.3g}-{high:.3g}: "
        parts.append(where + ", ".join(texts[window]))
    return "; ".join(parts) or "nothing"
