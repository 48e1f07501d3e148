"""Config fields that count or list layers are found by what they do to the class, not by their names."""

import diffusers
import pytest
from torch import nn

from surgery.anatomy.sources import ModelSource
from surgery.checkpoint.compile_plan import full_config
from surgery.checkpoint.config_fields import ConfigFields, edit_config, find_config_fields
from surgery.errors import InputError, RefusedError
from surgery.testing import TINY_MODELS, build_tiny_model


class Toy(nn.Module):
    """Two stacks, a field that lists layers, one with a value a layer, and fields that look like them and are not."""

    def __init__(self, depth, widths, wide=(), fixed=3, sizes=(0, 1)):
        super().__init__()
        if len(widths) != depth:
            raise InputError("a width a layer")
        self.sizes = sizes
        self.blocks = nn.ModuleList([nn.Linear(w, 8 if i in wide else 4) for i, w in enumerate(widths)])
        self.fixed = nn.ModuleList([nn.Linear(fixed, 2) for _ in range(3)])


def build(config):
    return Toy(**config)


CONFIG = {"depth": 3, "widths": [5, 6, 7], "wide": (1,), "fixed": 3, "sizes": (0, 1)}


def test_a_list_of_layers_and_a_value_a_layer_are_found():
    fields = find_config_fields(CONFIG, build, {"blocks": [2, 0, 1], "fixed": [0, 1, 2]})
    assert fields == ConfigFields({}, {"blocks": ("wide",)}, {"blocks": ("widths",)})
    assert edit_config(CONFIG, fields, {"blocks": [2, 0, 1]}) == {"wide": [2], "widths": [7, 5, 6]}


@pytest.mark.parametrize("widths", [[5, 6, 7], [5, 5, 5]])
def test_a_list_with_a_value_a_layer_grows_and_shrinks_with_the_stack(widths):
    config = {**CONFIG, "widths": widths, "sizes": (4, 4, 4)}
    fields = find_config_fields(config, build, {"blocks": [2, 1]})
    assert fields == ConfigFields({"blocks": "depth"}, {"blocks": ("wide",)}, {"blocks": ("widths",)})
    changed = edit_config(config, fields, {"blocks": [2, 1]})
    assert changed == {"depth": 2, "wide": [1], "widths": [widths[2], widths[1]]}


class Rated(nn.Module):
    """A value a layer that no tensor shows, read by number; and a list that is as long by chance."""

    def __init__(self, depth, rates, more_rates, axes):
        super().__init__()
        try:
            self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])
            for number, block in enumerate(self.blocks):
                block.rates = rates[number], more_rates[number]
        except IndexError:
            raise InputError("a rate a layer") from None
        if sum(axes) != 16:
            raise InputError("axes of a head of 16")


def build_rated(config):
    return Rated(**config)


@pytest.mark.parametrize("order", [[2, 0, 1], [0, 2], [0, 1, 1, 2]], ids=["moved", "fewer", "more"])
def test_values_a_layer_that_no_tensor_shows_follow_their_layers(order):
    config = {"depth": 3, "rates": [8.0, 4.0, 2.0], "more_rates": [1, 1, 1], "axes": [8, 4, 4]}
    changed = edit_config(config, find_config_fields(config, build_rated, {"blocks": order}), {"blocks": order})
    assert changed["rates"] == [config["rates"][layer] for layer in order]
    assert len({**config, **changed}["more_rates"]) >= len(order)
    assert "axes" not in changed
    build_rated({**config, **changed})


def test_a_stack_that_no_field_counts_can_not_change_its_length():
    with pytest.raises(RefusedError, match="no field of the config sets the length of fixed, so a stock class can't"):
        find_config_fields(CONFIG, build, {"fixed": [0, 1]})


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("pixart", {"transformer_blocks": "num_layers"}),
        ("sd3", {"transformer_blocks": "num_layers"}),
        ("flux", {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}),
        (
            "auraflow",
            {"joint_transformer_blocks": "num_mmdit_layers", "single_transformer_blocks": "num_single_dit_layers"},
        ),
        ("dit", {"transformer_blocks": "num_layers"}),
        ("chroma", {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}),
    ],
)
def test_the_fields_of_real_classes_are_found(name, counts):
    model = build_tiny_model(name)
    source = ModelSource(name, {**model.config, "_class_name": type(model).__name__}, None, None, None)
    orders = {stack: list(range(1, len(model.get_submodule(stack)))) for stack in counts}
    fields = find_config_fields(full_config(source), lambda config: type(model).from_config(config), orders)
    assert dict(fields.counts) == counts
    assert all(not names for names in (*fields.lists.values(), *fields.values.values()))


