"""Stages of an evaluation: cheap metrics on few prompts first, and only the best rows go on to dear ones on many."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.errors import InputError
from surgery.experiment.metric_table import METRICS, Sight
from surgery.spec.nearest import unknown_text

if TYPE_CHECKING:
    from surgery.experiment.evaluated_row import EvaluatedRow
    from surgery.experiment.scores import Score

FULL = "full"
TIMED = frozenset({Sight.LATENCY, Sight.MEMORY})  # of all rows that come to the last stage
SIGHTS: dict[str, frozenset[Sight]] = {
    "error": TIMED | {Sight.PREDICTIONS, Sight.TRUTH},
    "paired": TIMED | {Sight.TEXT, Sight.PIXELS, Sight.LPIPS, Sight.FEATURES},
    FULL: frozenset(Sight),
}
RANKED_BY = {"error": "denoising error", "paired": "ssim"}  # the first metric of the table elsewhere
STAGE = re.compile(r"(\w+):(\d{1,9})(?:/(\d{1,9}))?")
HOW = "write stages like error:64/20,paired:32/10,full:1000: what is measured, on how many prompts, how many rows go on"


@dataclass(frozen=True)
class Stage:
    """What is measured (a key of `SIGHTS`) on the first `prompts`, and how many variants go on; None in the last."""

    kind: str
    prompts: int
    rows: int | None = None

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.kind}:{self.prompts}" + ("" if self.rows is None else f"/{self.rows}")

    @property
    def sights(self) -> frozenset[Sight]:
        """What its metrics look at."""
        return SIGHTS[self.kind]

    @property
    def is_last(self) -> bool:
        """Whether no row goes on."""
        return self.rows is None

    @property
    def draws(self) -> bool:
        """Whether it takes pictures of the variants."""
        return self.sights != SIGHTS["error"]

    @property
    def measures_errors(self) -> bool:
        """Whether it takes the predictions of the variants."""
        return Sight.PREDICTIONS in self.sights

    def choose(self, rows: "Sequence[EvaluatedRow]", rank_by: str | None) -> tuple[str, ...]:
        """The names of the variants that go on, the best first; those without the number come last.

        Raises:
            InputError: nothing was measured that they could be ranked by.
        """
        variants = [row for row in rows if row.kind == "variant"]
        key = self._key(variants, rank_by)

        def goodness(row: "EvaluatedRow") -> float:
            score = next((score for score in row.scores if score.metric.key == key), None)
            if score is None or score.interval.value != score.interval.value:  # none, or not a number
                return float("-inf")
            return score.interval.value if score.metric.higher_is_better else -score.interval.value

        return tuple(row.name for row in sorted(variants, key=goodness, reverse=True)[: self.rows])

    def _key(self, variants: "Sequence[EvaluatedRow]", rank_by: str | None) -> str:
        """The key of the metric to rank by: the one asked for if it is here, else the stage's first."""
        scores = [score for row in variants for score in row.scores]
        if not scores:
            raise InputError(f"the stage {self.text} has measured nothing that its variants could be ranked by")
        asked = [score for score in scores if rank_by is not None and rank_by.casefold() in _names(score)]
        own = [score for score in scores if score.metric.kind == RANKED_BY.get(self.kind)]
        return (asked or own or scores)[0].metric.key


def _names(score: "Score") -> tuple[str, ...]:
    """By which a metric may be asked for."""
    metric = score.metric
    return tuple(name.casefold() for name in (metric.kind, metric.name, metric.short, metric.key))


def read_stages(text: str) -> tuple[Stage, ...]:
    """The stages of `--stages`.

    Raises:
        InputError: they are not written so, fewer prompts or more rows come later, or one that goes on keeps no rows.
    """
    found: list[Stage] = []
    for part in text.split(","):
        match = STAGE.fullmatch(part.strip())
        if match is None or match[1] not in SIGHTS:
            raise InputError(f'"{part.strip()}" is no stage of {", ".join(SIGHTS)}; {HOW}')
        found.append(Stage(match[1], int(match[2]), None if match[3] is None else int(match[3])))
    for number, stage in enumerate(found):
        if stage.prompts < 1 or stage.rows == 0:
            raise InputError(f"the stage {stage.text} has no {'prompts' if stage.prompts < 1 else 'rows'}; {HOW}")
        if number + 1 < len(found) and stage.rows is None:
            raise InputError(f"the stage {stage.text} does not say how many rows go on; {HOW}")
    if found[-1].rows is not None:
        raise InputError(f"no stage comes after {found[-1].text}, to which {found[-1].rows} rows could go on; {HOW}")
    for before, after in itertools.pairwise(found):
        if after.prompts < before.prompts and after.kind == before.kind:
            raise InputError(f"the stage {after.text} has fewer prompts than {before.text}; a later one takes as many")
        if None not in (before.rows, after.rows) and (after.rows or 0) >= (before.rows or 0):
            raise InputError(f"the stage {after.text} keeps no fewer rows than {before.text}; a later one keeps fewer")
    return tuple(found)


def checked_stages(stages: Sequence[Stage], num_prompts: int, rank_by: str | None = None) -> tuple[Stage, ...]:
    """The stages, or the one of an evaluation without any: all metrics on all prompts.

    Raises:
        InputError: a stage asks for more prompts than there are, or nothing can be ranked by what is asked for.
    """
    if rank_by is not None:
        if not stages:
            raise InputError("--rank-by says which variants go on from stage to stage; give --stages as well")
        sights = frozenset.union(*(stage.sights for stage in stages[:-1] or stages))
        known = {metric.kind.replace("{judge}", "text"): metric for metric in METRICS if metric.sight in sights}
        if rank_by.casefold() not in known:
            raise InputError(unknown_text("metric", rank_by, known))
    for stage in stages:
        if stage.prompts > num_prompts:
            raise InputError(f"the stage {stage.text} asks for {stage.prompts} prompts, and there are {num_prompts}")
    return tuple(stages) or (Stage(FULL, num_prompts),)
