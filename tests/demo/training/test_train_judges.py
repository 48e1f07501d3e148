"""How the judges are trained: seeded augmentation, seeded steps, and what is written can be read."""

from dataclasses import fields, replace

import open_clip
import pytest
import torch

from surgery.demo.extractor import read_extractor
from surgery.demo.training.augment import Limits, augment
from surgery.demo.training.emoji_clip import save_clip, to_float16
from surgery.demo.training.train_judges import contrast, forget_words, save_extractor, train_clip, train_extractor

CAPTIONS = ["red apple", "green apple", "dog face", "cat face", "rocket", "blue heart"]
NOTHING = Limits(**{field.name: 0.0 for field in fields(Limits)})
RESAMPLED = 1e-5  # the grid of a picture onto itself is off by a few ulp


@pytest.fixture(scope="module")
def pixels():
    """Six smooth pictures in [-1, 1]."""
    small = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(small, size=(64, 64), mode="bilinear")


def changed(pixels, limits, seed=0):
    return augment(pixels, limits, torch.Generator().manual_seed(seed))


def test_no_limit_changes_nothing(pixels):
    found, damage = changed(pixels, NOTHING)
    assert (found - pixels).abs().max() < RESAMPLED
    assert (damage == 0).all()


def test_augmentation_is_a_function_of_the_seed(pixels):
    assert torch.equal(changed(pixels, Limits())[0], changed(pixels, Limits())[0])
    assert not torch.equal(changed(pixels, Limits())[0], changed(pixels, Limits(), seed=1)[0])


@pytest.mark.parametrize(("name", "column"), [("blur_px", 0), ("noise", 1), ("cover_px", 2)])
def test_each_damage_has_its_column(pixels, name, column):
    """Where much is said of it the picture is another, and where nothing is said nothing is done."""
    found, damage = changed(pixels, replace(NOTHING, **{name: getattr(Limits(), name), "share": 1.0}))
    undone, none = changed(pixels, replace(NOTHING, **{name: getattr(Limits(), name), "share": 0.0}))
    distances = (found - pixels).flatten(1).norm(dim=1)
    much = damage[:, column] > 0.2
    assert much.any()
    assert (distances[much] > 0.1).all()
    assert (none == 0).all()
    assert (undone - pixels).abs().max() < RESAMPLED


def test_pictures_stay_in_range(pixels):
    found, _ = changed(pixels, Limits(share=1.0))
    assert found.abs().max() <= 1 + RESAMPLED
    assert found.shape == pixels.shape


def test_the_contrast_is_least_where_each_finds_its_own():
    vectors = torch.eye(4)
    scale = torch.tensor(3.0)
    assert contrast(vectors, vectors, scale) < 0.001
    assert contrast(vectors, vectors.roll(1, 0), scale) > 10


def test_words_are_forgotten_but_not_the_marks():
    from surgery.demo.training.architecture import build_tokenizer

    tokenizer = build_tokenizer(CAPTIONS)
    ids = tokenizer(CAPTIONS * 200, padding=True, return_tensors="pt").input_ids
    found = forget_words(ids, tokenizer, torch.Generator().manual_seed(0))
    words = ids > 2
    assert torch.equal(found[~words], ids[~words])
    assert (found[words] == tokenizer.unk_token_id).float().mean() == pytest.approx(0.05, abs=0.02)


def test_a_trained_extractor_is_read_as_it_was_written(pixels, tmp_path):
    made = train_extractor(pixels, work=tmp_path, num_steps=2, seed=0)
    again = train_extractor(pixels, work=tmp_path, num_steps=2, seed=0)  # from the checkpoint
    save_extractor(made, tmp_path / "out" / "extractor.safetensors")
    found = read_extractor(tmp_path / "out" / "extractor.safetensors")
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value.half().float() if value.is_floating_point() else value, found.state_dict()[name])


def test_a_trained_clip_is_read_as_it_was_written(pixels, tmp_path):
    from surgery.demo.training.emoji_clip import build_clip

    made = train_clip(pixels, CAPTIONS, work=tmp_path, num_steps=2, seed=0)
    save_clip(made, build_clip(CAPTIONS)[1], tmp_path / "clip")
    source = f"local-dir:{tmp_path / 'clip'}"
    found = open_clip.create_model(source, require_pretrained=True)
    halves = to_float16(made.state_dict())
    assert all(torch.equal(value, halves[name].to(value.dtype)) for name, value in found.state_dict().items())
    assert (open_clip.get_tokenizer(source)(CAPTIONS)[:, 0] > 2).all()


def test_a_weight_out_of_the_range_of_float16_is_refused():
    with pytest.raises(ValueError, match="far does not fit into float16"):
        to_float16({"near": torch.ones(1), "far": torch.full((1,), 1e6)})
