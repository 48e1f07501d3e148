"""Figures in few dots, with nothing moved out of the way: for tests of who draws, where nobody looks at what is drawn.

How figures look is tested in tests/report.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure

from surgery.report import panels, plot_profile

DOTS_PER_INCH = 20


def plain_figure(*, layout: str, **options: Any) -> Figure:
    """A figure whose panels stay where they are."""
    return Figure(**options)


@contextmanager
def drawing_drafts() -> Iterator[None]:
    """Within it, figures are drafts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panels, "Figure", plain_figure)
        patch.setattr(plot_profile, "DOTS_PER_INCH", DOTS_PER_INCH)
        yield
