"""Paired metrics: perfect for equal pictures, those of the libraries, and worse for pairs that are swapped."""

import sys

import numpy as np
import pytest
import torch

from surgery.errors import InputError
from surgery.metrics import paired
from surgery.metrics.feature_cache import features_of
from surgery.metrics.paired import feature_cosine, load_lpips, paired_psnr, paired_ssim
from surgery.metrics.pictures import pictures_of_tensor

SHAPES = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """A file with AlexNet's convolutions under torchvision's names, of random values."""
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.1.weight": torch.zeros(1)}
    for number, shape in SHAPES.items():
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        state[f"features.{number}.weight"] = torch.randn(shape, generator=generator) * scale
        state[f"features.{number}.bias"] = torch.zeros(shape[0])
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def lpips_model(alexnet):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(paired.LPIPS_BACKBONES, "alex", ("alexnet.pth", ""))  # as if it were the published one
        return load_lpips(alexnet)


def noised(pixels, amount, seed=0):
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return (pixels + amount * noise).clamp(0, 255).round().to(torch.uint8)


def test_equal_pictures_are_perfect_to_the_bit(make_pixels, extractor, lpips_model):
    pixels = make_pixels(3)
    features = features_of(pictures_of_tensor(pixels), extractor)
    assert paired_ssim(pixels, pixels).tolist() == [1.0] * 3
    assert paired_psnr(pixels, pixels).tolist() == [np.inf] * 3
    assert feature_cosine(features, features).tolist() == [1.0] * 3
    assert lpips_model(pixels, pixels).tolist() == [0.0] * 3


def test_psnr_is_its_definition(make_pixels):
    one, other = make_pixels(20), noised(make_pixels(20), 10)
    errors = ((one.double() - other.double()) ** 2).mean((1, 2, 3)).numpy()
    assert paired_psnr(one, other) == pytest.approx(10 * np.log10(255**2 / errors))


def test_each_pair_is_measured_alone(make_pixels, lpips_model):
    """More than a batch, each with the value that it has without the others."""
    one, other = make_pixels(18), noised(make_pixels(18), 20)
    for measure in (paired_ssim, paired_psnr, lpips_model):
        together = measure(one, other)
        assert together.shape == (18,)
        assert together[17] == pytest.approx(measure(one[17:], other[17:])[0], rel=1e-5)


def test_ssim_and_psnr_are_those_of_torchmetrics_in_float64(make_pixels):
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    one, other = make_pixels(3, side=40)[:, :, :27], noised(make_pixels(3, side=40), 15)[:, :, :27]
    scaled = [item.double() / 255 for item in (one, other)]
    ssim = structural_similarity_index_measure(*scaled, data_range=1.0, reduction="none")
    psnr = peak_signal_noise_ratio(*scaled, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert paired_ssim(one, other) == pytest.approx(ssim.numpy(), rel=1e-12)
    assert paired_psnr(one, other) == pytest.approx(psnr.numpy(), rel=1e-6)  # its logarithm of 10 is in float32


def test_flat_pictures_are_perfect_to_the_bit():
    """Variances that are 0 but for rounding must not show."""
    for value in (0, 77, 255):
        flat = torch.full((1, 3, 40, 40), value, dtype=torch.uint8)
        assert paired_ssim(flat, flat).tolist() == [1.0]


def test_ssim_is_its_definition_with_edges_mirrored(make_pixels):
    """Window by window: Gaussian weights of sigma 1.5 over 11 x 11 px."""
    one, other = make_pixels(1, side=12), noised(make_pixels(1, side=12), 20)
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    padded = (np.pad(item[0].numpy() / 255.0, ((0, 0), (5, 5), (5, 5)), mode="reflect") for item in (one, other))
    x, y = (
        np.lib.stride_tricks.sliding_window_view(item, (11, 11), (1, 2)) for item in padded
    )  # 3 x 12 x 12 x 11 x 11
    mean = lambda z: (z * weights).sum((3, 4))  # noqa: E731
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean(x) * mean(y) + c1) * (2 * (mean(x * y) - mean(x) * mean(y)) + c2)
    bottom = (mean(x) ** 2 + mean(y) ** 2 + c1) * (mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2 + c2)
    assert paired_ssim(one, other)[0] == pytest.approx((top / bottom).mean(), rel=1e-6)


