"""Extractors hold the weights that they say, never random ones; what is missing is asked for."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from surgery.errors import InputError
from surgery.files import hash_file
from surgery.metrics import extractors, weight_files
from surgery.metrics.extractors import dinov2_extractor, fidelity_extractor, inception_extractor, module_extractor
from surgery.metrics.weight_files import WeightFile, digest_of_state


def test_the_digest_is_of_names_shapes_types_and_values():
    state = {"a": torch.arange(6.0), "b": torch.ones(2)}
    variants = [
        state,
        {"a": state["a"].reshape(2, 3), "b": state["b"]},
        {"a": state["a"].double(), "b": state["b"]},
        {"a": state["a"] + 1e-6, "b": state["b"]},
        {"a2": state["a"], "b": state["b"]},
    ]
    assert len({digest_of_state(item) for item in variants}) == len(variants)
    assert digest_of_state(state) == digest_of_state(dict(reversed(state.items())))
    assert len(digest_of_state({"half": torch.ones(3, dtype=torch.bfloat16), "whole": torch.tensor(3)})) == 64


def test_weights_that_are_random_are_noticed_by_their_digest(make_extractor):
    """The saboteur: an extractor of the right name and shape with weights of another seed."""
    recorded = make_extractor(0).digest
    assert make_extractor(0).require(recorded).digest == recorded
    with pytest.raises(InputError, match="the weights of small-1 are not the wanted ones"):
        make_extractor(1).require(recorded)
    with pytest.raises(InputError, match="are not the wanted ones"):
        make_extractor(0).require("")


def test_pictures_of_another_kind_are_refused(extractor, make_pixels):
    assert extractor.extract(make_pixels(2)).shape == (2, 24)
    with pytest.raises(InputError, match=r"small-0 reads uint8 pictures .*, not float32 of shape \(2, 3, 32, 32\)"):
        extractor.extract(make_pixels(2).float())


def test_a_module_that_gives_another_shape_is_noticed(make_pixels):
    wrong = module_extractor(nn.Flatten(), name="flat", resize="none", channels=5)
    with pytest.raises(InputError, match=r"flat gave features of shape \(2, 3072\), not \(N, 5\)"):
        wrong.extract(make_pixels(2))


# Inception.


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_missing_weights_are_asked_for(torch_home):
    with pytest.raises(InputError) as raised:
        inception_extractor()
    assert str(raised.value) == (
        "FID, KID, precision and recall by Inception needs the file weights-inception-2015-12-05-6726825d.pth (SHA-256 "
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2), and there is no "
        f"{torch_home}/weights-inception-2015-12-05-6726825d.pth; fetch https://github.com/toshas/torch-fidelity/releases"
        "/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth and put it there; without it there is everything "
        "against the baseline (SSIM, PSNR, feature cosine, the denoising error), and the same distances by another "
        "extractor"
    )


def test_the_file_that_is_asked_for_is_the_one_that_torch_fidelity_names():
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert extractors.INCEPTION.url == URL_INCEPTION_V3
    stated = extractors.INCEPTION.name.removesuffix(".pth").rpartition("-")[2]
    assert extractors.INCEPTION.sha256.startswith(stated)


def test_torch_itself_looks_in_the_same_folder(torch_home, monkeypatch):
    assert weight_files.checkpoint_folder() == torch_home
    monkeypatch.delenv("TORCH_HOME")
    assert str(weight_files.checkpoint_folder()) == f"{torch.hub.get_dir()}/checkpoints"


def test_a_file_of_other_weights_is_refused(torch_home):
    (torch_home / extractors.INCEPTION.name).write_bytes(b"other")
    with pytest.raises(InputError, match=r"is not weights-inception-.*: its SHA-256 is d9298a10.*; fetch .* again"):
        inception_extractor()


@pytest.fixture
def random_inception(tmp_path, monkeypatch):
    """A file with Inception's shapes and random values, as if it were the published one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "inception.pth"
    torch.save({}, path)
    with monkeypatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        module = FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(module.state_dict(), path)
    published = WeightFile("inception.pth", hash_file(path), "url", "FID", "SSIM")
    monkeypatch.setattr(extractors, "INCEPTION", published)
    return path, module


