"""Pictures that were drawn beside real ones, as one extractor sees both."""

from dataclasses import dataclass
from functools import cached_property

from surgery.errors import InputError
from surgery.metrics.feature_sets import Features, Statistics
from surgery.metrics.precision_recall import PrecisionRecall, precision_recall


@dataclass(frozen=True)
class BesideReal:
    """Features of the pictures that were drawn, and what is known of real ones."""

    drawn: Features
    real: Features | Statistics

    @property
    def features(self) -> Features:
        """Of the real pictures.

        Raises:
            InputError: only their statistics are known.
        """
        if not isinstance(self.real, Features):
            raise InputError("of the real pictures only statistics are known; give the pictures, or their features")
        return self.real

    @cached_property
    def precision_recall(self) -> PrecisionRecall:
        """Both, made once."""
        return precision_recall(self.drawn, self.features)