def test_equal_stacks_are_told_apart():
    """Flux with as many double as single blocks: each field changes one stack only."""
    model = diffusers.FluxTransformer2DModel(
        num_layers=3, num_single_layers=3, num_attention_heads=2, attention_head_dim=8, axes_dims_rope=(2, 2, 4)
    )
    config = {**model.config, "_class_name": "FluxTransformer2DModel"}
    source = ModelSource("flux", config, None, None, None)
    orders = {"transformer_blocks": [0, 1, 2], "single_transformer_blocks": [0]}
    fields = find_config_fields(full_config(source), lambda c: type(model).from_config(c), orders)
    assert dict(fields.counts) == {"single_transformer_blocks": "num_single_layers"}


@pytest.mark.parametrize(
    ("order", "listed"), [([0, 1, 2, 3], [0, 1, 2]), ([1, 3, 4], [0]), ([3, 2, 0, 0, 4], [1, 2, 3]), ([3, 4], [])]
)
def test_dual_attention_layers_are_numbered_anew(order, listed):
    model = TINY_MODELS["sd3-dual"]()
    config = {**model.config, "_class_name": "SD3Transformer2DModel"}
    source = ModelSource("sd3", config, None, None, None)
    orders = {"transformer_blocks": order}
    fields = find_config_fields(full_config(source), lambda c: type(model).from_config(c), orders)
    changed = edit_config(full_config(source), fields, orders)
    assert changed["dual_attention_layers"] == listed
    assert changed.get("num_layers", 5) == len(order)


class Ends(nn.Module):
    """A stack whose first `wide` blocks are of one kind, and whose last `biased` blocks are of another."""

    def __init__(self, depth, wide, biased=0, channels=2):
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.Linear(channels, 8 if i < wide else 4, bias=i >= depth - biased) for i in range(depth)]
        )


def build_ends(config):
    return Ends(**config)


@pytest.mark.parametrize(
    ("config", "order", "changed"),
    [
        ({"depth": 4, "wide": 2}, [0, 1, 1, 2, 3], {"depth": 5, "wide": 3}),
        ({"depth": 4, "wide": 2}, [1, 2, 3], {"depth": 3, "wide": 1}),
        ({"depth": 4, "wide": 2}, [2, 3], {"depth": 2, "wide": 0}),
        ({"depth": 4, "wide": 2}, [0, 1, 3], {"depth": 3}),
        ({"depth": 4, "wide": 2}, [1, 0, 3, 2], {}),
        ({"depth": 4, "wide": 4}, [0, 1, 2, 3, 3], {"depth": 5, "wide": 5}),  # all of them are of this kind
        ({"depth": 4, "wide": 48}, [0, 1, 3], {"depth": 3}),
        ({"depth": 4, "wide": 0, "biased": 2}, [0, 1, 2, 3, 3], {"depth": 5, "biased": 3}),
        ({"depth": 4, "wide": 0, "biased": 2}, [0, 0, 1, 2, 3], {"depth": 5}),
        ({"depth": 5, "wide": 2, "biased": 1}, [0, 0, 1, 2, 4, 4], {"depth": 6, "wide": 3, "biased": 2}),
    ],
)
def test_fields_that_count_the_first_or_the_last_blocks_follow(config, order, changed):
    config = {"channels": 2, "biased": 0, **config}
    fields = find_config_fields(config, build_ends, {"blocks": order})
    assert edit_config(config, fields, {"blocks": order}) == changed
    before, after = build_ends(config), build_ends({**config, **changed})
    assert [after.blocks[place].weight.shape for place in range(len(order))] == [
        before.blocks[layer].weight.shape for layer in order
    ]


@pytest.mark.parametrize(
    ("config", "order", "side"),
    [
        ({"depth": 4, "wide": 2}, [2, 0, 1, 3], "first"),
        ({"depth": 4, "wide": 2}, [3, 2, 1, 0], "first"),
        ({"depth": 4, "wide": 0, "biased": 1}, [0, 3, 1, 2], "last"),
    ],
)
def test_an_order_in_which_the_first_blocks_are_not_first_is_refused(config, order, side):
    config = {"channels": 2, "biased": 0, **config}
    fields = find_config_fields(config, build_ends, {"blocks": order})
    with pytest.raises(RefusedError, match=f"of the config says how many of the {side} blocks of blocks are of their"):
        edit_config(config, fields, {"blocks": order})
