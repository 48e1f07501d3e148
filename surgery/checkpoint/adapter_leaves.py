"""What becomes of the leaves of an adapter when rows of its module are taken, or its weight is multiplied by a factor.

A leaf is one tensor of a module's adapter, by what stands behind the module in its name.
An adapter adds terms to a weight W (out x in), each a product of leaves: LoRA B A, LyCORIS diff, LoHa
(w1_a w1_b) * (w2_a w2_b), LoKr w1 (x) w2. Where W becomes a W, exactly one leaf of each term is multiplied by a. Where
rows of W are taken, the same rows of the leaves that have a row an output are taken; a Kronecker product has none.
DoRA's magnitudes are norms, of rows or of columns.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from surgery.anatomy.tensor_files import StoredTensor, num_rows
from surgery.checkpoint.new_checkpoint import NewTensor, Segment


@dataclass(frozen=True)
class Role:
    """`rows`: the leaf has a row an output, none that matter, or can't follow. `factor`: whether it takes one."""

    rows: Literal["select", "whole", "no"]
    factor: Literal["times", "size", "none", "no"]  # size: the factor without its sign


OUTPUT, OUTPUT_ALSO, NORM = Role("select", "times"), Role("select", "none"), Role("select", "size")
INNER, KRONECKER, KRONECKER_FIRST = Role("whole", "none"), Role("no", "none"), Role("no", "times")
UNKNOWN = Role("no", "no")
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("lora_B.weight", "lora_B.bias", "lora_up.weight", "lora_up.bias"), OUTPUT),
    **dict.fromkeys(("diff", "diff_b", "w_norm", "b_norm", "hada_w1_a"), OUTPUT),
    "hada_w2_a": OUTPUT_ALSO,
    **dict.fromkeys(("lora_magnitude_vector", "dora_scale"), NORM),
    **dict.fromkeys(("lora_A.weight", "lora_down.weight", "lora_mid.weight"), INNER),
    **dict.fromkeys(("alpha", "scalar", "hada_w1_b", "hada_w2_b"), INNER),
    **dict.fromkeys(("lokr_w1", "lokr_w1_a", "lora_embedding_B"), KRONECKER_FIRST),
    **dict.fromkeys(("lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"), KRONECKER),
    **dict.fromkeys(("hada_t1", "hada_t2", "lora_embedding_A"), KRONECKER),
}
ADAPTER_NAME = re.compile(r"(?<=^lora_[AB])\.[^.]+(?=\.(?:weight|bias)$)")  # lora_A.default.weight


def role_of(leaf: str, *, is_tensor: bool = False) -> Role:
    """The role of a leaf; `is_tensor` says that it stands for a whole tensor of the module (PEFT's modules_to_save)."""
    if is_tensor:
        return OUTPUT
    known = ADAPTER_NAME.sub("", leaf).replace("lora.", "lora_")
    if known.startswith("lora_magnitude_vector"):
        known = "lora_magnitude_vector"
    return ROLES.get(known, UNKNOWN)


def is_adapter_leaf(leaf: str) -> bool:
    """Whether a leaf is known to be of an adapter."""
    return role_of(leaf) is not UNKNOWN


def follow_rows(
    name: str, leaf: str, stored: StoredTensor, rows: Sequence[Segment], rows_before: int, *, is_tensor: bool = False
) -> NewTensor | str:
    """The leaf `stored` of an adapter, under its new name, for a module of which these rows are kept or multiplied.

    `rows_before` is how many the module had. Instead of a tensor comes the reason where there can be none.
    """
    role = role_of(leaf, is_tensor=is_tensor)
    if any(segment.change in ("zero", "mean") for segment in rows):
        return "its output is constant now"
    factors = {segment.by if segment.change == "scale" else 1.0 for segment in rows}
    factor = factors.pop()
    if factors or (factor != 1.0 and role.factor == "no"):
        return f"its weight is multiplied, and how {leaf} follows is not known"
    own_rows = num_rows(stored.shape)
    if len(rows) == 1 and rows[0].num_rows == rows_before:
        return NewTensor(name, (_multiplied(stored, 0, own_rows, factor, role),))
    if role.rows == "whole":
        return NewTensor(name, (Segment(stored.name, 0, own_rows),))
    if role.rows == "no" or own_rows != rows_before:
        return f"only some rows of its weight are kept, which {leaf} can't follow"
    return NewTensor(name, tuple(_multiplied(stored, row.start, row.stop, factor, role) for row in rows))


def _multiplied(stored: StoredTensor, start: int, stop: int, factor: float, role: Role) -> Segment:
    by = {"times": factor, "size": abs(factor)}.get(role.factor, 1.0)
    if by == 1.0:
        return Segment(stored.name, start, stop)
    return Segment(stored.name, start, stop, "scale", by)
