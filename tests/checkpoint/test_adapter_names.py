"""What the names in an adapter's file mean, and what is refused; on shapes alone, no model is built."""

import pytest

from surgery.anatomy.tensor_files import StoredTensor
from surgery.checkpoint.adapter_metadata import PEFT_KEY, remap_metadata
from surgery.checkpoint.adapter_names import AdapterNames, OfLayer, OfModule
from surgery.checkpoint.new_checkpoint import Segment
from surgery.checkpoint.remap import FittedClass, remap_adapter
from surgery.errors import InputError, RefusedError

STACKS = {"transformer_blocks": 3, "single_transformer_blocks": 2}
INSIDE = {
    "transformer_blocks": ["attn.to_q", "attn.to_out.0", "ff.net.2", "norm1.linear"],
    "single_transformer_blocks": ["attn.to_q", "proj_out"],
}
SHAPES = {
    f"{stack}.{index}.{inside}.{leaf}": [4, 4] if leaf == "weight" else [4]
    for stack, count in STACKS.items()
    for index in range(count)
    for inside in INSIDE[stack]
    for leaf in ("weight", "bias")
} | {"x_embedder.weight": [4, 4], "proj_out.weight": [4, 4], "pos_embed": [4]}
NAMES = AdapterNames("TinyTransformer", SHAPES, STACKS)


def fitted(orders=None, changed=None):
    """A plan that runs the layers of `orders`; `changed` names what becomes of tensors in their new places."""
    orders = {stack: list(range(count)) for stack, count in STACKS.items()} | (orders or {})
    tensors = {name: (Segment(name, 0, 4),) for name in SHAPES if not name.startswith(tuple(STACKS))}
    for stack, order in orders.items():
        for position, index in enumerate(order):
            for name in SHAPES:
                if name.startswith(f"{stack}.{index}."):
                    new = f"{stack}.{position}.{name.removeprefix(f'{stack}.{index}.')}"
                    tensors[new] = (Segment(name, 0, 4),)
    for name, segments in (changed or {}).items():
        if segments is None:
            del tensors[name]
        else:
            tensors[name] = segments
    return FittedClass("TinyTransformer", SHAPES, tensors, orders, STACKS)


def adapter(*names, shape=(4, 2)):
    return {name: StoredTensor(name, "F32", shape, 0, 32) for name in names}


def renamed(names, **plan):
    return [tensor.name for tensor in remap_adapter(adapter(*names), fitted(**plan)).tensors]


