"""Whether an adapter was made for a model of these widths: what its leaves multiply to, against the weights' shapes.

Per module with weight W (out x in): LoRA B A is (rows of B) x (columns of A), LoHa (rows of w1_a) x (columns of w1_b),
LoKr w1 (x) w2 is (rows of w1 times rows of w2) x (the same of columns), each of both perhaps a product itself.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from surgery.anatomy.tensor_files import StoredTensor
from surgery.errors import InputError

SHOWN = 3  # modules that a message names
LEFT = ("lora_B.weight", "lora_up.weight", "hada_w1_a")
RIGHT = ("lora_A.weight", "lora_down.weight", "hada_w1_b")
KRONECKER = (("lokr_w1", "lokr_w1_a", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a", "lokr_w2_b"))  # whole, or two factors
ADAPTER_NAME = re.compile(r"(?<=^lora_[AB])\.[^.]+(?=\.weight$)")  # lora_A.default.weight

Shape = tuple[int, ...]


def refuse_other_shapes(
    modules: Mapping[str, Mapping[str, StoredTensor]], shapes: Mapping[str, Sequence[int]], class_name: str
) -> None:
    """Raise InputError where an adapter is of other widths than the model; `modules` are its leaves by module.

    `shapes` are those of the tensors of the model. What a module's leaves multiply to is left alone where it can't be
    told (Tucker decompositions), or where the module has no weight of two or more dimensions.
    """
    wrong = list(_mismatches(modules, shapes))
    if wrong:
        rest = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise InputError(
            f"it is of other widths than this {class_name}: {'; '.join(wrong[:SHOWN])}{rest}; "
            "was it made for another model? Give that one's spec and --model"
        )


def _mismatches(
    modules: Mapping[str, Mapping[str, StoredTensor]], shapes: Mapping[str, Sequence[int]]
) -> Iterator[str]:
    for module, leaves in modules.items():
        weight = tuple(shapes.get(f"{module}.weight", ()))
        found = product_shape({ADAPTER_NAME.sub("", name): tensor.shape for name, tensor in leaves.items()})
        if found is None or len(weight) < 2:
            continue
        rows, columns = found
        if rows != weight[0] or columns not in (weight[1], math.prod(weight[1:])):
            wanted = " x ".join(map(str, weight))
            yield f"{module} is {wanted}, and the adapter's {rows} x {columns}"


def product_shape(leaves: Mapping[str, Shape]) -> tuple[int, int] | None:
    """(out, in) of what the leaves of a module multiply to; None where they do not say."""
    if any(name.startswith(("lokr_t", "hada_t", "lora_mid")) for name in leaves):
        return None
    if any(name.startswith("lokr_") for name in leaves):
        one, other = (_factor(leaves, *names) for names in KRONECKER)
        return None if one is None or other is None else (one[0] * other[0], one[1] * other[1])
    left = next((leaves[name] for name in LEFT if name in leaves), None)
    right = next((leaves[name] for name in RIGHT if name in leaves), None)
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    return left[0], right[1]


def _factor(leaves: Mapping[str, Shape], *names: str) -> tuple[int, int] | None:
    """(rows, columns) of a factor of a Kronecker product, whole or as a product of two."""
    whole, left, right = (leaves.get(name) for name in names)
    if whole is not None and len(whole) >= 2:
        return whole[0], whole[1]
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    return left[0], right[1]
