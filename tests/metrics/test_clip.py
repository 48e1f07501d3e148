"""CLIP scores are those of open_clip used by hand; each of its traps is an error with a way out."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from surgery.errors import InputError
from surgery.metrics.clip_model import load_clip
from surgery.metrics.clip_score import clip_scores
from surgery.metrics.feature_cache import features_of
from surgery.metrics.kernel_distance import cmmd
from surgery.metrics.paired import feature_cosine
from surgery.metrics.pictures import pictures_of_tensor

PROMPTS = ["a red apple on a table", "two blue birds", "a red apple on a table", "a small house"]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPARED = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def weights():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CLIP(**json.loads(json.dumps(CONFIG))).state_dict()


@pytest.fixture
def folder(tmp_path, weights):
    return save_clip(tmp_path / "tiny-clip", weights)


def save_clip(folder, weights, **config):
    folder.mkdir(exist_ok=True)
    text = json.dumps({"model_cfg": CONFIG, "preprocess_cfg": PREPARED, **config})
    (folder / "open_clip_config.json").write_text(text)
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.fixture
def named(tmp_path, monkeypatch, weights):
    """A model with a twin of the other activation, known to open_clip by name; and a file of its weights."""
    from open_clip import factory, pretrained

    configs = dict(factory._MODEL_CONFIGS)
    configs |= {"tiny": CONFIG, "tiny-quickgelu": {**CONFIG, "quick_gelu": True}, "lonely": CONFIG}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", configs)
    alike = {"url": "", "hf_hub": "org/tiny/", "mean": [0.4] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}
    quick = {**alike, "quick_gelu": True}
    for name in ("tiny", "tiny-quickgelu"):
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"openai": quick, "laion": alike})
    path = tmp_path / "tiny.bin"
    torch.save(weights, path)
    return path


def by_hand(name, pixels, prompts, **options):
    """The loop of open_clip's own README."""
    model, _, prepare = open_clip.create_model_and_transforms(name, **options)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    found = []
    for picture, prompt in zip(pixels, prompts, strict=True):
        image = prepare(Image.fromarray(picture.permute(1, 2, 0).numpy())).unsqueeze(0)
        with torch.no_grad():
            one, other = model.encode_image(image), model.encode_text(tokenizer([prompt]))
        one /= one.norm(dim=-1, keepdim=True)
        other /= other.norm(dim=-1, keepdim=True)
        found.append(float((one @ other.T)[0, 0]))
    return found


def test_scores_are_those_of_a_loop_by_hand(folder, make_pixels):
    pixels = make_pixels(4)
    found = clip_scores(load_clip(f"local-dir:{folder}"), pictures_of_tensor(pixels), PROMPTS, batch_size=3)
    assert found.cosines == pytest.approx(by_hand(f"local-dir:{folder}", pixels, PROMPTS), abs=1e-6)
    assert found.cosines.dtype == np.float64
    assert found.cut == ()


def test_a_folder_brings_its_own_preparation(folder, tmp_path, weights, make_pixels):
    pictures = pictures_of_tensor(make_pixels(4))
    own = load_clip(f"local-dir:{folder}")
    assert own.resize == "(24, 24) px, bilinear by Pillow, squash side, then centred"
    other = load_clip(f"local-dir:{save_clip(tmp_path / 'b', weights, preprocess_cfg={'mean': [0, 0, 0]})}")
    assert other.digest == own.digest
    assert not np.allclose(clip_scores(own, pictures, PROMPTS).cosines, clip_scores(other, pictures, PROMPTS).cosines)


def test_names_take_a_file_of_weights_with_the_preparation_of_their_tag(named, make_pixels):
    pixels = make_pixels(4)
    found = clip_scores(load_clip("tiny-quickgelu", named), pictures_of_tensor(pixels), PROMPTS)
    right = {"image_mean": (0.4,) * 3, "image_std": (0.2,) * 3}
    expected = by_hand("tiny-quickgelu", pixels, PROMPTS, pretrained=str(named), **right)
    assert found.cosines == pytest.approx(expected, abs=1e-6)
    silently = by_hand("tiny-quickgelu", pixels, PROMPTS, pretrained=str(named))
    assert found.cosines != pytest.approx(silently, abs=1e-4)  # the trap: OpenAI's mean and std for any file


def test_the_wrong_activation_gives_other_numbers_and_is_refused(named, make_pixels):
    """The trap: OpenAI's weights under a name without quick-GELU load without a word."""
    pictures = pictures_of_tensor(make_pixels(4))
    quick = clip_scores(load_clip("tiny-quickgelu", named), pictures, PROMPTS).cosines
    plain = clip_scores(load_clip("tiny", named, tag="laion"), pictures, PROMPTS).cosines
    assert not np.allclose(quick, plain, atol=1e-5)
    with pytest.raises(
        InputError, match=r"say which weights of tiny the file holds.*openai, laion; OpenAI's are of tiny-"
    ):
        load_clip("tiny", named)
    with pytest.raises(InputError, match="the weights openai are of tiny-quickgelu, not of tiny: their activation"):
        load_clip("tiny", named, tag="openai")
    with pytest.raises(InputError, match="the weights laion are of tiny, not of tiny-quickgelu"):
        load_clip("tiny-quickgelu", named, tag="laion")
    with pytest.raises(InputError, match="knows no weights vast of tiny; it knows openai, laion"):
        load_clip("tiny", named, tag="vast")


