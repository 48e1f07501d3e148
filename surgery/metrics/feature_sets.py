"""Features and their statistics as data, with what they were made with: only what was made alike can be compared."""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surgery.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """What features were made with: the extractor's name, the digest of its weights, and its resize protocol.

    Statistics of others do not say: then all three are empty, and nothing can be checked.
    """

    extractor: str = ""
    digest: str = ""
    resize: str = ""

    @property
    def is_known(self) -> bool:
        """Whether it says which weights they were."""
        return bool(self.digest)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Features:
    """`values` (N, C), a row a picture; `digests` are the SHA-256 of the pictures' contents, in the same order."""

    values: NDArray[np.float32]
    origin: Origin
    digests: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: ArrayLike) -> "Features":
        """Some of the rows, in the order given."""
        numbers = np.asarray(rows)
        digests = tuple(self.digests[number] for number in numbers) if self.digests else ()
        return replace(self, values=self.values[numbers], digests=digests)


@dataclass(frozen=True)
class Statistics:
    """Mean (C,) and covariance (C, C; divided by N - 1) of features, float64; `num` is None where it is not known."""

    mean: Array
    covariance: Array
    num: int | None
    origin: Origin


def statistics_of(features: Features) -> Statistics:
    """Of N features, in float64.

    Raises:
        InputError: there are fewer than two, or some are no finite numbers.
    """
    values = finite_rows(features)
    mean = values.mean(0)
    centred = values - mean
    return Statistics(mean, centred.T @ centred / (len(values) - 1), len(values), features.origin)


def finite_rows(features: Features, *, at_least: int = 2) -> Array:
    """The values in float64, (N, C).

    Raises:
        InputError: there are fewer than `at_least`, or some are no finite numbers.
    """
    values = np.asarray(features.values, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise InputError(f"features have the shape (N, channels), not {values.shape}")
    if len(values) < at_least:
        raise InputError(f"{len(values)} pictures are too few: at least {at_least} are needed")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(1))
        raise InputError(f"the features of {len(rows)} pictures are no finite numbers, the first is number {rows[0]}")
    return values


def check_same_origin(one: Features | Statistics, other: Features | Statistics) -> None:
    """Raise InputError where two sets were not made with the same weights and resize protocol, or channels differ."""
    a, b = one.origin, other.origin
    if a.is_known and b.is_known and a.digest != b.digest:
        raise InputError(
            f"features of {a.extractor} ({a.digest[:12]}) can't be compared with ones of {b.extractor} "
            f"({b.digest[:12]}): the weights differ; make both with one extractor"
        )
    if a.is_known and b.is_known and a.resize != b.resize:
        raise InputError(
            f"features of pictures resized by ({a.resize}) can't be compared with ones by ({b.resize}); "
            "make both with one protocol"
        )
    if num_channels(one) != num_channels(other):
        raise InputError(f"{num_channels(one)} channels can't be compared with {num_channels(other)}")


def number_of(item: Features | Statistics) -> int | None:
    """How many pictures they are of; None where that is not known."""
    return len(item) if isinstance(item, Features) else item.num


def digest_of(item: Features | Statistics) -> str:
    """SHA-256 of the numbers."""
    arrays = (item.values,) if isinstance(item, Features) else (item.mean, item.covariance)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def num_channels(item: Features | Statistics) -> int:
    """C."""
    return int(item.values.shape[1] if isinstance(item, Features) else len(item.mean))
