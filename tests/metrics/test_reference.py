"""References as files: what was written is read, and what is no reference is refused by name."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from surgery.errors import InputError
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Origin, statistics_of
from surgery.metrics.frechet import frechet_distance
from surgery.metrics.pictures import pictures_of_tensor
from surgery.metrics.reference import read_reference, write_features, write_statistics


@pytest.fixture
def features(extractor, make_pixels):
    return features_of(pictures_of_tensor(make_pixels(40)), extractor)


def test_features_come_back(features, tmp_path):
    write_features(features, tmp_path / "a.safetensors")
    found = read_reference(tmp_path / "a.safetensors")
    assert np.array_equal(found.values, features.values)
    assert (found.origin, found.digests) == (features.origin, features.digests)


def test_statistics_come_back(features, tmp_path):
    statistics = statistics_of(features)
    write_statistics(statistics, tmp_path / "a.safetensors")
    found = read_reference(tmp_path / "a.safetensors")
    assert np.array_equal(found.mean, statistics.mean)
    assert np.allclose(found.covariance, statistics.covariance, rtol=1e-14, atol=0)
    assert (found.num, found.origin) == (40, features.origin)
    assert frechet_distance(features, found) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=str)
def test_statistics_of_others_are_read_in_float64(features, tmp_path, dtype):
    """torch-fidelity fails on a mean in float32 against one in float64."""
    statistics = statistics_of(features)
    path = tmp_path / "theirs.npz"
    np.savez(path, mu=statistics.mean.astype(dtype), sigma=statistics.covariance.astype(dtype))
    found = read_reference(path)
    assert found.mean.dtype == found.covariance.dtype == np.float64
    assert (found.num, found.origin) == (None, Origin())
    assert frechet_distance(features, found) == pytest.approx(0, abs=1e-6 if dtype == np.float64 else 1e-4)


def test_statistics_are_written_for_others(features, tmp_path):
    write_statistics(statistics_of(features), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert set(file.files) == {"mu", "sigma"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(3)}, "must hold mu and sigma; it has mean"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"a mean of shape \(3,\) does not go with a covariance of \(4, 4\)"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, np.nan], [0, 1]])}, "holds values that are no finite numbers"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.1, 1]])}, "the covariance is not symmetric"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2], [2, 1]])}, "has negative eigenvalues"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "holds no numbers"),
        ({"mu": np.array([{}]), "sigma": np.eye(1)}, "can't be read: Object arrays cannot be loaded"),
    ],
)
def test_statistics_that_are_none_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_reference(tmp_path / "bad.npz")


def test_files_that_are_no_reference_are_refused(tmp_path):
    for name, content in {"a.npz": b"text", "a.safetensors": b"text"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} can't be read"):
            read_reference(tmp_path / name)
    save_file({"features": np.zeros((2, 3), np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match="holds no features or statistics that this version wrote"):
        read_reference(tmp_path / "foreign.safetensors")


def test_a_reference_is_named_by_what_it_holds(features, tmp_path):
    with pytest.raises(InputError, match=r"must be named \.safetensors"):
        write_features(features, tmp_path / "features.npz")
