"""The plan of a spec that edits a pipeline's second transformer: a plan for each of the two. Frozen data.

Its canonical text is that of both, each below a line that names its transformer:

    part transformer
    model WanTransformer3DModel
    blocks[40]: 0:40
    part transformer_2
    model WanTransformer3DModel
    blocks[40]: 0:3 4:40
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surgery.plan.plan import Plan
from surgery.plan.windowed import AnyPlan, any_plan_from_json, plans_of
from surgery.spec.selector import FIRST, SECOND


@dataclass(frozen=True)
class PairedPlan:
    """What runs in the transformer for high noise (`first`), and in that for low noise (`second`)."""

    first: AnyPlan
    second: AnyPlan

    @property
    def by_part(self) -> Mapping[str, AnyPlan]:
        """The plan of each transformer by its name in the pipeline."""
        return {FIRST: self.first, SECOND: self.second}

    @property
    def class_name(self) -> str:
        """The class of both, or of each."""
        return " and ".join(dict.fromkeys(plan.class_name for plan in self.by_part.values()))

    @property
    def is_identity(self) -> bool:
        """Whether both transformers are left as they are."""
        return self.first.is_identity and self.second.is_identity

    @property
    def text(self) -> str:
        """The canonical text, of which the hash is made."""
        return "".join(f"part {part}\n{plan.text}" for part, plan in self.by_part.items())

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; `model_plan_from_json` reads it back."""
        return {"hash": self.hash, "transformers": {part: plan.to_json() for part, plan in self.by_part.items()}}


ModelPlan = AnyPlan | PairedPlan


def plans_of_model(plan: ModelPlan) -> tuple[Plan, ...]:
    """The plans of all transformers and atoms, each once."""
    parts = plan.by_part.values() if isinstance(plan, PairedPlan) else (plan,)
    return tuple(dict.fromkeys(each for part in parts for each in plans_of(part)))


def model_plan_from_json(data: dict[str, Any]) -> ModelPlan:
    """The plan that `to_json` wrote, of one transformer or of two.

    Raises:
        ValueError: a text is malformed, or the hash is not that of the plan.
    """
    if "transformers" not in data:
        return any_plan_from_json(data)
    found = PairedPlan(*(any_plan_from_json(data["transformers"][part]) for part in (FIRST, SECOND)))
    if data.get("hash", found.hash) != found.hash:
        raise ValueError(f"the plan's hash is {found.hash}, not {data['hash']}: it was changed after it was written")
    return found