def test_swapped_pairs_are_seen_by_every_paired_metric(make_pixels, extractor, lpips_model):
    """The saboteur: pictures of another seed taken for the partner."""
    baseline = make_pixels(8)
    variant, swapped = noised(baseline, 5), noised(baseline, 5).roll(1, 0)
    features = [features_of(pictures_of_tensor(pixels), extractor) for pixels in (baseline, variant, swapped)]
    assert paired_ssim(swapped, baseline).mean() < paired_ssim(variant, baseline).mean() - 0.1
    assert paired_psnr(swapped, baseline).mean() < paired_psnr(variant, baseline).mean() - 10
    assert lpips_model(swapped, baseline).mean() > 2 * lpips_model(variant, baseline).mean()
    assert feature_cosine(features[2], features[0]).mean() < feature_cosine(features[1], features[0]).mean()


def test_what_does_not_pair_is_refused(make_pixels, extractor, make_extractor):
    pixels = make_pixels(3)
    with pytest.raises(InputError, match=r"\(3, 3, 32, 32\) can't be paired with \(2, 3, 32, 32\)"):
        paired_ssim(pixels, pixels[:2])
    with pytest.raises(InputError, match=r"\(3, 3, 32, 32\) can't be paired with \(3, 3, 48, 48\)"):
        paired_psnr(pixels, make_pixels(3, side=48))
    with pytest.raises(InputError, match=r"pictures are uint8 .*, not float32"):
        paired_psnr(pixels.float(), pixels.float())
    with pytest.raises(InputError, match="pictures of 8 px are too small for SSIM's window: at least 11 px"):
        paired_ssim(make_pixels(1, side=8), make_pixels(1, side=8))
    one = features_of(pictures_of_tensor(pixels), extractor)
    with pytest.raises(InputError, match="3 pictures can't be paired with 2"):
        feature_cosine(one, one.take([0, 1]))
    with pytest.raises(InputError, match="the weights differ"):
        feature_cosine(one, features_of(pictures_of_tensor(pixels), make_extractor(1)))


def test_lpips_is_the_packages_with_the_files_weights(alexnet, lpips_model):
    backbone = torch.load(alexnet, weights_only=True)
    state = lpips_model.module.state_dict()
    assert torch.equal(state["net.slice5.10.weight"], backbone["features.10.weight"])
    assert state["lin0.model.1.weight"].std() > 0  # the trained layers that come with the package
    assert len(lpips_model.digest) == 64


def test_lpips_asks_for_its_backbone(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"LPIPS \(alex\) needs the file alexnet-owt-7be5be79\.pth \(SHA-256 7be5be79"):
        load_lpips()
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(InputError, match=r"other\.pth is not alexnet-owt-7be5be79\.pth"):
        load_lpips(tmp_path / "other.pth")


@pytest.mark.parametrize("state", [{}, {"features.0.weight": torch.zeros(1)}], ids=["empty", "another's"])
def test_a_backbone_that_lacks_weights_is_refused(tmp_path, monkeypatch, state):
    """The saboteur: what the file lacks would stay random."""
    torch.save(state, tmp_path / "alexnet.pth")
    monkeypatch.setitem(paired.LPIPS_BACKBONES, "alex", ("alexnet.pth", ""))
    with pytest.raises(InputError, match="does not hold the weights of this backbone"):
        load_lpips(tmp_path / "alexnet.pth")


def test_without_the_package_lpips_says_what_there_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'layer-surgery\[lpips\]'; without it there are SSIM, PSNR"):
        load_lpips()


def test_pictures_too_small_for_lpips_are_refused(make_pixels, lpips_model):
    with pytest.raises(InputError, match="pictures of 16 px are too small for LPIPS: at least 32 px"):
        lpips_model(make_pixels(1, side=16), make_pixels(1, side=16))
