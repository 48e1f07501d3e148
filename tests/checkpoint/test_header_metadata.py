"""What a header and a config say of layers follows the layers; hashes of other contents are left out."""

import json
from pathlib import Path

import pytest

from surgery.anatomy.tensor_files import TensorFile, Weights
from surgery.checkpoint.header_metadata import join_metadata, keep_metadata
from surgery.checkpoint.layer_names import LayerNames
from surgery.errors import RefusedError

ORDERS = {"transformer_blocks": [0, 2, 2], "blocks.list": [1, 0]}  # block 1 is gone, 2 runs twice; two are swapped


@pytest.mark.parametrize(
    "key", ["modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "sha256", "model_hash", "hash"]
)
def test_a_hash_of_the_contents_is_left_out(key):
    found = keep_metadata({key: "0x12", "format": "pt"}, {})
    assert (found.kept, found.stale) == ({"format": "pt"}, (key,))


@pytest.mark.parametrize("key", ["ss_sd_model_hash", "ss_new_vae_hash", "base_model_sha256", "hashtags", "rehash"])
def test_a_hash_of_something_else_is_kept(key):
    """Of the model that an adapter was trained on, say."""
    assert keep_metadata({key: "12"}, ORDERS).kept == {key: "12"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"transformer_blocks.0.attn": 1}, {"transformer_blocks.0.attn": 1}),
        ({"transformer_blocks.1.attn": 1, "proj_out": 2}, {"proj_out": 2}),
        (
            {"transformer.transformer_blocks.2": 1},
            {"transformer.transformer_blocks.1": 1, "transformer.transformer_blocks.2": 1},
        ),
        (["transformer_blocks.1", "transformer_blocks.2.ff"], ["transformer_blocks.1.ff", "transformer_blocks.2.ff"]),
        (
            {"layers": {"blocks.list.1.x": {"of": ["blocks.list.0.y"]}}},
            {"layers": {"blocks.list.0.x": {"of": ["blocks.list.1.y"]}}},
        ),
        ({"as": "blocks.list.1"}, {"as": "blocks.list.0"}),
        ("blocks.list.1", "blocks.list.0"),
        (["text_encoder.transformer_blocks.1.x", "lora_transformer_blocks_0_attn"],) * 2,
        (
            [r"transformer_blocks\.0\..*", "my_transformer_blocks.1", 3, None],
            [r"transformer_blocks\.0\..*", "my_transformer_blocks.1", 3, None],
        ),
    ],
)
def test_names_of_layers_follow_the_layers(before, after):
    assert LayerNames(ORDERS).follow(before) == after
    text = keep_metadata({"quantization": json.dumps(before)}, ORDERS).kept["quantization"]
    assert json.loads(text) == after


def test_an_entry_named_by_a_layer_follows_it():
    found = keep_metadata({"transformer_blocks.1.scale": "2.0", "transformer_blocks.2.scale": "3.0"}, ORDERS)
    assert found.kept == {"transformer_blocks.1.scale": "3.0", "transformer_blocks.2.scale": "3.0"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"first": "transformer_blocks.1"}, "transformer_blocks.1 can't follow"),
        ({"first": "transformer_blocks.2.ff"}, "transformer_blocks.2.ff can't follow"),
        (
            [r"^transformer_blocks\.2\."],
            r"transformer_blocks\.2 within '^transformer_blocks\\.2\\.' can't follow",
        ),
        ([r"transformer_blocks\.(1|2)\.ff"], r"transformer_blocks\.(1|2) within "),
        (["transformer_blocks.[1-2].*"], r"transformer_blocks.[1-2] within "),
        (["transformer_blocks.[0-9].attn", "transformer_blocks.[0-9]+.ff"], "transformer_blocks.[0-9] within "),
        (["transformer_blocks.0-2"], "transformer_blocks.0-2 can't follow"),
        ({"lora_transformer_transformer_blocks_2_attn": 1}, "_transformer_blocks_2 within "),
        ({"transformer_blocks": {"2": 8}}, "transformer_blocks: 2 can't follow"),
        ("kept: transformer_blocks.0 and transformer_blocks.1", "transformer_blocks.1 within 'kept: "),
    ],
)
def test_what_can_not_be_told_is_refused(data, said):
    with pytest.raises(RefusedError) as raised:
        keep_metadata({"note": json.dumps(data)}, ORDERS)
    assert str(raised.value).startswith(f"the header's 'note' is by layer: {said}")


def test_history_is_no_address():
    """How a trainer was called, and what people wrote, are not changed by what was cut later."""
    said = {"ss_network_args": '{"a": "transformer_blocks.1"}', "modelspec.description": "without transformer_blocks.1"}
    assert keep_metadata(said, ORDERS).kept == said


def test_the_headers_of_all_shards_are_one_or_refused():
    def shards(*headers):
        return Weights(tuple(TensorFile(Path(f"{n}.safetensors"), 8, 0, {}, said) for n, said in enumerate(headers)))

    assert join_metadata(shards({"format": "pt", "hash": "1"}, {"by": "me", "hash": "2"}))["by"] == "me"
    with pytest.raises(RefusedError, match=r"the header of 1.safetensors says another thing of 'layers' than"):
        join_metadata(shards({"layers": "1"}, {"layers": "2"}))
