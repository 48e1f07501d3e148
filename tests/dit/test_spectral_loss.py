"""The loss of amplitudes: what it sees, and what it is blind to."""

import math

import pytest
import torch

from surgery.dit import spectral_loss


@pytest.fixture
def pictures():
    return torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def test_it_is_zero_for_equal_pictures_and_blind_to_sign_and_shift(pictures):
    assert spectral_loss(pictures, pictures) == 0
    assert spectral_loss(-pictures, pictures) == 0
    assert spectral_loss(pictures.roll((2, 3), dims=(-2, -1)), pictures) < 1e-6
    assert spectral_loss(pictures.flip(0), pictures) > 0.1


def test_it_is_the_mean_difference_of_the_amplitudes_of_a_transform_written_out(pictures):
    height, width = pictures.shape[-2:]

    def amplitudes(values):
        rows = torch.exp(-2j * math.pi * torch.outer(torch.arange(height), torch.arange(height)) / height)
        columns = torch.exp(-2j * math.pi * torch.outer(torch.arange(width), torch.arange(width // 2 + 1)) / width)
        return (rows @ values.to(torch.complex64) @ columns).abs() / math.sqrt(height * width)

    target = pictures.flip(0)
    expected = (amplitudes(pictures) - amplitudes(target)).abs().mean()
    torch.testing.assert_close(spectral_loss(pictures, target), expected)


def test_it_grows_with_the_scale_and_has_a_gradient_and_takes_half_precision(pictures):
    predicted = (2 * pictures).requires_grad_()
    loss = spectral_loss(predicted, pictures)
    torch.testing.assert_close(spectral_loss(3 * pictures, pictures), 2 * loss)
    loss.backward()
    assert predicted.grad.isfinite().all() and predicted.grad.any()
    assert spectral_loss(pictures.bfloat16(), pictures.bfloat16()).dtype == torch.float32


def test_pictures_of_two_shapes_are_refused(pictures):
    with pytest.raises(ValueError, match=r"the prediction is \(2, 3, 8, 6\), and the target \(1, 3, 8, 6\)"):
        spectral_loss(pictures, pictures[:1])
