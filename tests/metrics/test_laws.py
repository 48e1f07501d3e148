"""What every metric must do, whatever its numbers: get worse with noise and blur, and see what was done to pictures."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d, interpolate, pad

from surgery.metrics.feature_cache import features_of
from surgery.metrics.frechet import frechet_distance
from surgery.metrics.kernel_distance import kernel_distance
from surgery.metrics.paired import feature_cosine, paired_psnr, paired_ssim
from surgery.metrics.pictures import pictures_of_tensor

AMOUNTS = (0, 1, 2, 3, 4)


def noised(pixels, amount):
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    return (pixels + 12.0 * amount * noise).clamp(0, 255).round().to(torch.uint8)


def blurred(pixels, amount):
    """By the filter (1, 2, 1) / 4, that many times both ways: every frequency falls, none comes back."""
    values = pixels.float()
    line = torch.tensor([0.25, 0.5, 0.25])
    for _ in range(amount):
        padded = pad(values.flatten(0, 1)[:, None], [1] * 4, mode="replicate")
        values = conv2d(padded, torch.outer(line, line)[None, None]).reshape(pixels.shape)
    return values.round().to(torch.uint8)


def as_jpeg(pixels):
    found = []
    for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75)
        found.append(torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1))
    return torch.stack(found)


@pytest.fixture
def detailed(make_pixels):
    """Pictures with edges, which blur takes away."""
    pixels = make_pixels(30)
    pixels[:, :, ::4] = 255 - pixels[:, :, ::4]
    return pixels


@pytest.fixture
def measure(extractor, detailed):
    """A function: pixels -> what each metric says of them, larger is worse, against the same pictures untouched."""
    known = features_of(pictures_of_tensor(detailed), extractor)

    def against_baseline(pixels):
        found = features_of(pictures_of_tensor(pixels), extractor)
        return {
            "frechet": frechet_distance(found, known),
            "kernel": kernel_distance(found, known).value,
            "1 - cosine": 1 - feature_cosine(found, known).mean(),
            "1 - ssim": 1 - paired_ssim(pixels, detailed).mean(),
            "- psnr": -paired_psnr(pixels, detailed).mean(),
        }

    return against_baseline


@pytest.mark.parametrize("spoil", [noised, blurred])
def test_every_metric_gets_worse_with_every_step(measure, detailed, spoil):
    found = [measure(spoil(detailed, amount)) for amount in AMOUNTS]
    for name in found[0]:
        values = [step[name] for step in found]
        assert all(less < more for less, more in itertools.pairwise(values)), (name, values)


@pytest.mark.parametrize(
    "spoil",
    [as_jpeg, lambda pixels: interpolate(interpolate(pixels.float(), 24), 32).to(torch.uint8)],
    ids=["saved as JPEG", "resized and back"],
)
def test_every_metric_sees_what_was_done_to_the_pictures(measure, detailed, spoil):
    """The saboteurs: the same pictures by way of JPEG, or of a resize that nobody asked for."""
    untouched, spoilt = measure(detailed), measure(spoil(detailed))
    assert untouched == {
        "frechet": pytest.approx(0, abs=1e-6), "kernel": pytest.approx(untouched["kernel"]), "1 - cosine": 0,
        "1 - ssim": 0, "- psnr": -np.inf,
    }  # fmt: skip
    assert all(spoilt[name] > untouched[name] for name in spoilt)


def test_other_pairs_leave_distances_of_sets_as_they_are(measure, detailed):
    """Distances of distributions do not see swapped seeds; paired metrics do."""
    straight, swapped = measure(noised(detailed, 1)), measure(noised(detailed, 1).roll(1, 0))
    assert swapped["frechet"] == pytest.approx(straight["frechet"], rel=1e-6)
    assert swapped["kernel"] == pytest.approx(straight["kernel"], rel=1e-6)
    for name in ("1 - cosine", "1 - ssim", "- psnr"):
        assert swapped[name] > straight[name], name
