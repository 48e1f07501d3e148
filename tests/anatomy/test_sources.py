"""The name of a model -> its config and anatomy, from folders, the hub's cache, and `demo`; no network, no weights."""

import json
import os
import struct
import subprocess
import sys

import diffusers
import huggingface_hub.constants
import pytest
import torch

import surgery
from surgery.anatomy import sources
from surgery.anatomy.from_model import read_anatomy
from surgery.anatomy.sources import dtype_of_weights, find_source, source_from_json, source_to_json
from surgery.bundled import demo_folder
from surgery.errors import InputError
from surgery.testing import build_tiny_model

HUB_ID = "somebody/tiny-transformer"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model():
    return build_tiny_model("pixart")


@pytest.fixture(scope="module")
def config(model):
    return {**model.config, "_class_name": type(model).__name__}


@pytest.fixture
def transformer_folder(tmp_path, config):
    return write_files(tmp_path / "transformer-only", {"config.json": config})


@pytest.fixture
def pipeline_folder(tmp_path, config):
    index = {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "PixArtTransformer2DModel"]}
    return write_files(tmp_path / "pipeline", {"model_index.json": index, "transformer/config.json": config})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts files into an empty hub cache, offline; returns the cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(name, files):
        repository = cache / f"models--{name.replace('/', '--')}"
        write_files(repository / "snapshots" / COMMIT, files)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return cache

    return put


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_folder_with_only_a_config_is_enough(model, transformer_folder):
    anatomy = surgery.inspect(transformer_folder)
    live = read_anatomy(build_tiny_model("pixart").to(torch.bfloat16), has_weights=False)
    assert anatomy == live
    assert (anatomy.dtype, anatomy.has_weights) == ("bfloat16", False)
    assert anatomy.num_parameters == sum(value.numel() for value in model.parameters())


def test_a_pipeline_folder_is_read_through_its_transformer(transformer_folder, pipeline_folder):
    source = find_source(str(pipeline_folder))
    assert (source.pipeline, source.folder) == (str(pipeline_folder), pipeline_folder / "transformer")
    assert find_source(str(transformer_folder)).pipeline is None
    assert surgery.inspect(str(pipeline_folder)) == surgery.inspect(str(transformer_folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_is_read_from_the_header_of_saved_weights(tmp_path, dtype):
    saved = build_tiny_model("sd3").to(dtype)
    saved.save_pretrained(tmp_path)
    anatomy = surgery.inspect(tmp_path)
    assert anatomy.has_weights
    assert anatomy.dtype == str(dtype).removeprefix("torch.")
    assert anatomy == read_anatomy(saved)


def test_no_weights_are_read(tmp_path):
    build_tiny_model("pixart").save_pretrained(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    before = surgery.inspect(tmp_path)
    (length,) = struct.unpack("<Q", weights.read_bytes()[:8])
    content = weights.read_bytes()
    weights.write_bytes(content[: 8 + length] + b"\xff" * (len(content) - 8 - length))  # not a number is left
    assert surgery.inspect(tmp_path) == before


def test_a_hub_id_is_read_from_the_cache_without_a_network(hub, config, transformer_folder):
    hub(HUB_ID, {"config.json": config})
    source = find_source(HUB_ID)
    assert (source.name, source.pipeline, source.class_name) == (HUB_ID, None, "PixArtTransformer2DModel")
    assert surgery.inspect(HUB_ID) == surgery.inspect(transformer_folder)


def test_a_hub_id_of_a_pipeline_is_read_through_its_transformer(hub, config):
    index = {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "PixArtTransformer2DModel"]}
    hub(HUB_ID, {"model_index.json": index, "transformer/config.json": config})
    assert find_source(HUB_ID).pipeline == HUB_ID


def test_the_revision_is_that_of_the_snapshot_and_another_is_not_there(hub, config):
    hub(HUB_ID, {"config.json": config})
    assert find_source(HUB_ID).revision == find_source(HUB_ID, revision=COMMIT).revision == COMMIT
    with pytest.raises(InputError, match="nor in the local cache"):
        find_source(HUB_ID, revision="f" * 40)


def test_a_snapshot_with_half_of_a_pipeline_is_not_taken_for_one(hub, config):
    """Other programs fetch single files: without the index the hub is asked."""
    hub(HUB_ID, {"transformer/config.json": config})
    with pytest.raises(InputError, match="is neither a folder nor in the local cache, and the hub can't be reached"):
        find_source(HUB_ID)


def test_the_environment_names_cache_and_mode(hub, config):
    cache = hub(HUB_ID, {"config.json": config})
    code = f"from surgery.anatomy.sources import find_source; print(find_source({HUB_ID!r}).class_name)"
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "PixArtTransformer2DModel\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": "hello"}, f"{HUB_ID} is neither a folder nor in the local cache"),
        ({"model_index.json": {"unet": ["diffusers", "U"], "vae": None}}, "has no transformer; it has unet, vae"),
        ({"config.json": {"width": 3}}, f"the config of {HUB_ID} names no _class_name"),
    ],
)
def test_a_hub_id_that_is_no_transformer_is_refused(hub, files, message):
    hub(HUB_ID, files)
    with pytest.raises(InputError, match=message):
        find_source(HUB_ID)


