"""The bundled extractor and CLIP: the recorded files, deterministic, sensitive to damage, and they know the emoji."""

import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch_fidelity
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from surgery.bundled import DEMO_PROMPTS, demo_folder
from surgery.demo.bundled_judges import bundled_extractor, bundled_judges, bundled_reference
from surgery.demo.extractor import NUM_FEATURES, extract_features, load_extractor, read_extractor
from surgery.demo.fidelity_extractor import EmojiFidelityExtractor, register_extractor
from surgery.demo.judge_files import (
    CAPTIONS_FILE,
    CLIP_FOLDER,
    CLIP_NAME,
    EXTRACTOR_FILE,
    EXTRACTOR_NAME,
    JUDGES,
    REFERENCE_FILE,
    check_digest,
    read_digests,
)
from surgery.demo.reference import load_reference
from surgery.demo.training.augment import add_noise, blur
from surgery.demo.training.emoji_clip import embed_captions, embed_pictures, load_clip
from surgery.demo.training.judge_quality import distance_between, draw_pictures, retrieve, to_bytes
from surgery.errors import InputError
from surgery.files import hash_file
from surgery.metrics.clip_model import load_clip as load_folder

ROOT = Path(__file__).parents[2]
MAX_WEIGHTS_BYTES, MAX_REFERENCE_BYTES = 6_000_000, 3_000_000
SHEET = ROOT / "tests" / "data" / "emoji.png"  # 36 of the real emoji, row by row
SHEET_NUMBERS = torch.arange(7, 7 + 36 * 31, 31)  # their places among the captions
MORE_PROMPTS = (
    *(
        "umbrella",
        "watermelon",
        "hamster",
        "skull",
        "collision",
        "oncoming bus",
        "lion",
        "bucket",
        "moose",
        "volleyball",
    ),
    *("cheese wedge", "octopus", "snowman", "crown", "teapot", "cactus"),
)
ROUNDING = 1e-4  # float32 convolutions of other batch sizes and machines, relative to the features' norm
LEAST_RETRIEVAL = 0.9  # of 24 drawn pictures; see judges/MODEL_CARD.md for the share among 200


@pytest.fixture(scope="module")
def extractor():
    return load_extractor()


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def reference():
    return load_reference()


@pytest.fixture(scope="module")
def pictures():
    """The real emoji of the sheet, uint8 (36, 3, 64, 64)."""
    with Image.open(SHEET) as sheet:
        array = np.asarray(sheet.convert("RGB"))
    return torch.from_numpy(array.copy()).view(6, 64, 6, 64, 3).permute(0, 2, 4, 1, 3).reshape(36, 3, 64, 64)


@pytest.fixture(scope="module")
def drawn(reference):
    """Pictures that the bundled pipeline draws for 24 prompts, and the prompts' places among the captions."""
    pipe = DiffusionPipeline.from_pretrained(demo_folder())
    pipe.set_progress_bar_config(disable=True)
    prompts = (*DEMO_PROMPTS, *MORE_PROMPTS)
    return draw_pictures(pipe, prompts, num_steps=10), torch.tensor(
        [reference.captions.index(prompt) for prompt in prompts]
    )


def scaled(pictures):
    return pictures.float() / 127.5 - 1


def noisy(pictures, level):
    return to_bytes(add_noise(scaled(pictures), torch.full((len(pictures),), level), torch.Generator().manual_seed(0)))


def blurred(pictures, level):
    return to_bytes(blur(scaled(pictures), torch.full((len(pictures),), level)))


def rises(values):
    return all(before < after for before, after in pairwise(values))


# The files.


def test_every_file_is_recorded_and_is_the_recorded_one():
    files = {
        file.relative_to(JUDGES).as_posix()
        for file in JUDGES.rglob("*")
        if file.is_file() and file.suffix != ".md" and file.name != "SHA256SUMS"
    }
    assert set(read_digests()) == files
    assert all(check_digest(JUDGES / name) == digest for name, digest in read_digests().items())


def test_they_are_small():
    assert sum(file.stat().st_size for file in (EXTRACTOR_FILE, *CLIP_FOLDER.iterdir())) < MAX_WEIGHTS_BYTES
    assert sum(file.stat().st_size for file in REFERENCE_FILE.parent.iterdir()) < MAX_REFERENCE_BYTES


def test_a_changed_file_is_refused(tmp_path):
    folder = shutil.copytree(JUDGES, tmp_path / "judges")
    file = folder / EXTRACTOR_FILE.relative_to(JUDGES)
    assert check_digest(file, folder) == check_digest(EXTRACTOR_FILE)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"is not the file that this version was released with.*{hash_file(file)}"):
        check_digest(file, folder)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="is missing; install the package again"):
        check_digest(tmp_path / "clip" / "nothing", tmp_path)


