"""What is needed of a repository is what diffusers itself downloads of it, and the texts; what is cached is used."""

import json

import fake_hub
import huggingface_hub.constants
import pytest
from diffusers import DiffusionPipeline

from surgery.anatomy.hub_files import fetch_source
from surgery.anatomy.needed_files import find_gaps, needed_files
from surgery.anatomy.sources import find_source
from surgery.errors import InputError

# Listings as they are on the hub. In front of a name stands who takes it: `=` diffusers and we, `+` we alone (the texts
# that a pruned model is published with), `!` diffusers alone, with the reason, `-` nobody.
FLUX_SCHNELL = """
- .gitattributes
+ README.md
- ae.safetensors
- flux1-schnell.safetensors
- schnell_grid.jpeg
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
= text_encoder/model.safetensors
= text_encoder_2/config.json
= text_encoder_2/model-00001-of-00002.safetensors
= text_encoder_2/model-00002-of-00002.safetensors
= text_encoder_2/model.safetensors.index.json
= tokenizer/merges.txt
= tokenizer/special_tokens_map.json
= tokenizer/tokenizer_config.json
= tokenizer/vocab.json
= tokenizer_2/special_tokens_map.json
= tokenizer_2/spiece.model
= tokenizer_2/tokenizer.json
= tokenizer_2/tokenizer_config.json
= transformer/config.json
= transformer/diffusion_pytorch_model-00001-of-00003.safetensors
= transformer/diffusion_pytorch_model-00002-of-00003.safetensors
= transformer/diffusion_pytorch_model-00003-of-00003.safetensors
= transformer/diffusion_pytorch_model.safetensors.index.json
= vae/config.json
= vae/diffusion_pytorch_model.safetensors
"""
SD3_MEDIUM = """
- .gitattributes
+ LICENSE.md
+ README.md
- sd3demo.jpg
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
- text_encoder/model.fp16.safetensors
= text_encoder/model.safetensors
= text_encoder_2/config.json
- text_encoder_2/model.fp16.safetensors
= text_encoder_2/model.safetensors
= text_encoder_3/config.json
= text_encoder_3/model-00001-of-00002.safetensors
= text_encoder_3/model-00002-of-00002.safetensors
- text_encoder_3/model.fp16-00001-of-00002.safetensors
- text_encoder_3/model.fp16-00002-of-00002.safetensors
- text_encoder_3/model.safetensors.index.fp16.json
= text_encoder_3/model.safetensors.index.json
= tokenizer/merges.txt
= tokenizer/vocab.json
= tokenizer_2/merges.txt
= tokenizer_2/vocab.json
= tokenizer_3/spiece.model
= tokenizer_3/tokenizer.json
= transformer/config.json
= transformer/diffusion_pytorch_model.safetensors
= vae/config.json
= vae/diffusion_pytorch_model.safetensors
"""
SD3_MEDIUM_FP16 = """
+ LICENSE.md
+ README.md
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
= text_encoder/model.fp16.safetensors
- text_encoder/model.safetensors
= text_encoder_3/config.json
- text_encoder_3/model-00001-of-00002.safetensors
- text_encoder_3/model-00002-of-00002.safetensors
= text_encoder_3/model.fp16-00001-of-00002.safetensors
= text_encoder_3/model.fp16-00002-of-00002.safetensors
= text_encoder_3/model.safetensors.index.fp16.json
- text_encoder_3/model.safetensors.index.json
= tokenizer/merges.txt
= tokenizer/vocab.json
= transformer/config.json
= transformer/diffusion_pytorch_model.safetensors
= vae/config.json
= vae/diffusion_pytorch_model.safetensors
"""
SD35_LARGE = """
+ LICENSE.md
+ README.md
- SD3.5L_example_workflow.json
- mmdit.png
= model_index.json
- sd3.5_large.safetensors
= scheduler/scheduler_config.json
= text_encoder/config.json
= text_encoder/model.safetensors
- text_encoders/README.md
- text_encoders/clip_g.safetensors
- text_encoders/t5xxl_fp8_e4m3fn.safetensors
= tokenizer/merges.txt
= tokenizer/vocab.json
= transformer/config.json
= transformer/diffusion_pytorch_model-00001-of-00002.safetensors
= transformer/diffusion_pytorch_model-00002-of-00002.safetensors
= transformer/diffusion_pytorch_model.safetensors.index.json
= vae/config.json
= vae/diffusion_pytorch_model.safetensors
"""
PIXART = """
+ README.md
- asset/images/teaser.png
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
= text_encoder/model-00001-of-00002.safetensors
= text_encoder/model-00002-of-00002.safetensors
= text_encoder/model.safetensors.index.json
- text_encoder/pytorch_model-00001-of-00002.bin
- text_encoder/pytorch_model-00002-of-00002.bin
- text_encoder/pytorch_model.bin.index.json
= tokenizer/added_tokens.json
= tokenizer/special_tokens_map.json
= tokenizer/spiece.model
= tokenizer/tokenizer_config.json
= transformer/config.json
- transformer/diffusion_pytorch_model.bin
= transformer/diffusion_pytorch_model.safetensors
= vae/config.json
- vae/diffusion_pytorch_model.bin
= vae/diffusion_pytorch_model.safetensors
"""
OTHER_FORMATS = """
+ README.md
+ LICENCE
+ NOTICE
+ Use_Policy.md
- model.onnx
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
+ text_encoder/generation_config.json
- text_encoder/flax_model.msgpack
- text_encoder/model.fp16.safetensors
= text_encoder/model.safetensors
- text_encoder/model.onnx
- text_encoder/openvino/model.bin.xml
- text_encoder/tf_model.h5
- text_encoder/LICENSE.md
= tokenizer/tokenizer.json
- tokenizer/tokenizer.msgpack
= tokenizer/words/extra.txt
= transformer/config.json
- transformer/diffusion_flax_model.msgpack
- transformer/diffusion_pytorch_model.bin
- transformer/diffusion_pytorch_model.fp16.bin
- transformer/diffusion_pytorch_model.fp16.safetensors
= transformer/diffusion_pytorch_model.safetensors
- transformer/fp8_e4m3fn.safetensors
- transformer/example.png
= vae/config.json
- vae/diffusion_pytorch_model-00001-of-00002.fp16.safetensors
- vae/diffusion_pytorch_model.safetensors.fp16.index.json
= vae/diffusion_pytorch_model.safetensors
"""
OLD_VARIANT_NAMES = """
= model_index.json
= scheduler/scheduler_config.json
= transformer/config.json
= transformer/diffusion_pytorch_model.fp16.safetensors
= text_encoder/config.json
- text_encoder/model.safetensors
= text_encoder/model-00001-of-00002.fp16.safetensors
= text_encoder/model-00002-of-00002.fp16.safetensors
= text_encoder/model.safetensors.fp16.index.json
= vae/config.json
= vae/diffusion_pytorch_model.safetensors
"""
ONE_PICKLE = """
= model_index.json
= scheduler/scheduler_config.json
= text_encoder/config.json
= text_encoder/pytorch_model-00001-of-00002.bin
= text_encoder/pytorch_model-00002-of-00002.bin
= text_encoder/pytorch_model.bin.index.json
= tokenizer/spiece.model
= transformer/config.json
+ transformer/diffusion_pytorch_model.safetensors
! transformer/diffusion_pytorch_model.bin
= vae/config.json
+ vae/diffusion_pytorch_model.safetensors
! vae/diffusion_pytorch_model.bin
"""  # where one component has pickles only, diffusers takes pickles of all
LISTINGS = {
    "FLUX.1-schnell": (FLUX_SCHNELL, None),
    "stable-diffusion-3-medium-diffusers": (SD3_MEDIUM, None),
    "stable-diffusion-3-medium-diffusers, fp16": (SD3_MEDIUM_FP16, "fp16"),
    "stable-diffusion-3.5-large": (SD35_LARGE, None),
    "PixArt-XL-2-512x512": (PIXART, None),
    "other formats": (OTHER_FORMATS, None),
    "older names of variants": (OLD_VARIANT_NAMES, "fp16"),
    "a component with pickles only": (ONE_PICKLE, None),
}
CLASSES = {
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
}