@pytest.mark.usefixtures("hub")
def test_a_hub_id_that_is_not_cached_is_refused_offline():
    with pytest.raises(InputError, match="nobody/nothing is neither a folder nor in the local cache"):
        find_source("nobody/nothing")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["a b/c", "owner/..", "owner/", "/name", "owner/na--me..x"])
def test_what_can_be_no_hub_id_is_refused(name):
    with pytest.raises(InputError, match=r"neither a folder nor a hub id|there is no folder"):
        find_source(name)


@pytest.mark.parametrize(
    "name", ["nothing-here", "./nothing/here", "/nothing/here", "a/b/c", "~/nothing-of-the-sort", ""]
)
def test_an_absent_path_is_refused(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there is no folder|has no model_index\.json"):
        find_source(name)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no model_index\.json or config\.json; is it a diffusers pipeline or transformer\?"),
        ({"config.json": "{broken"}, r"config\.json is no JSON: Expecting property name"),
        ({"config.json": "[1, 2]"}, r"config\.json holds no JSON object"),
        ({"config.json": "[" * 100_000}, r"config\.json is no JSON: "),
        ({"config.json": "{}"}, "names no _class_name; is it a diffusers transformer"),
        ({"config.json": {"_class_name": 3}}, "names no _class_name; is it a diffusers transformer"),
        ({"config.json": {"_class_name": "\x1b[31m"}}, "names no _class_name; is it a diffusers transformer"),
        ({"config.json": "\ufeff{}"}, r"config\.json is no JSON: Unexpected UTF-8 BOM"),  # diffusers refuses it, too
        ({"model_index.json": {"_class_name": "P", "unet": [], "vae": []}}, "has no transformer; it has unet, vae"),
        ({"model_index.json": {"transformer": ["diffusers", "X"]}}, r"has no transformer/config\.json"),
        ({"model_index.json": "nope"}, r"model_index\.json is no JSON"),
    ],
)
def test_a_folder_that_is_no_transformer_is_refused(tmp_path, files, message):
    folder = write_files(tmp_path / "folder", files)
    folder.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        find_source(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "NoSuchTransformer"}, r"diffusers \S+ has no class NoSuchTransformer, which .* needs"),
        ({"_class_name": "__version__"}, r"diffusers \S+ has no class __version__"),
        ({"num_layers": "many"}, "PixArtTransformer2DModel can't be built from the config of .*: "),
        ({"num_attention_heads": None}, "PixArtTransformer2DModel can't be built from the config of .*: "),
        ({"patch_size": 0}, "PixArtTransformer2DModel can't be built from the config of .*: "),
        ({"num_layers": 0}, "has no stack of blocks"),
        ({"sample_size": 10**15}, "PixArtTransformer2DModel can't be built from the config of .*: "),
        ({"caption_channels": 10**30}, "PixArtTransformer2DModel can't be built from the config of .*: "),
        (
            {"activation_fn": 7, "_use_default_values": []},
            "PixArtTransformer2DModel can't be built from the config of .*: ",
        ),
        ({"unknown": json.loads("[" * 300 + "]" * 300)}, r"config\.json holds lists in lists.* more than 100 deep"),
        ({"_class_name": "DDPMScheduler"}, "the config of .* is of a DDPMScheduler, which is no model of diffusers"),
        ({"_class_name": "FluxPipeline"}, "the config of .* is of a FluxPipeline, which is no model of diffusers"),
    ],
)
def test_a_config_that_builds_no_transformer_is_refused(tmp_path, config, changes, message):
    folder = write_files(tmp_path / "folder", {"config.json": {**config, **changes}})
    with pytest.raises(InputError, match=message):
        surgery.inspect(folder)