def test_their_names_and_places_load_nothing_heavy():
    code = "import sys, surgery.demo.judge_files; print({'torch', 'numpy', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# The extractor.


def test_extraction_is_deterministic(extractor, pictures):
    assert torch.equal(extract_features(extractor, pictures), extract_features(load_extractor(), pictures))


def test_features_are_float32_whatever_the_arithmetic(extractor, pictures):
    single = extract_features(extractor, pictures)
    double = extract_features(load_extractor().double(), pictures)
    assert (single.shape, single.dtype, double.dtype) == ((36, NUM_FEATURES), torch.float32, torch.float32)
    assert (single - double).norm() < ROUNDING * double.norm()
    assert not torch.equal(single, double)


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((2, 3, 64, 64), torch.float32, r"not float32 of \(2, 3, 64, 64\)"),
        ((2, 3, 32, 32), torch.uint8, r"not uint8 of \(2, 3, 32, 32\)"),
        ((3, 64, 64), torch.uint8, r"not uint8 of \(3, 64, 64\)"),
        ((2, 64, 64, 3), torch.uint8, r"not uint8 of \(2, 64, 64, 3\)"),
    ],
)
def test_other_pictures_are_refused(extractor, shape, dtype, found):
    with pytest.raises(InputError, match=f"reads uint8 pictures of shape .N, 3, 64, 64., {found}"):
        extractor(torch.zeros(shape, dtype=dtype))


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    weights = load_file(EXTRACTOR_FILE)
    weights.pop("out.weight")
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(RuntimeError, match=r'Missing key.*"out.weight"'):
        read_extractor(tmp_path / "less.safetensors")


@pytest.mark.parametrize(("damage", "levels"), [(noisy, (0.02, 0.05, 0.1, 0.2, 0.4)), (blurred, (0.5, 1.0, 2.0, 4.0))])
def test_more_damage_is_farther_away(extractor, pictures, damage, levels):
    clean = extract_features(extractor, pictures)
    found = [extract_features(extractor, damage(pictures, level)) for level in levels]
    assert rises([0.0, *(float((features - clean).norm(dim=1).mean()) for features in found)])
    assert rises([0.0, *(float((1 - F.cosine_similarity(features, clean)).mean()) for features in found)])
    assert rises([distance_between(features, clean) for features in (clean, *found)])


def test_the_reference_is_of_this_extractor(reference):
    assert reference.extractor_digest == hash_file(EXTRACTOR_FILE)
    assert reference.features.shape == (len(reference.captions), NUM_FEATURES)
    assert len(set(reference.captions)) == len(reference.captions) == 1122
    assert distance_between(reference.features, reference.features) < 1e-6


def test_the_mean_and_covariance_are_of_the_features(reference):
    features = reference.features.double()
    centred = features - features.mean(0)
    assert np.allclose(reference.mean(), features.mean(0), rtol=0, atol=1e-12)
    assert np.allclose(reference.covariance(), centred.T @ centred / (len(features) - 1), rtol=1e-9, atol=1e-12)


def test_a_real_picture_has_the_reference_features_and_is_nearest_to_itself(extractor, reference, pictures):
    features = extract_features(extractor, pictures)
    own = reference.features[SHEET_NUMBERS]
    assert ((features - own).norm(dim=1) < ROUNDING * own.norm(dim=1)).all()
    assert torch.equal(torch.cdist(features, reference.features).argmin(1), SHEET_NUMBERS)


def test_a_drawn_picture_is_nearest_to_the_real_one(extractor, reference, drawn):
    found, numbers = drawn
    cosines = F.normalize(extract_features(extractor, found)) @ F.normalize(reference.features).T
    assert (cosines.argmax(1) == numbers).float().mean() >= LEAST_RETRIEVAL


# The extractor within torch-fidelity.