@pytest.fixture(scope="module")
def hub():
    with fake_hub.serve_hub() as served:
        yield served


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    """The hub, asked by this process with an empty cache, and nothing asked so far."""
    hub.point_client(monkeypatch, tmp_path / "cache")
    hub.log.clear()
    hub.models.clear()
    return hub


def read_listing(text, marks):
    """The names with one of these marks in front."""
    return {line[2:] for line in text.strip().splitlines() if line[0] in marks}


def index_of(names):
    """A model_index.json for the components that the names tell, the texts' folder of SD3.5 not among them."""
    parts = sorted({name.split("/")[0] for name in names if "/" in name} - {"text_encoders", "asset"})
    return {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.29.0"} | {
        part: CLASSES[part.rstrip("_23")] for part in parts
    }


def with_content(names):
    """Files of these names with next to nothing in them, no two alike: what is alike is downloaded once."""
    files = {name: {"name": name} for name in names}
    if "model_index.json" in files:
        files["model_index.json"] = index_of(names)
    return files


@pytest.mark.parametrize("name", LISTINGS)
def test_exactly_what_is_needed_is_named(name):
    listing, variant = LISTINGS[name]
    names = sorted(read_listing(listing, "=+!-"))
    found = needed_files(names, index_of(names), transformer_only=False, variant=variant)
    assert sorted(found) == sorted(read_listing(listing, "=+"))


