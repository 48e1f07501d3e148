"""How long it takes to plan and rewrite a Qwen-Image (60 blocks, 20 B parameters) on the meta device. Aim: under 3 s.

From the config to the variant, imports apart: the model is built, read, planned for and rewritten. Beside it, what one
would do instead: build the model in the same way and exchange its list of blocks by hand, which nothing checks.
"""

import os
import tempfile
from pathlib import Path

from pairs import median_seconds, seconds_of
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import build_on_meta, find_source
from surgery.graph.variant import build_variant
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec

CONFIG = Path(__file__).parent.parent / "tests/configs/qwen-image/transformer"
SPEC = """
surgery: v1
operations:
  - skip: transformer_blocks[7, 9:12]
  - reverse: transformer_blocks[20:30]
"""
LAYERS = (*range(7), 8, *range(12, 20), *reversed(range(20, 30)), *range(30, 60))


def edit_by_hand() -> nn.Module:
    """The model with its blocks exchanged."""
    model = build_on_meta(find_source(str(CONFIG)))
    model.transformer_blocks = nn.ModuleList(model.transformer_blocks[index] for index in LAYERS)
    return model


def plan_and_rewrite() -> nn.Module:
    """The same as a variant, with its plan checked against the anatomy."""
    model = build_on_meta(find_source(str(CONFIG)))
    anatomy = read_anatomy(model)
    return build_variant(model, lower_spec(read_spec(SPEC), anatomy), anatomy)


def main() -> None:
    """Print the seconds of both, and their ratio; the first time nothing is known of the calls of such a model."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SURGERY_CACHE"] = cache
        size = sum(value.numel() for value in edit_by_hand().parameters())
        first = seconds_of(plan_and_rewrite)
        seconds = median_seconds({"by hand": edit_by_hand, "again": plan_and_rewrite}, rounds=5)
    by_hand = seconds["by hand"]
    print(f"{size / 1e9:.1f} B parameters without those of skipped blocks")
    print(f"build and exchange blocks by hand     {by_hand:6.2f} s    1.00 x")
    print(f"plan and rewrite, the first time      {first:6.2f} s   {first / by_hand:5.2f} x by hand")
    print(
        f"plan and rewrite, again               {seconds['again']:6.2f} s   {seconds['again'] / by_hand:5.2f} x by hand"
    )


if __name__ == "__main__":
    main()
