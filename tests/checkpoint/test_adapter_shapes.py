"""An adapter of another model is told by what its leaves multiply to."""

from dataclasses import dataclass

import pytest

from surgery.checkpoint.adapter_shapes import product_shape, refuse_other_shapes
from surgery.errors import InputError

SHAPES = {
    "blocks.0.q.weight": (16, 12),
    "blocks.0.q.bias": (16,),
    "patch.weight": (16, 4, 2, 2),
    "blocks.0.norm.weight": (16,),
}


@dataclass(frozen=True)
class Stored:
    shape: tuple[int, ...]


RIGHT = {
    "LoRA": {"lora_A.weight": (4, 12), "lora_B.weight": (16, 4)},
    "named LoRA": {"lora_A.default.weight": (4, 12), "lora_B.default.weight": (16, 4)},
    "kohya": {"lora_down.weight": (4, 12), "lora_up.weight": (16, 4), "alpha": ()},
    "LoHa": {"hada_w1_a": (16, 4), "hada_w1_b": (4, 12), "hada_w2_a": (16, 4), "hada_w2_b": (4, 12)},
    "LoKr": {"lokr_w1": (4, 3), "lokr_w2": (4, 4)},
    "LoKr in leaves": {"lokr_w1": (4, 3), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)},
}


def refuse(module, leaves):
    refuse_other_shapes({module: {name: Stored(shape) for name, shape in leaves.items()}}, SHAPES, "Model")


@pytest.mark.parametrize("leaves", RIGHT.values(), ids=RIGHT)
def test_what_is_of_the_model_passes(leaves):
    refuse("blocks.0.q", leaves)


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_of_another_is_refused(name, axis):
    """Each leaf that has the rows, or the columns, of the weight is made twice as large, one by one."""
    ends = {0: ("lora_B", "lora_up", "hada_w1_a", "lokr_w1", "lokr_w2"), 1: ("lora_A", "lora_down", "hada_w1_b")}
    leaves = dict(RIGHT[name])
    leaf = next((leaf for leaf in leaves if leaf.startswith(ends[axis])), next(iter(leaves)))
    shape = list(leaves[leaf])
    shape[axis] *= 2
    with pytest.raises(InputError, match=r"blocks\.0\.q is 16 x 12, and the adapter's .*was it made for another model"):
        refuse("blocks.0.q", {**leaves, leaf: tuple(shape)})


@pytest.mark.parametrize("columns", [4, 16])
def test_convolutions_count_their_channels_or_the_kernel_too(columns):
    refuse("patch", {"lora_A.weight": (2, columns), "lora_B.weight": (16, 2)})
    with pytest.raises(InputError, match="patch is 16 x 4 x 2 x 2, and the adapter's 16 x 8"):
        refuse("patch", {"lora_A.weight": (2, 8), "lora_B.weight": (16, 2)})


@pytest.mark.parametrize(
    "leaves", [{"diff_b": (99,)}, {"lokr_w1": (9, 9)}, {"lokr_w1": (9, 9), "lokr_w2": (9, 9), "lokr_t2": ()}]
)
def test_what_does_not_say_is_left_alone(leaves):
    assert product_shape(leaves) is None


def test_three_are_named_and_the_others_counted():
    modules = {f"blocks.{n}.q": {"lora_A.weight": Stored((4, 48)), "lora_B.weight": Stored((48, 4))} for n in range(5)}
    shapes = {f"blocks.{n}.q.weight": (16, 16) for n in range(5)}
    with pytest.raises(
        InputError, match=r"blocks\.2\.q is 16 x 16, and the adapter's 48 x 48; and 2 more; was it made"
    ):
        refuse_other_shapes(modules, shapes, "Model")