@pytest.mark.filterwarnings("ignore")  # about variants that not all components have, and old names
@pytest.mark.parametrize("name", LISTINGS)
def test_diffusers_itself_downloads_what_the_listings_say(name, client, tmp_path):
    listing, variant = LISTINGS[name]
    client.put("owner/model", with_content(read_listing(listing, "=+!-")))
    DiffusionPipeline.download("owner/model", variant=variant, cache_dir=tmp_path / "cache")
    assert sorted(client.downloads) == sorted(read_listing(listing, "=!"))


@pytest.mark.parametrize("name", LISTINGS)
def test_with_the_transformer_alone_no_other_component_is_named(name):
    listing, variant = LISTINGS[name]
    names = read_listing(listing, "=+!-")
    found = needed_files(names, index_of(names), transformer_only=True, variant=variant)
    root = {name for name in read_listing(listing, "=+") if "/" not in name}
    assert set(found) == root | {name for name in read_listing(listing, "=+") if name.startswith("transformer/")}


def test_of_a_transformer_without_a_pipeline_the_files_in_its_root_are_named():
    shards = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    needed = ["README.md", "LICENSE", "config.json", "diffusion_pytorch_model.safetensors.index.json", *shards]
    others = ["model.safetensors", "flux1-dev.safetensors", "teaser.png", "samples/a.png", ".gitattributes"]
    others += ["diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.safetensors", "LICENSES/mit.txt", "run.json"]
    found = needed_files([*others, *needed], None, transformer_only=False, variant=None)
    assert sorted(found) == sorted(needed)


def test_the_module_of_a_pipeline_of_its_own_is_named():
    index = {"_class_name": ["my_pipeline", "MyPipeline"], "transformer": CLASSES["transformer"]}
    names = ["my_pipeline.py", "train.py", "transformer/config.json", "transformer/my_blocks.py"]
    names.append("transformer/diffusion_pytorch_model.safetensors")
    assert set(needed_files(names, index, transformer_only=False, variant=None)) == set(names) - {"train.py"}


PLAIN = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["transformer/diffusion_pytorch_model.bin"], "the weights of transformer are pickles, which are never loaded"),
        (["transformer/diffusion_pytorch_model.fp16.safetensors"], "are there as fp16 only; give --variant fp16"),
        ([PLAIN, "vae/diffusion_pytorch_model.bf16.safetensors"], "weights of vae are there as bf16 only; give --var"),
    ],
)
def test_weights_that_could_not_be_used_are_refused_before_they_are_downloaded(names, message):
    index = {"transformer": CLASSES["transformer"], "vae": CLASSES["vae"]}
    with pytest.raises(InputError, match=message):
        needed_files(names, index, transformer_only=False, variant=None)
    assert PLAIN in needed_files([PLAIN], index, transformer_only=False, variant=None)


