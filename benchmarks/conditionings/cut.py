"""A trained model under every cut -> what each row lost: `surgery evaluate` in one process, and a judge of digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from digit_judge import CLASSES, FEATURES, load_classifier

from surgery.experiment.evaluated_row import EvaluatedRow
from surgery.experiment.evaluation import EvaluationRequest, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet
from surgery.metrics.extractors import fidelity_extractor
from surgery.metrics.feature_cache import features_of

CUTS = Path(__file__).with_name("cuts")
EVERYWHERE, OF_GATES = ("skips", "components", "painters"), "adapters"
PER_CLASS, STEPS, GUIDANCE, BINS, BATCH = 5, 10, 4.0, 5, 50
KINDS = {"error": "denoising error", "frechet": "frechet"}  # names here, kinds of metrics there
JUDGE = "digit_judge:DigitJudge"


@dataclass(frozen=True)
class Bench:
    """What every model is measured with: the judge's weights, and the folder of real digits."""

    weights: Path
    reference: Path
    per_class: int = PER_CLASS

    @property
    def prompts(self) -> tuple[str, ...]:
        """The names of classes, each so many times, all ten in turn."""
        return tuple(str(number) for number in range(CLASSES)) * self.per_class


def measure_cuts(model: Path, cuts: Sequence[str], bench: Bench, out: Path) -> list[dict[str, Any]]:
    """The rows of a model under the named sweeps: baseline, controls, variants."""
    request = EvaluationRequest(
        specs=tuple(str(CUTS / f"{name}.yaml") for name in cuts),
        model=str(model),
        prompts=PromptSet(bench.prompts),
        out=out,
        judges=JudgeRequest(
            extractors=(JUDGE,), extractor_weights=bench.weights, clip="none", lpips="none", reference=bench.reference
        ),
        bins=BINS,
        batch_size=BATCH,
        dtype="float32",
        device="cpu",
        call={"num_inference_steps": STEPS, "guidance_scale": GUIDANCE},
    )
    found = run_evaluation(request)
    told = _Reader(bench, out)
    return [told.facts_of(row) for row in found.rows]


class _Reader:
    """Tells which digits the judge sees in the pictures of a row."""

    def __init__(self, bench: Bench, out: Path) -> None:
        self.classes = torch.tensor([int(name) for name in bench.prompts])
        self.classifier = load_classifier(bench.weights)
        self.extractor = fidelity_extractor(JUDGE, resize="as its class does", channels=FEATURES, weights=bench.weights)
        self.out = out

    def facts_of(self, row: EvaluatedRow) -> dict[str, Any]:
        """Its numbers, as plain data."""
        facts: dict[str, Any] = {"name": row.name, "kind": row.kind}
        if row.spec is not None:
            facts |= {"cut": row.spec.stem, "point": dict(row.spec.point)}
        for name, kind in KINDS.items():
            score = next((score for score in row.scores if score.metric.kind == kind), None)
            if score is not None:
                interval = score.interval
                facts[name] = {"value": interval.value, "low": interval.low, "high": interval.high}
        if row.errors is not None:
            facts["error_by_bin"] = row.errors.mean(0).tolist()
        facts["right"] = self._share_right(row)
        return facts

    def _share_right(self, row: EvaluatedRow) -> float:
        """The share of pictures in which the judge sees the digit that was asked for."""
        assert row.pictures is not None, "pictures lie in the store"
        features = torch.from_numpy(features_of(row.pictures, self.extractor, cache=self.out / "features").values)
        seen = self.classifier.logits(features).argmax(1)
        return float((seen == self.classes).float().mean())