def test_a_model_of_ones_own_needs_no_tag(named):
    assert load_clip("lonely", named).context_length == 12


def test_openais_weights_are_asked_for(tmp_path):
    with pytest.raises(InputError) as raised:
        load_clip("ViT-B-32-quickgelu", tmp_path / "none.safetensors")
    assert str(raised.value) == (
        "the CLIP score by ViT-B-32-quickgelu needs a file of its weights, and there is no "
        f"{tmp_path}/none.safetensors; fetch open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai "
        "from the Hugging Face Hub; without it there are FID and KID, and all metrics against the baseline"
    )


def test_random_weights_are_never_used(folder, weights):
    """The trap: open_clip says in a log line that a model without weights is random."""
    file = folder / "open_clip_pytorch_model.bin"
    torch.save({name: value for name, value in weights.items() if name != "ln_final.weight"}, file)
    with pytest.raises(InputError, match=r"(?s)can't be loaded as a CLIP: .*Missing key.*ln_final\.weight"):
        load_clip(f"local-dir:{folder}")
    file.unlink()
    with pytest.raises(InputError, match=r"holds no weights .*, and the model would be random"):
        load_clip(f"local-dir:{folder}")


def test_the_digest_is_of_the_weights(folder, tmp_path, weights):
    other = {name: value + 0.01 if name == "visual.proj" else value for name, value in weights.items()}
    digests = {load_clip(f"local-dir:{path}").digest for path in (folder, save_clip(tmp_path / "b", other))}
    assert len(digests) == 2


def test_prompts_that_are_cut_are_told(folder, make_pixels):
    """Twelve tokens, two of them for the ends: ten words are read whole, the eleventh is not."""
    prompts = [" ".join(["bird"] * 10), " ".join(["bird"] * 11), " ".join(["bird"] * 30), "bird"]
    model = load_clip(f"local-dir:{folder}")
    found = clip_scores(model, pictures_of_tensor(make_pixels(4)), prompts)
    assert found.cut == tuple(prompts[1:3])


def test_swapped_prompts_change_the_scores(folder, make_pixels):
    model, pictures = load_clip(f"local-dir:{folder}"), pictures_of_tensor(make_pixels(4))
    right = clip_scores(model, pictures, PROMPTS).cosines
    assert not np.allclose(right, clip_scores(model, pictures, PROMPTS[::-1]).cosines)
    with pytest.raises(InputError, match="4 pictures can't be paired with 3 prompts"):
        clip_scores(model, pictures, PROMPTS[:3])


def test_its_image_side_is_an_extractor(folder, make_pixels, tmp_path):
    model = load_clip(f"local-dir:{folder}")
    found = features_of(pictures_of_tensor(make_pixels(5)), model.extractor(), cache=tmp_path / "cache")
    assert np.linalg.norm(found.values, axis=1) == pytest.approx([1] * 5, rel=1e-6)
    assert (found.origin.extractor, found.origin.digest) == ("clip-tiny-clip", model.digest)
    assert feature_cosine(found, found).tolist() == [1.0] * 5
    assert cmmd(found, found).value == pytest.approx(0, abs=1e-9)


def test_hpsv2_is_a_vit_h_14_whose_pictures_are_padded(tmp_path):
    with pytest.raises(InputError, match="the CLIP score by ViT-H-14 needs a file of its weights, and none is given"):
        load_clip("ViT-H-14", tag="hpsv2.1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vast", "open_clip has no model vast; give one of its names, or local-dir:FOLDER"),
        ("hf-hub:org/model", "open_clip has no model hf-hub:org/model"),
        ("ViT-B-16-SigLIP", "the text side of ViT-B-16-SigLIP would be fetched from the Hub"),
        ("local-dir:/nowhere", "/nowhere is no folder in open_clip's format"),
    ],
)
def test_what_is_no_model_or_would_be_fetched_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        load_clip(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"preprocess_cfg": {}}, "has no preprocess_cfg: how pictures are prepared would be guessed"),
        ({"model_cfg": {}}, "can't be read: KeyError: 'text_cfg'"),
        ({"model_cfg": {**CONFIG, "text_cfg": {"hf_model_name": "roberta"}}}, "is roberta, which would be fetched"),
    ],
)
def test_a_folder_that_leaves_things_open_is_refused(tmp_path, weights, config, message):
    with pytest.raises(InputError, match=message):
        load_clip(f"local-dir:{save_clip(tmp_path / 'clip', weights, **config)}")


def test_a_folder_has_no_tag(folder, named):
    with pytest.raises(InputError, match="brings its own weights and preparation; leave file and tag out"):
        load_clip(f"local-dir:{folder}", named)
