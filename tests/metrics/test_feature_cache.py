"""Features are computed once, and again as soon as anything that they depend on is another."""

import dataclasses

import numpy as np
import pytest
import torch

from surgery.errors import InputError
from surgery.files import key_of_recipe
from surgery.metrics.feature_cache import feature_recipe, features_of
from surgery.metrics.pictures import pictures_of_tensor, read_pictures


@pytest.fixture
def counting(extractor):
    """The extractor, and the sizes of the batches that it was given."""
    seen = []

    def forward(pictures):
        seen.append(len(pictures))
        return extractor.forward(pictures)

    return dataclasses.replace(extractor, forward=forward), seen


def test_the_second_time_nothing_is_computed(counting, make_pixels, tmp_path):
    extractor, seen = counting
    pictures, done = pictures_of_tensor(make_pixels(5)), []
    first = features_of(pictures, extractor, cache=tmp_path / "cache", batch_size=2, on_batch=done.append)
    again = features_of(pictures, extractor, cache=tmp_path / "cache", batch_size=2)
    assert seen == done == [2, 2, 1]
    assert np.array_equal(first.values, again.values)
    assert again.origin == extractor.origin
    assert len(list((tmp_path / "cache").iterdir())) == 1  # nothing is left beside it


def test_a_changed_folder_is_noticed(counting, make_pixels, save_folder, tmp_path):
    """The saboteur that torch-fidelity's own cache falls to: same folder, same names, other pictures."""
    extractor, seen = counting
    pixels = make_pixels(3)
    first = features_of(read_pictures(save_folder(pixels), role="reference"), extractor, cache=tmp_path)
    pixels[1] = 255 - pixels[1]
    changed = features_of(read_pictures(save_folder(pixels), role="reference"), extractor, cache=tmp_path)
    assert len(seen) == 2
    assert not np.array_equal(first.values[1], changed.values[1])
    assert np.array_equal(first.values[0], changed.values[0])


def test_names_and_order_do_not_matter_but_rows_stay_with_their_pictures(counting, make_pixels, tmp_path):
    extractor, seen = counting
    pixels = make_pixels(4)
    first = features_of(pictures_of_tensor(pixels), extractor, cache=tmp_path)
    mixed = features_of(pictures_of_tensor(pixels[[2, 0, 3, 1]], ["w", "x", "y", "z"]), extractor, cache=tmp_path)
    assert seen == [4]
    assert np.array_equal(mixed.values, first.values[[2, 0, 3, 1]])


def test_everything_that_features_depend_on_is_in_the_key(extractor, make_pixels):
    """The saboteur of a key that leaves something out: each field changed alone gives another key."""
    pictures = pictures_of_tensor(make_pixels(3))
    changed = [
        feature_recipe(pictures, extractor, 8),
        feature_recipe(pictures, extractor, 9),
        feature_recipe(pictures_of_tensor(make_pixels(2)), extractor, 8),
        feature_recipe(pictures_of_tensor(make_pixels(3, seed=1)), extractor, 8),
        feature_recipe(dataclasses.replace(pictures, crop_px=32), extractor, 8),
        *(
            feature_recipe(pictures, dataclasses.replace(extractor, **{name: value}), 8)
            for name, value in {
                "name": "other", "digest": "f" * 64, "resize": "bicubic", "channels": 7, "device": "cuda:1",
                "versions": {"torch": "0"},
            }.items()
        ),
    ]  # fmt: skip
    assert len({key_of_recipe(recipe) for recipe in changed}) == len(changed)


@pytest.mark.parametrize("where", ["a bit within", "cut off", "no file of ours"])
def test_a_damaged_file_is_computed_again(counting, make_pixels, tmp_path, where):
    extractor, seen = counting
    pictures = pictures_of_tensor(make_pixels(3))
    first = features_of(pictures, extractor, cache=tmp_path)
    path = next(tmp_path.iterdir())
    content = bytearray(path.read_bytes())
    if where == "a bit within":
        content[-5] ^= 1
    path.write_bytes({"a bit within": content, "cut off": content[:-50], "no file of ours": b"text"}[where])
    again = features_of(pictures, extractor, cache=tmp_path)
    assert len(seen) == 2
    assert np.array_equal(first.values, again.values)
    features_of(pictures, extractor, cache=tmp_path)
    assert len(seen) == 2


def test_nothing_is_kept_of_features_that_are_no_numbers(extractor, make_pixels, tmp_path):
    broken = dataclasses.replace(extractor, forward=lambda pictures: torch.full((len(pictures), 24), torch.nan))
    with pytest.raises(InputError, match="small-0 gives features of 0000 that are no finite numbers"):
        features_of(pictures_of_tensor(make_pixels(2)), broken, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
