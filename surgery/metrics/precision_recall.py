"""Improved precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991), by torch-fidelity."""

from dataclasses import dataclass

from surgery.errors import InputError
from surgery.metrics.feature_sets import Features, check_same_origin, finite_rows
from surgery.metrics.num_pictures import NUM_NEIGHBOURS

BLOCK_ROWS = 2000


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares of 0 to 1: of the pictures within the reference's manifold, of the reference within the pictures'."""

    precision: float
    recall: float


def precision_recall(
    pictures: Features, reference: Features, *, num_neighbours: int = NUM_NEIGHBOURS
) -> PrecisionRecall:
    """Of the pictures that were drawn against real ones; both depend on how many there are of each.

    A picture is within a manifold where it is no further from one of its members than that is from its
    `num_neighbours`-th neighbour. Distances are in float64: float32's are off by more than some are large.

    Raises:
        InputError: they were not made alike, or there are no more pictures than neighbours.
    """
    import torch
    from torch_fidelity.metric_prc import prc_features_to_metric

    check_same_origin(pictures, reference)
    if num_neighbours < 1:
        raise InputError(f"precision and recall need at least 1 neighbour, not {num_neighbours}")
    generated, real = (
        torch.from_numpy(finite_rows(item, at_least=num_neighbours + 1)) for item in (pictures, reference)
    )
    found = prc_features_to_metric(  # in this order: the first is taken as the generated set
        generated, real, prc_neighborhood=num_neighbours, prc_batch_size=BLOCK_ROWS, save_cpu_ram=True, verbose=False
    )
    return PrecisionRecall(float(found["precision"]), float(found["recall"]))
