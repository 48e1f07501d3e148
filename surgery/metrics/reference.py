"""Features and statistics of a reference as files, to ship, to share and to take from others.

Ours are .safetensors, with what they were made with in the header. Others publish statistics as .npz with `mu` and
`sigma` (Heusel et al. 2017): these do not say by which weights, or of how many pictures.
"""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from surgery.damage import read_arrays, told_as
from surgery.errors import InputError
from surgery.files import write_whole
from surgery.metrics.feature_sets import Features, Origin, Statistics, finite_rows

KEY = "surgery_reference"
FORMAT = 1
SYMMETRY = 1e-4  # relative to the largest variance: statistics of others are rounded to float32, and summed up in it
NEGATIVE = 1e-4  # the same, for eigenvalues


def write_features(features: Features, path: Path) -> None:
    """Write features as .safetensors: `features` (N, C) as they are, `digests` (N, 32) of the pictures."""
    _check_suffix(path)
    tensors = {"features": np.ascontiguousarray(features.values)}
    if features.digests:
        rows = [list(bytes.fromhex(digest)) for digest in features.digests]
        tensors["digests"] = np.array(rows, dtype=np.uint8)
    header = {"format": FORMAT, **features.origin.to_json()}
    write_whole(path, save(tensors, metadata={KEY: json.dumps(header)}))


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write statistics as .safetensors, float64 `mean` (C,) and `covariance` (C, C); or as .npz for other programs."""
    if path.suffix == ".npz":
        content = io.BytesIO()
        np.savez(content, mu=statistics.mean, sigma=statistics.covariance)
        write_whole(path, content.getvalue())
        return
    _check_suffix(path)
    header = {"format": FORMAT, "num": statistics.num, **statistics.origin.to_json()}
    tensors = {
        "mean": np.ascontiguousarray(statistics.mean),
        "covariance": np.ascontiguousarray(statistics.covariance),
    }
    write_whole(path, save(tensors, metadata={KEY: json.dumps(header)}))


def read_reference(path: Path) -> Features | Statistics:
    """Read features or statistics, whichever the file holds.

    Raises:
        InputError: it can't be read, is of another kind, or its numbers are no features, or no mean and covariance.
    """
    if path.suffix == ".npz":
        return _from_npz(path)
    header, tensors = read_arrays(path, KEY, f"the reference {path}")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path} holds no features or statistics that this version wrote")
    origin = Origin(*(str(header.get(name, "")) for name in ("extractor", "digest", "resize")))
    if "features" in tensors:
        digests = tuple(bytes(row).hex() for row in tensors.get("digests", ()))
        if digests and len(digests) != len(tensors["features"]):
            raise InputError(f"{path} has {len(tensors['features'])} features and {len(digests)} digests of pictures")
        features = Features(tensors["features"], origin, digests)
        finite_rows(features, at_least=1)
        return features
    if "mean" not in tensors or "covariance" not in tensors:
        raise InputError(f"{path} must hold features, or mean and covariance; it has {', '.join(sorted(tensors))}")
    num = header.get("num")
    statistics = Statistics(tensors["mean"], tensors["covariance"], num if isinstance(num, int) else None, origin)
    return _checked(statistics, path)


def _from_npz(path: Path) -> Statistics:
    with told_as(f"the statistics {path} can't be read"), np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    if "mu" not in found or "sigma" not in found:
        raise InputError(f"{path} must hold mu and sigma; it has {', '.join(sorted(found)) or 'nothing'}")
    return _checked(Statistics(found["mu"], found["sigma"], None, Origin()), path)


def _checked(statistics: Statistics, path: Path) -> Statistics:
    """The same in float64, the covariance made exactly symmetric; InputError where they are no mean and covariance."""
    try:
        mean = np.asarray(statistics.mean, dtype=np.float64)
        covariance = np.asarray(statistics.covariance, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds no numbers: {error}") from None
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise InputError(f"{path}: a mean of shape {mean.shape} does not go with a covariance of {covariance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError(f"{path} holds values that are no finite numbers")
    largest = float(np.abs(np.diagonal(covariance)).max())
    if np.abs(covariance - covariance.T).max() > SYMMETRY * largest:
        raise InputError(f"{path}: the covariance is not symmetric")
    covariance = (covariance + covariance.T) / 2
    if np.linalg.eigvalsh(covariance)[0] < -NEGATIVE * max(largest, 1e-30):
        raise InputError(f"{path}: the covariance has negative eigenvalues, so it is none")
    return replace(statistics, mean=mean, covariance=covariance)


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise InputError(f"{path} must be named .safetensors")