SPELLINGS = [
    "transformer_blocks.{}.attn.to_q.lora_A.weight",
    "transformer.transformer_blocks.{}.attn.to_q.lora_B.weight",
    "transformer.transformer_blocks.{}.attn.to_q.lora_A.default.weight",
    "base_model.model.transformer_blocks.{}.attn.to_q.lora_B.bias",
    "base_model.model.transformer.transformer_blocks.{}.attn.to_q.lora_magnitude_vector",
    "transformer.transformer_blocks.{}.attn.to_q.alpha",
    "transformer.transformer_blocks.{}.attn.to_out.0.lora.up.weight",
    "transformer.transformer_blocks.{}.attn.to_out.0.lokr_w2_a",
    "transformer.transformer_blocks.{}.ff.net.2.weight",
    "diffusion_model.transformer_blocks.{}.ff.net.2.lora_down.weight",
    "lora_transformer_transformer_blocks_{}_attn_to_q.lora_down.weight",
    "lora_transformer_blocks_{}_attn_to_out_0.lora_up.weight",
    "lora_unet_transformer_blocks_{}_attn_to_q.dora_scale",
    "lycoris_transformer_blocks_{}_ff_net_2.lokr_w1",
    "lycoris_single_transformer_blocks_{}_proj_out.hada_w1_a",
    "transformer.lycoris_transformer_blocks_{}_norm1_linear.diff_b",
    "transformer_blocks_{}_norm1_linear.lokr_t2",
]
AUTHORS = [
    "lora_unet_double_blocks_{}_img_attn_qkv.lora_down.weight",
    "lora_unet_joint_blocks_{}_x_block_attn_qkv.alpha",
    "diffusion_model.double_blocks.{}.img_attn.qkv.lora_A.weight",
    "double_blocks.{}.img_mlp.0.lokr_w1",
    "model.diffusion_model.joint_blocks.{}.context_block.attn.qkv.lora_B.weight",
    "lora_unet_single_blocks_{}_linear1.lora_up.weight",
    "transformer.transformer_blocks.{}.attn.to_qkv.lokr_w1",
    "lycoris_transformer_blocks_{}_attn_to_qkv.lokr_w2",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_module_is_known_and_kept(spelling):
    found = NAMES.find(spelling.format(1))
    assert isinstance(found, OfModule) and ".1." in found.module
    assert found.name_for(found.module) == spelling.format(1)
    names = renamed([spelling.format(1), "x_embedder.alpha"], orders={stack: [0, 0, 1, 1] for stack in STACKS})
    assert names == [spelling.format(2), spelling.format(3), "x_embedder.alpha"]


@pytest.mark.parametrize("spelling", AUTHORS)
def test_the_authors_layers_are_renumbered_as_a_whole(spelling):
    assert isinstance(NAMES.find(spelling.format(1)), OfLayer)
    assert renamed([spelling.format(1)], orders={s: [1, 0, 1] for s in STACKS}) == [
        spelling.format(0),
        spelling.format(2),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "transformer.time_embed.proj.lora_A.weight",
        "lora_unet_final_layer_linear.alpha",
        "x_embedder.lora_A.weight",
        "lycoris_proj_out.diff",
        "pos_embed",
        "",
    ],
)
def test_what_is_in_no_layer_stays_as_it_is(name):
    known = "transformer_blocks.0.attn.to_q.lora_A.weight"
    assert sorted(renamed([name, known], orders={"transformer_blocks": [1, 0]})) == sorted(
        [name, known.replace("0", "1")]
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["transformer.transformer_blocks.3.attn.to_q.lora_A.weight"], r"is of layer 3, and the transformer_blocks of"),
        (["lora_unet_double_blocks_18_img_attn_qkv.alpha"], r"is of layer 18, .* has 3; was it made for another model"),
        (["lora_unet_down_blocks_0_attentions_0_proj_in.alpha"], r"a layer that a TinyTransformer does not have"),
        (
            ["transformer.blocks_of.0.to_q.alpha"],
            r"it names no module of a TinyTransformer: it has transformer\.blocks",
        ),
        (
            ["model.layers.0.mlp.lora_A.weight", "a", "b", "c"],
            r"it has model\.layers\.0\.mlp\.lora_A\.weight, a, b; exp",
        ),
        (
            [],
            r"it has no tensor at all; expected are names like transformer\.transformer_blocks\.0\.attn\.to_q\.lora_A",
        ),
        (
            ["transformer_blocks.0.attn.to_q.weight"],
            r"holds 1 tensors of a TinyTransformer as they are, and no adapter",
        ),
        (["transformer_blocks.2.attn.to_q.alpha"], r"nothing would be left of it: transformer_blocks\[2\]\.attn\.to_q"),
    ],
)
def test_a_foreign_adapter_is_refused(names, message):
    with pytest.raises((InputError, RefusedError), match=message):
        renamed(names, orders={"transformer_blocks": [0, 1]})


HALF = (
    Segment("transformer_blocks.1.norm1.linear.weight", 2, 4),
    Segment("transformer_blocks.1.norm1.linear.weight", 0, 2),
)
CHANGES = {
    "zero": {
        "transformer_blocks.1.attn.to_q.weight": (Segment("transformer_blocks.1.attn.to_q.weight", 0, 4, "zero"),)
    },
    "rows": {"transformer_blocks.1.norm1.linear.weight": HALF},
    "gone": {"transformer_blocks.1.ff.net.2.weight": None, "transformer_blocks.1.ff.net.2.bias": None},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("spelling", AUTHORS[:2])
def test_the_authors_names_are_refused_where_their_layer_changes(spelling, change):
    with pytest.raises(
        RefusedError, match=r"transformer_blocks\[1\] is not the same at transformer_blocks\.1; convert"
    ):
        renamed([spelling.format(1)], changed=CHANGES[change])
    assert renamed([spelling.format(0)], changed=CHANGES[change]) == [spelling.format(0)]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("transformer_blocks.1.attn.to_q.lora_B.weight", "zero", "its output is constant now"),
        ("transformer_blocks.1.ff.net.2.lora_B.weight", "gone", "the stock class has no such module at its new place"),
        ("lycoris_transformer_blocks_1_norm1_linear.lokr_w1", "rows", "which lokr_w1 can't follow"),
        ("lycoris_transformer_blocks_1_norm1_linear.oft_blocks", "rows", "which oft_blocks can't follow"),
    ],
)
def test_what_can_not_follow_falls_away_with_its_reason(name, change, reason):
    other = "transformer_blocks.0.attn.to_q.lora_A.weight"
    done = remap_adapter(adapter(name, other), fitted(changed=CHANGES[change]))
    assert [tensor.name for tensor in done.tensors] == [other]
    (fallen,) = done.fallen
    assert fallen.reason.endswith(reason) and fallen.tensors == (name,) and fallen.position == 1
    assert done.num_fallen == 1