def test_a_config_that_leaves_a_size_of_the_row_empty_is_known_by_inputs_that_are_found(tmp_path, config):
    anatomy = surgery.inspect(write_files(tmp_path / "folder", {"config.json": {**config, "caption_channels": None}}))
    assert [stack.streams for stack in anatomy.stacks] == [("hidden_states",)] and anatomy.trace_failure is None


@pytest.mark.parametrize("num_layers", [501, 400])  # too many whatever they are made of, and too many of theirs
def test_a_config_that_counts_too_many_blocks_is_refused(tmp_path, config, monkeypatch, num_layers):
    monkeypatch.setattr(sources, "MAX_MODULES", 500)
    folder = write_files(tmp_path / "folder", {"config.json": {**config, "num_layers": num_layers}})
    with pytest.raises(InputError, match=r"than 500 modules .*; its largest numbers are "):
        surgery.inspect(folder)
    write_files(folder, {"config.json": config})
    assert surgery.inspect(folder).stacks  # and no hook is left behind


def test_a_config_that_counts_blocks_without_end_is_refused_before_anything_is_built(tmp_path, config, monkeypatch):
    monkeypatch.setattr(diffusers.PixArtTransformer2DModel, "from_config", None)
    folder = write_files(tmp_path / "folder", {"config.json": {**config, "num_layers": 2**63}})
    with pytest.raises(InputError, match=rf"than 15,000 modules .*; its largest numbers are num_layers: {2**63}, "):
        surgery.inspect(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.ckpt", r"model\.ckpt is a file; name the folder of a pipeline or of a transformer, or a \.safetensors"),
        ("model.safetensors", r"model\.safetensors is no sound safetensors file: it has 0 bytes"),
        ("diffusion_pytorch_model.safetensors", "is a file of a diffusers folder; name the folder, "),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, name, message):
    path = tmp_path / name
    path.touch()
    with pytest.raises(InputError, match=message):
        find_source(str(path))


def test_a_single_file_is_known_by_the_config_beside_it(tmp_path, config):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    write_files(tmp_path, {"config/config.json": config})
    source = find_source(str(path))
    assert (source.file, source.folder, source.pipeline) == (path, tmp_path / "config", None)
    assert source_from_json(source_to_json(source)) == source
    assert surgery.inspect(path).class_name == "PixArtTransformer2DModel"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes, less than the 8 of a header's length"),
        (struct.pack("<Q", 500) + b"{}", "its header of 500 bytes is longer than the file"),
        (struct.pack("<Q", 7) + b'{"a":1}', "'a' is not described by dtype, shape and data_offsets"),
    ],
)
def test_corrupt_weights_are_refused(transformer_folder, content, message):
    (transformer_folder / "w.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=rf"w\.safetensors is no sound safetensors file: {message}"):
        surgery.inspect(transformer_folder)


def test_a_file_of_metadata_alone_tells_no_dtype(tmp_path):
    header = b'{"__metadata__":{"format":"pt"}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert dtype_of_weights(tmp_path) is None


@pytest.mark.parametrize(("names", "dtype"), [(["I8", "F16"], "float16"), (["BOOL"], "bool"), (["ABS"], "abs")])
def test_the_dtype_is_that_of_floats_and_an_odd_one_does_no_harm(transformer_folder, names, dtype):
    entries = {f"t{n}": {"dtype": name, "shape": [0], "data_offsets": [0, 0]} for n, name in enumerate(names)}
    header = json.dumps(entries).encode()
    (transformer_folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    anatomy = surgery.inspect(transformer_folder)
    assert (anatomy.dtype, anatomy.size_bytes) == (dtype, 2 * anatomy.num_parameters)


def test_demo_is_the_bundled_pipeline():
    source = find_source("demo")
    assert (source.name, source.pipeline) == ("demo", str(demo_folder()))
    assert source.folder == demo_folder() / "transformer"