def test_inception_gives_torch_fidelitys_features(random_inception, make_pixels):
    path, module = random_inception
    found = inception_extractor(path)
    assert np.array_equal(found.extract(make_pixels(1)), module.eval()(make_pixels(1))[0].numpy())
    assert (found.channels, found.resize) == (2048, "TensorFlow 1 bilinear to 299 x 299, no antialias (torch-fidelity)")
    assert found.digest == digest_of_state(module.state_dict())
    assert set(found.versions) == {"torch", "torch-fidelity"}


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "inception.pth"
    torch.save({"a": print}, path)
    monkeypatch.setattr(extractors, "INCEPTION", WeightFile("inception.pth", hash_file(path), "url", "FID", "-"))
    with pytest.raises(InputError, match="can't be read as a file of tensors"):
        inception_extractor(path)


# Extractors of torch-fidelity's kind.


def test_any_class_of_torch_fidelitys_kind_is_taken(make_pixels):
    found = fidelity_extractor("own_extractors:Loaded", resize="none", channels=5)
    assert found.name == "own_extractors:Loaded/colours"
    assert found.extract(make_pixels(3)).shape == (3, 5)


def test_a_class_whose_weights_are_random_is_noticed():
    """The saboteur: nothing fails, every run has other features."""
    before = torch.get_rng_state()
    with pytest.raises(InputError, match="the weights of own_extractors:Forgotten are random"):
        fidelity_extractor("own_extractors:Forgotten", resize="none", channels=5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "torch-fidelity has no extractor nowhere; it has inception-v3-compat, "),
        ("own_extractors:Neither", "own_extractors:Neither is no subclass of torch_fidelity's FeatureExtractorBase"),
        ("own_extractors:None", "can't be imported: module 'own_extractors' has no attribute 'None'"),
        ("vgg16", "vgg16 would fetch its weights; give them as a file"),
        ("dinov2-vit-s-14", "dinov2-vit-s-14 would fetch its weights"),
    ],
)
def test_what_is_no_extractor_is_refused(where, message):
    with pytest.raises(InputError, match=message):
        fidelity_extractor(where, resize="none", channels=5)


def test_a_feature_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="gives no feature edges; it gives colours"):
        fidelity_extractor("own_extractors:Loaded", resize="none", channels=5, layer="edges")


# DINOv2.


@pytest.fixture(scope="module")
def tiny_dinov2(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dinov2Model(config).eval()
    model.save_pretrained(folder)
    return folder, model


def test_dinov2_gives_the_class_token_of_pictures_at_224_px(tiny_dinov2, make_pixels):
    from torchvision import transforms

    folder, model = tiny_dinov2
    found = dinov2_extractor(folder)
    prepare = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        expected = model(torch.stack([prepare(picture) for picture in make_pixels(2)])).pooler_output.numpy()
    assert np.allclose(found.extract(make_pixels(2)), expected, atol=1e-5)
    assert (found.name, found.channels, found.resize) == ("dinov2-16", 16, "Pillow bicubic to 224 x 224")


def test_dinov2_with_a_weight_left_out_is_refused(tiny_dinov2, tmp_path):
    """transformers fills it with random values, and says so in a log line."""
    from safetensors.torch import load_file, save_file

    folder, _ = tiny_dinov2
    state = load_file(folder / "model.safetensors")
    del state[next(name for name in state if "fc1.weight" in name)]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match="lacks 1 weights of DINOv2, which would be random"):
        dinov2_extractor(tmp_path)


def test_a_folder_without_dinov2_is_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"FD-DINOv2 needs a folder with config\.json and model\.safetensors"):
        dinov2_extractor(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    for kind, message in {"bert": "is of a bert, not of a dinov2", "dinov2": "can't be loaded as DINOv2"}.items():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(InputError, match=message):
            dinov2_extractor(tmp_path)
