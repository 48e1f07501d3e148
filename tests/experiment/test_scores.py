"""Rows of numbers by several judges, and what is measured against the truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from surgery.demo.bundled_judges import bundled_clip, bundled_judges
from surgery.errors import InputError
from surgery.experiment.denoising_error import DenoisingErrors
from surgery.experiment.judges import JudgeRequest, load_judges
from surgery.experiment.jury import ImageJudge, Judges
from surgery.experiment.prompts import PromptSet
from surgery.experiment.scores import notes_on_number, score_row
from surgery.experiment.sights import Observed
from surgery.metrics.clip_model import load_clip
from surgery.metrics.extractors import module_extractor
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Features, Statistics
from surgery.metrics.kernel_distance import cmmd
from surgery.metrics.pictures import pictures_of_tensor, read_pictures
from surgery.metrics.reference import read_reference, write_features

PROMPTS = PromptSet(tuple(f"prompt {number}" for number in range(6)))
CLIP = f"local-dir:{bundled_clip()}"


class Means(nn.Module):
    """uint8 (N, 3, H, W) -> (N, 3): the mean of each colour."""

    def forward(self, pictures):
        return pictures.float().mean((2, 3))


@pytest.fixture
def real(tmp_path):
    """A folder of eight pictures."""
    folder = tmp_path / "real"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def load(tmp_path, real):
    """A function: options of a request -> judges and notes, with the folder of real pictures as reference."""

    def call(**options):
        request = JudgeRequest(
            **{"reference": real, "lpips": "none", "clip": "none", "bundled": bundled_judges(), **options}
        )
        return load_judges(request, PROMPTS, "other", tmp_path / "store")

    return call


def drawn(num, seed=0):
    pixels = torch.randint(0, 256, (num, 3, 64, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pictures_of_tensor(pixels)


def extractor(name):
    return module_extractor(Means(), name=name, resize="none", channels=3)


def heads(scores):
    return [score.metric.short for score in scores]


def test_every_extractor_has_its_distance_and_the_first_pairs(tmp_path):
    judges = [
        ImageJudge(own, features_of(drawn(50, seed=3), own, cache=tmp_path))
        for own in (extractor("inception-v3"), extractor("dinov2-384"))
    ]
    scores = score_row(
        Observed(drawn(40), drawn(40, seed=1), ("",) * 40, Judges(tuple(judges), (), None, None, tmp_path))
    )
    assert heads(scores) == [
        "FID",
        "KID x 1000",
        "precision",
        "recall",
        "FD-DINOv2",
        "SSIM",
        "PSNR",
        "cosine",
        "to base",
    ]
    assert {score.metric.name for score in scores} >= {"FID", "FD-DINOv2 (dinov2-384)", "feature cosine (inception-v3)"}


def test_an_extractor_that_is_named_twice_judges_once(load):
    judges, _ = load(extractors=("bundled", "own_extractors:Loaded", "own_extractors:Loaded", "bundled"))
    assert [judge.extractor.name for judge in judges.images] == ["emoji-features-v1", "own_extractors:Loaded/colours"]


def test_cmmd_is_by_the_clips_image_side(load, real, tmp_path):
    judges, _ = load(extractors=("none",), clip=CLIP, cmmd=True)
    score = next(
        score
        for score in score_row(Observed(drawn(6), drawn(6), PROMPTS.prompts, judges))
        if score.metric.short == "CMMD"
    )
    side = load_clip(CLIP).extractor()
    pictures = [features_of(item, side, cache=tmp_path) for item in (drawn(6), read_pictures(real, role="reference"))]
    assert score.interval.value == pytest.approx(cmmd(*pictures).value)
    assert score.metric.name == f"CMMD ({side.name})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cmmd": True, "extractors": ("none",)}, "--cmmd compares pictures by the CLIP of --clip, and there is none"),
        ({"cmmd": True, "clip": CLIP, "reference": None}, "--cmmd needs real pictures"),
        ({"extractors": ("none",), "save_reference": Path("real.npz")}, "--save-reference has nothing to save"),
        ({"hps_weights": Path("absent.pt")}, "there is no absent.pt"),
        ({"clip": "auto", "clip_weights": Path("absent.pt")}, "there is no absent.pt"),
        ({"lpips": "auto", "lpips_weights": Path("absent.pt")}, "there is no absent.pt"),
        ({"extractors": ("auto",), "extractor_weights": Path("absent.pt")}, "there is no absent.pt"),
        ({"lpips": "none", "lpips_weights": Path("alex.pt")}, "--lpips-weights alex.pt is of no use to --lpips none"),
        ({"clip": "bundled", "clip_weights": Path("b.pt")}, "--clip-weights b.pt is of no use to --clip bundled"),
        (
            {"extractors": ("bundled", "dinov2:d"), "extractor_weights": Path("i.pt")},
            "--extractor-weights i.pt is of no use to --extractor bundled, dinov2:d",
        ),
        ({"extractors": ("none",), "reference": Path("absent")}, "absent is no folder of pictures"),
        ({"extractors": ("none",), "reference": Path("absent.npz")}, "absent.npz"),
    ],
)
def test_judges_that_cannot_judge_are_refused(load, options, message):
    with pytest.raises(InputError, match=message):
        load(**{"extractors": ("bundled",), **options})


def test_a_reference_is_kept_for_other_runs_as_features_or_statistics(load, tmp_path):
    judges, _ = load(extractors=("bundled",), save_reference=tmp_path / "real.safetensors")
    load(extractors=("bundled",), save_reference=tmp_path / "real.npz")
    kept, statistics = read_reference(tmp_path / "real.safetensors"), read_reference(tmp_path / "real.npz")
    assert isinstance(kept, Features)
    assert isinstance(statistics, Statistics)
    np.testing.assert_array_equal(kept.values, judges.images[0].reference.values)
    np.testing.assert_allclose(statistics.mean, kept.values.astype(np.float64).mean(0), rtol=1e-12)
    again, _ = load(extractors=("bundled",), reference=tmp_path / "real.safetensors")
    np.testing.assert_array_equal(again.images[0].reference.values, kept.values)


def test_a_reference_of_another_extractor_is_refused_before_anything_is_drawn(load, tmp_path):
    other = extractor("another")
    write_features(features_of(drawn(6), other, cache=tmp_path), tmp_path / "real.safetensors")
    with pytest.raises(InputError, match="another"):
        load(extractors=("bundled",), reference=tmp_path / "real.safetensors")


def test_a_reference_smaller_than_its_metrics_allow_is_refused(load, real):
    for number in range(3, 8):
        (real / f"{number}.png").unlink()
    with pytest.raises(InputError, match="the reference has 3 pictures; precision and recall need 4 or more"):
        load(extractors=("bundled",))


def test_few_prompts_leave_out_what_they_do_not_allow_and_it_is_said(load):
    judges, _ = load(extractors=("bundled",))
    assert heads(score_row(Observed(drawn(3), drawn(3), PROMPTS.prompts[:3], judges))) == ["SSIM", "PSNR", "cosine"]
    assert notes_on_number(3, judges) == [
        "no Frechet distances: they need at least 40 prompts",
        "no KID, precision and recall: they need at least 4 prompts",
    ]
    assert notes_on_number(40, judges) == []
    assert notes_on_number(3, load(extractors=("none",))[0]) == []


def test_one_prompt_has_no_interval(load):
    judges, _ = load(extractors=("bundled",))
    for score in score_row(Observed(drawn(1), drawn(1, seed=1), PROMPTS.prompts[:1], judges)):
        assert (score.interval.low, score.interval.high) == (None, None)


def test_the_error_to_the_truth_is_compared_with_the_baselines():
    own, baseline = (
        DenoisingErrors(np.full((3, 2), both), np.full((3, 2), truth)) for both, truth in ((0.2, 0.5), (0, 0.4))
    )
    rest = drawn(3), drawn(3), PROMPTS.prompts[:3], Judges((), (), None, None, Path("nowhere"))
    *_, to_baseline, to_truth = score_row(Observed(*rest, (own, baseline), has_truth=True))
    assert (to_baseline.interval.value, to_truth.interval.value) == pytest.approx((0.2, 0.5))
    assert to_truth.difference.value == pytest.approx(0.1)
    assert heads(score_row(Observed(*rest, (own, baseline)))) == ["SSIM", "PSNR", "denoise"]