class Listed(torch.utils.data.Dataset):
    """Pictures as torch-fidelity takes them."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index]


def test_torch_fidelity_measures_with_it(extractor, pictures):
    name = register_extractor()
    assert register_extractor() == name == EXTRACTOR_NAME
    found = torch_fidelity.calculate_metrics(
        input1=Listed(noisy(pictures, 0.2)),
        input2=Listed(pictures),
        feature_extractor=name,
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=12,
        save_cpu_ram=True,  # no other processes
    )["frechet_inception_distance"]
    ours = [extract_features(extractor, part) for part in (noisy(pictures, 0.2), pictures)]
    assert found == pytest.approx(distance_between(*ours), rel=1e-3)  # theirs takes the root of a singular product


def test_what_it_can_t_do_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no classes, which 'isc' needs; it measures fid, kid, prc"):
        EmojiFidelityExtractor.get_default_feature_layer_for_metric("isc")
    with pytest.raises(InputError, match="has its own weights"):
        EmojiFidelityExtractor("a", ["features"], feature_extractor_weights_path=str(tmp_path))
    with pytest.raises(InputError, match="computes in float32 or float64, not float16"):
        EmojiFidelityExtractor("a", ["features"], feature_extractor_internal_dtype="float16")
    with pytest.raises(ValueError, match="are not on the list provided"):
        EmojiFidelityExtractor("a", ["2048"])


# Both within surgery.evaluate.


def test_they_are_judges_of_evaluation(extractor, reference, pictures):
    judges = bundled_judges()
    made = judges.extractor("cpu")
    features = judges.reference(made)
    assert (made.name, made.channels, len(features)) == (EXTRACTOR_NAME, NUM_FEATURES, 1122)
    assert features.origin == made.origin
    assert np.array_equal(made.extract(pictures), extract_features(extractor, pictures).numpy())
    assert load_folder(f"local-dir:{judges.clip_folder}").name == CLIP_NAME


def test_the_reference_is_for_no_other_extractor():
    other = replace(bundled_extractor(), name="other")
    with pytest.raises(InputError, match="the bundled reference is of emoji-features-v1, not of other"):
        bundled_reference(other)


# The CLIP.


def refuse_network(*_, **__):
    raise AssertionError("the network was asked")


def test_open_clip_restores_it_without_network(monkeypatch):
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse_network)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_network)
    source = f"local-dir:{CLIP_FOLDER}"
    model, _, preprocess = open_clip.create_model_and_transforms(source, require_pretrained=True)
    weights = load_file(CLIP_FOLDER / "open_clip_model.safetensors")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in model.state_dict().items())
    white = preprocess(Image.new("RGB", (128, 128), "white"))
    assert torch.equal(white, torch.ones(3, 64, 64))
    tokens = open_clip.get_tokenizer(source)(["red apple", "a " * 40])
    assert tokens.shape == (2, model.context_length)
    assert (tokens == model.text_eos_id).sum(1).tolist() == [1, 1]


def test_without_weights_open_clip_refuses_it(tmp_path):
    folder = shutil.copytree(CLIP_FOLDER, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(RuntimeError, match="Required pretrained weights"):
        open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)


def test_drawn_pictures_find_their_captions_and_captions_their_pictures(clip, reference, drawn):
    model, preprocess, tokenizer = clip
    found, numbers = drawn
    captions = embed_captions(model, tokenizer, reference.captions)
    embedded = embed_pictures(model, preprocess, found)
    retrieved = retrieve(embedded, captions, numbers, captions)
    assert (retrieved.num_pictures, retrieved.num_choices) == (24, 1122)
    assert retrieved.picture_to_caption >= LEAST_RETRIEVAL
    among_drawn = (captions[numbers] @ embedded.T).argmax(1)
    assert (among_drawn == torch.arange(24)).float().mean() >= LEAST_RETRIEVAL
    assert retrieved.own_cosine > retrieved.other_cosine + 0.3


def test_retrieval_of_shuffled_pictures_fails(clip, reference, drawn):
    """The saboteur of the test above."""
    model, preprocess, tokenizer = clip
    found, numbers = drawn
    captions = embed_captions(model, tokenizer, reference.captions)
    retrieved = retrieve(embed_pictures(model, preprocess, found.roll(1, 0)), captions, numbers, captions)
    assert retrieved.picture_to_caption < 0.2
    assert abs(retrieved.own_cosine - retrieved.other_cosine) < 0.2


@pytest.mark.parametrize(("damage", "levels"), [(noisy, (0.0, 0.2, 0.8)), (blurred, (0.01, 2.0, 5.0))])
def test_damage_lowers_the_score(clip, reference, pictures, damage, levels):
    model, preprocess, tokenizer = clip
    captions = embed_captions(model, tokenizer, [reference.captions[index] for index in SHEET_NUMBERS])
    scores = [(embed_pictures(model, preprocess, damage(pictures, level)) * captions).sum(1).mean() for level in levels]
    assert rises([-score for score in scores])


def test_words_that_no_caption_has_are_read(clip):
    model, _, tokenizer = clip
    known, unknown = embed_captions(model, tokenizer, ["red apple", "zzxqy apple"])
    assert unknown.isfinite().all()
    assert not torch.equal(known, unknown)


def test_the_captions_are_those_of_the_training_pictures(reference):
    assert set(DEMO_PROMPTS) <= set(reference.captions)
    assert CAPTIONS_FILE.read_text().endswith("\n")
