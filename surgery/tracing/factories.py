"""While a forward is traced: torch's functions that make tensors of sizes and numbers take those that are traced.

torch reads the arguments of these functions before anything that records may see them: it reads a traced size as a
number that is known, or as a sequence, or falls over. So each of them is exchanged while a forward is traced.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

FACTORIES = (
    *("arange", "as_tensor", "asarray", "empty", "empty_permuted", "empty_strided", "eye", "full", "linspace"),
    *("logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor"),
    *("tril_indices", "triu_indices", "vander", "zeros"),
    *("bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"),
    *("sparse_bsc_tensor", "sparse_bsr_tensor", "sparse_compressed_tensor"),
    *("sparse_coo_tensor", "sparse_csc_tensor", "sparse_csr_tensor"),
)

Record = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def recorded_factories(record: Record) -> Iterator[None]:
    """Within it, each factory of torch is `record(factory, args, kwargs)`; `record` decides which calls it follows."""
    originals = {name: getattr(torch, name) for name in FACTORIES}
    try:
        for name, factory in originals.items():
            setattr(torch, name, _recording(factory, record))
        yield
    finally:
        for name, factory in originals.items():
            setattr(torch, name, factory)


def _recording(factory: Callable[..., Any], record: Record) -> Callable[..., Any]:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        return record(factory, args, kwargs)

    return make
