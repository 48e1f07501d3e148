"""A file of means comes back as it was written; everything else is refused with its reason."""

import hashlib
import string

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from surgery.errors import InputError
from surgery.profiles.means import read_means, write_means

NAMES = st.text(string.ascii_lowercase + string.digits + "_.", min_size=1, max_size=12)
VALUES = arrays(st.sampled_from([np.float32, np.float64]), st.integers(1, 5), elements=st.floats(-1e6, 1e6, width=32))
VECTORS = st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=2), min_size=1, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VECTORS)
def test_what_is_written_is_read(tmp_path, vectors):
    path = tmp_path / "means.safetensors"
    write_means(vectors, path)
    means = read_means(path)
    assert means.vectors.keys() == vectors.keys()
    for component, streams in vectors.items():
        assert means.vectors[component].keys() == streams.keys()
        for stream, vector in streams.items():
            assert means.vectors[component][stream].dtype == np.float64
            assert np.array_equal(means.vectors[component][stream], vector)
            assert means.widths[f"{component}/{stream}"] == len(vector)


def test_the_digest_is_that_of_the_file(tmp_path):
    paths = [tmp_path / f"{name}.safetensors" for name in ("one", "same", "other")]
    for path, value in zip(paths, (1.0, 1.0, 2.0), strict=True):
        write_means({"blocks.0.attn": {"x": np.full(3, value)}}, path)
    digests = [read_means(path).digest for path in paths]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == hashlib.sha256(paths[0].read_bytes()).hexdigest()


def test_writing_leaves_nothing_beside_the_file(tmp_path):
    for _ in range(2):
        write_means({"blocks.0.attn": {"x": np.ones(3)}}, tmp_path / "means.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["means.safetensors"]


def test_views_are_written_as_they_look(tmp_path):
    write_means({"a": {"x": np.arange(6.0)[::2]}}, tmp_path / "means.safetensors")
    assert read_means(tmp_path / "means.safetensors").vectors["a"]["x"].tolist() == [0, 2, 4]


def test_other_tensors_of_a_profile_are_passed_over(tmp_path):
    path = tmp_path / "profile.safetensors"
    save_file({"angle/blocks": np.ones((2, 2)), "mean/blocks.0.attn/x": np.ones(3, np.float32)}, path)
    assert read_means(path).widths == {"blocks.0.attn/x": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean/blocks.0.attn/x", np.ones((2, 3))),
        ("mean/blocks.0.attn/x", np.array(1.0)),
        ("mean/blocks.0.attn/x", np.array([1.0, np.nan])),
        ("mean/blocks.0.attn/x", np.array([1.0, np.inf])),
        ("mean/x", np.ones(3)),
        ("mean/", np.ones(3)),
    ],
)
def test_what_is_no_mean_is_refused(tmp_path, name, value):
    path = tmp_path / "means.safetensors"
    save_file({name: value}, path)
    with pytest.raises(InputError, match=rf"means\.safetensors: {name} is no vector of finite values"):
        read_means(path)


def test_a_file_without_means_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"blocks.0.weight": np.ones(3)}, path)
    with pytest.raises(InputError, match=r"holds no means \(tensors named mean/COMPONENT/STREAM\)"):
        read_means(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "means.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"means\.safetensors is no safetensors file of float32 or float64 values"):
        read_means(path)


def test_bfloat16_is_refused(tmp_path):
    path = tmp_path / "means.safetensors"
    save_torch_file({"mean/blocks.0.attn/x": torch.ones(3, dtype=torch.bfloat16)}, path)
    with pytest.raises(InputError, match="is no safetensors file of float32 or float64 values"):
        read_means(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_what_can_not_be_read_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"the profile .* can't be read: "):
        read_means(tmp_path / name)
