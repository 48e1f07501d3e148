"""A profile -> files of figures, one for each stack and kind of figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from surgery.errors import InputError
from surgery.outputs import added_files
from surgery.profiles.groups import LayerGroups
from surgery.profiles.layer_profile import Profile, ProfiledStack
from surgery.report.profile_figures import (
    draw_combined,
    draw_curves,
    draw_heatmaps,
    draw_spans,
    drawn_streams,
)
from surgery.report.similarity_figures import WHOLE_STATES, SimilarityView, draw_similarity, draw_similarity_by_time
from surgery.report.themes import THEMES, Theme, ThemeName

COMMAND = "plot"
Format = Literal["png", "svg", "pdf"]
DOTS_PER_INCH = 150
KINDS = ("similarity", "similarity_by_time", "heatmaps", "combined", "curves", "spans")
OF_ANGLES = ("heatmaps", "combined")  # what angular distances of consecutive layers are enough for
SETTINGS: Any = {"svg.hashsalt": "surgery", "svg.fonttype": "path", "axes.unicode_minus": False}


def plot_profile(
    profile: Profile,
    groups: Mapping[str, LayerGroups],
    out: Path,
    *,
    file_format: Format = "png",
    themes: Sequence[ThemeName] = ("light",),
    view: SimilarityView = WHOLE_STATES,
    by_time: bool = False,
    force: bool = False,
) -> list[Path]:
    """Write all figures of a profile into a folder; what was written, in order. `groups` are by stack.

    `view` says which states are compared and how, and `by_time` draws them for each timestep bin too.

    Files are named KIND_STACK.png, and KIND_STACK_dark.png.

    Raises:
        InputError: nothing was counted, or not what is to be compared; the folder can't be written to, or has
            another figure of such a name, and there is no `force`.
    """
    for stack in profile.stacks:
        for stream in stack.streams:
            if not profile.sums(stack.name, stream).angles.sum():
                raise InputError(f"nothing was counted in {stack.name}/{stream}; measure the profile over more samples")
    written = []
    with added_files(out, COMMAND, force=force, beside_others=True) as folder:
        for stack in profile.stacks:
            for theme in (THEMES[name] for name in themes):
                for kind, figure in draw_stack(profile, stack, groups.get(stack.name), theme, view, by_time=by_time):
                    suffix = "" if theme.name == "light" else f"_{theme.name}"
                    name = f"{kind}_{stack.name}{suffix}.{file_format}"
                    (folder / name).write_bytes(render(figure, file_format))
                    written.append(out / name)
    return written


def draw_stack(
    profile: Profile,
    stack: ProfiledStack,
    groups: LayerGroups | None,
    theme: Theme,
    view: SimilarityView = WHOLE_STATES,
    *,
    by_time: bool = False,
) -> Iterator[tuple[str, Figure]]:
    """The figures of one stack, by kind."""
    draw: Mapping[str, Callable[[], Figure | None]] = {
        "similarity": lambda: draw_similarity(profile, stack, groups, theme, view),
        "similarity_by_time": lambda: draw_similarity_by_time(profile, stack, theme, view) if by_time else None,
        "heatmaps": lambda: draw_heatmaps(profile, stack, theme),
        "combined": lambda: draw_combined(profile, stack, theme),
        "curves": lambda: draw_curves(profile, stack, theme),
        "spans": lambda: draw_spans(profile, stack, theme),
    }
    assert tuple(draw) == KINDS
    if not drawn_streams(profile, stack):
        return
    for kind in OF_ANGLES if profile.has_only_angles else KINDS:
        figure = draw[kind]()
        if figure is not None:
            yield kind, figure


def render(figure: Figure, file_format: Format) -> bytes:
    """A figure as the bytes of a file; the same figure gives the same bytes."""
    import io

    target = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[file_format]
        figure.savefig(target, format=file_format, dpi=DOTS_PER_INCH, metadata=metadata)
    return target.getvalue()