def test_a_magnitude_of_columns_can_not_be_cut_by_rows():
    name = "lycoris_transformer_blocks_1_norm1_linear.dora_scale"
    stored = adapter("x_embedder.alpha") | adapter(name, shape=(1, 4))
    done = remap_adapter(stored, fitted(changed=CHANGES["rows"]))
    assert done.fallen[0].reason == "only some rows of its weight are kept, which dora_scale can't follow"


def test_two_tensors_of_one_new_name_are_refused():
    names = ["transformer_blocks.1.attn.to_q.alpha", "transformer_blocks_1_attn_to_q.alpha"]
    assert renamed(names) == names
    with pytest.raises(InputError, match=r"two of its tensors would be transformer_blocks\.1\.attn\.to_q\.alpha; does"):
        renamed([*names, "transformer_blocks.01.attn.to_q.alpha"])


def test_names_without_end_are_read_in_no_time():
    other = "transformer_blocks.1.attn.to_q.alpha"
    for long in ("_" * 10**6, "." * 10**5, "transformer." + "blocks_" * 10**5):
        assert renamed([long, other]) == [long, other]
    with pytest.raises(InputError, match=r"^transformer_blocks\.9{100,120}\.\.\. is of a layer that"):
        renamed([f"transformer_blocks.{'9' * 10**5}.a", other])


MOVES = {"transformer_blocks.1.attn.to_q": ("transformer_blocks.0.attn.to_q",)}
PRESENT = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "is no JSON: "),
        ("[" * 100_000, "is no JSON: "),
        ("[]", "is no JSON object"),
        ('{"target_modules": ["to_q"], "rank_pattern": [1]}', "a rank_pattern that is no map"),
        ('{"target_modules": ["to_q"], "alpha_pattern": {"(": 1}}', r"'\(' in alpha_pattern, which is no pattern"),
        ('{"target_modules": ["to_q"], "modules_to_save": ["transformer_blocks.1.ff"]}', "has modules_to_save"),
        ('{"target_modules": ["to_q"], "layer_replication": [[0, 1]]}', "has layer_replication"),
        ('{"transformer.target_modules": "to_q", "transformer.target_parameters": ["a.3.b"]}', "has target_parameters"),
    ],
)
def test_metadata_that_can_not_follow_is_refused(said, message):
    with pytest.raises((InputError, RefusedError), match=message):
        remap_metadata({PEFT_KEY: said}, MOVES, PRESENT)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("targets", ['"all-linear"', '["to_q", "to_v"]', '["transformer_blocks.1.attn.to_q"]', "null"])
def test_targets_are_written_out_where_they_say_something_else_now(prefix, targets):
    said = (
        f'{{"{prefix}target_modules": {targets}, "text_encoder.target_modules": ["q"], "{prefix}layers_pattern": "x"}}'
    )
    done = remap_metadata({PEFT_KEY: said, "mine": "mine"}, MOVES, PRESENT)
    assert done["mine"] == "mine"
    assert f'"{prefix}target_modules": [\n    "transformer_blocks.0.attn.to_q"\n  ]' in done[PEFT_KEY]
    assert f'"{prefix}layers_pattern": null' in done[PEFT_KEY]
    assert '"text_encoder.target_modules": [\n    "q"\n  ]' in done[PEFT_KEY]