def write_names(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def whole(tmp_path):
    """A folder with all that is needed of FLUX.1-schnell, with real indices."""
    names = read_listing(FLUX_SCHNELL, "=+")
    files = with_content(names)
    for name in names:
        if name.endswith(".index.json"):
            folder = name.partition("/")[0]
            shards = [it for it in names if it.startswith(f"{folder}/") and "-of-" in it]
            files[name] = {"weight_map": {f"w{n}": it.partition("/")[2] for n, it in enumerate(shards)}}
    return write_names(tmp_path / "whole", files)


def gaps_of(folder):
    index = json.loads((folder / "model_index.json").read_text())
    return find_gaps(folder, index, transformer_only=False, variant=None)


def test_a_folder_with_all_that_is_needed_has_no_gap(whole):
    assert gaps_of(whole) == []


@pytest.mark.parametrize(
    ("gone", "gap"),
    [
        (["text_encoder/model.safetensors"], "the weights of text_encoder"),
        (["vae/config.json", "vae/diffusion_pytorch_model.safetensors"], "vae"),
        (["text_encoder_2/model-00002-of-00002.safetensors"], "text_encoder_2/model-00002-of-00002.safetensors"),
        (
            ["transformer/diffusion_pytorch_model.safetensors.index.json"],
            "the index of transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
        ),
        (["scheduler/scheduler_config.json"], "scheduler"),
    ],
)
def test_a_gap_is_found(whole, gone, gap):
    for name in gone:
        (whole / name).unlink()
    assert gaps_of(whole) == [gap]
    index = json.loads((whole / "model_index.json").read_text())
    is_inside = gone[0].startswith("transformer/")
    assert find_gaps(whole, index, transformer_only=True, variant=None) == ([gap] if is_inside else [])


def test_a_component_that_the_index_leaves_out_is_no_gap(whole):
    index = json.loads((whole / "model_index.json").read_text()) | {"image_encoder": [None, None], "is_flow": True}
    assert find_gaps(whole, index, transformer_only=False, variant=None) == []


def without_tensors(name):
    """A safetensors file that holds nothing."""
    header = json.dumps({"__metadata__": {"name": name}}).encode()
    return len(header).to_bytes(8, "little") + header


@pytest.fixture
def published(client):
    """A pipeline on the hub whose files have next to nothing in them; enough to be fetched."""
    files = with_content(read_listing(SD35_LARGE, "=+-"))
    shards = [
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
    ]
    files["transformer/config.json"] = {"_class_name": "SD3Transformer2DModel"}
    files["transformer/diffusion_pytorch_model.safetensors.index.json"] = {"weight_map": dict(enumerate(shards))}
    files |= {name: without_tensors(name) for name in files if name.endswith(".safetensors")}
    return client.put("owner/model", files)


def test_what_is_needed_is_fetched_and_only_once(published, client):
    source = find_source("owner/model")
    fetched = fetch_source(source, transformer_only=False)
    assert fetched.revision == fake_hub.COMMIT and fetched.pipeline == str(fetched.folder.parent)
    assert client.downloads == read_listing(SD35_LARGE, "=+")
    assert all((fetched.folder.parent / name).exists() for name in read_listing(SD35_LARGE, "=+"))
    client.log.clear()
    assert fetch_source(find_source("owner/model"), transformer_only=False).folder == fetched.folder
    assert client.downloads == set()


def test_what_the_cache_has_is_used_when_the_hub_is_away(published, client, monkeypatch):
    fetched = fetch_source(find_source("owner/model"), transformer_only=False)
    client.models.clear()
    assert fetch_source(find_source("owner/model"), transformer_only=False) == fetched
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_source(find_source("owner/model"), transformer_only=False) == fetched


@pytest.mark.parametrize("away", ["offline", "removed", "down", "gated"])
def test_a_cache_that_has_but_a_part_is_not_enough_when_the_hub_is_away(published, client, monkeypatch, away):
    fetch_source(find_source("owner/model"), transformer_only=True)
    if away == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif away == "removed":
        client.models.clear()
    elif away == "gated":
        published.gated = True
    else:
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    reason = {"offline": "HF_HUB_OFFLINE keeps to the cache", "removed": "the hub has no such model, or it is private"}
    reason |= {"down": r"\[Errno 111\] Connection refused", "gated": "it is gated; accept .* then `hf auth login`"}
    lacks = "the cache lacks scheduler, text_encoder, tokenizer, vae"
    with pytest.raises(InputError, match=f"owner/model can't be downloaded: {reason[away]}.*; {lacks}$"):
        fetch_source(find_source("owner/model"), transformer_only=False)
    assert fetch_source(find_source("owner/model"), transformer_only=True).folder.name == "transformer"


def test_a_folder_is_local_already(tmp_path):
    write_names(tmp_path, {"config.json": {"_class_name": "SD3Transformer2DModel"}})
    source = find_source(str(tmp_path))
    assert fetch_source(source, transformer_only=False) is source
