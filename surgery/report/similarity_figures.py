"""A stack of a profile -> figures of how alike its states are: over all timesteps, and in each bin."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, withStroke

from surgery.errors import InputError
from surgery.profiles.groups import LayerGroups
from surgery.profiles.layer_profile import Array, Profile, ProfiledStack, Similarity
from surgery.profiles.parts import split_part
from surgery.report.panels import (
    SMALL,
    add_color_bar,
    bin_labels,
    color_scale,
    draw_cells,
    new_figure,
    spread_labels,
    style_axes,
    tick_positions,
)
from surgery.report.profile_figures import counted, drawn_streams, heading, stream_label
from surgery.report.themes import Theme
from surgery.spec.selector import indices_to_text

COMPARED = {
    "cosine": "cosine similarity (no unit)",
    "token": "cosine similarity of single tokens (no unit)",
    "means": "cosine similarity of mean states (no unit)",
}
STATE = "state after layer"
PANELS_A_ROW = 5  # of timestep bins
MOST_BINS = 10  # that are drawn side by side


@dataclass(frozen=True)
class SimilarityView:
    """What is compared, and whether the embedding (the input of layer 0) is among the states."""

    kind: Similarity = "cosine"
    with_embedding: bool = True

    @property
    def first_state(self) -> int:
        """The first state that is drawn."""
        return 0 if self.with_embedding else 1

    def matrix(self, profile: Profile, stack: str, stream: str, time_bin: int | None = None) -> Array:
        """The similarity of the states that are drawn.

        Raises:
            InputError: means over trajectories are to be compared, and were not measured.
        """
        whole = profile.similarity(stack, stream, kind=self.kind, time_bin=time_bin)
        found = whole[self.first_state :, self.first_state :]
        if self.kind == "means" and not np.isfinite(found).any():
            _, tokens = split_part(str(profile.recipe.get("part", "")))
            if tokens:
                raise InputError("means over trajectories are of all tokens; take a branch as the part, or none")
            raise InputError(
                f"the profile holds no means over trajectories of {stack}/{stream}; measure with --mean-states"
            )
        return found

    @property
    def note(self) -> str:
        """What the first state is."""
        return "the first state is the input of layer 0" if self.with_embedding else "without the input of layer 0"


WHOLE_STATES = SimilarityView()


def draw_similarity(
    profile: Profile,
    stack: ProfiledStack,
    groups: LayerGroups | None,
    theme: Theme,
    view: SimilarityView = WHOLE_STATES,
) -> Figure:
    """The similarity of all states of each stream, with the groups as squares on the diagonal."""
    streams = drawn_streams(profile, stack)
    side = float(np.clip(0.13 * (stack.num_blocks + 1), 2.6, 5.6))
    label_width = 0.9 if groups else 0.1
    figure = new_figure(
        (side + 0.7 + label_width) * len(streams) + 0.9,
        side + 1.45,
        theme,
        heading(profile, stack, "How alike the states after each layer are"),
        f"{counted(profile).splitlines()[0]} and all timesteps\n{view.note}",
    )
    matrices = [view.matrix(profile, stack.name, stream) for stream in streams]
    norm = color_scale(np.concatenate([matrix.ravel() for matrix in matrices]), "linear")
    panels = figure.subplots(1, len(streams), squeeze=False)[0]
    image: Any = None
    for axes, stream, matrix in zip(panels, streams, matrices, strict=True):
        style_axes(axes, theme, title=stream_label(stream, streams), x=STATE, y=STATE)
        image = draw_cells(axes, matrix, norm, theme)
        _set_state_ticks(axes, len(matrix), side, view)
        if groups is not None:
            _draw_groups(axes, groups, len(matrix), side, theme, first_state=view.first_state)
    add_color_bar(figure, image, list(panels), theme, COMPARED[view.kind], shrink=0.9, aspect=28)
    return figure


def draw_similarity_by_time(
    profile: Profile, stack: ProfiledStack, theme: Theme, view: SimilarityView = WHOLE_STATES
) -> Figure:
    """The similarity of all states in timestep bins, a block of panels for each stream, all with the same colours.

    Raises:
        InputError: means over trajectories are to be compared; they belong to no bin.
    """
    if view.kind == "means":
        raise InputError("means over trajectories belong to no timestep; compare states or tokens by time")
    streams = drawn_streams(profile, stack)
    side = float(np.clip(0.07 * (stack.num_blocks + 1), 1.5, 2.2))
    bins = bins_to_draw(profile)
    columns = min(PANELS_A_ROW, len(bins))
    rows = -(-len(bins) // columns)
    drawn = "" if len(bins) == profile.num_bins else f"{len(bins)} of {profile.num_bins} timestep bins; "
    figure = new_figure(
        max(4.6, (side + 0.45) * columns + 1.5),
        max(4.0, (side + 0.6) * rows * len(streams) + 1.4),
        theme,
        heading(profile, stack, "How alike the states after each layer are, by timestep"),
        f"{drawn}{counted(profile).splitlines()[0]}; {view.note}\n"
        "above each panel its share of the noise range: 0 is clean, 1 pure noise",
    )
    grids = figure.subplots(rows * len(streams), columns, squeeze=False)
    maps = {(stream, number): view.matrix(profile, stack.name, stream, number) for stream in streams for number in bins}
    norm = color_scale(np.concatenate([cells.ravel() for cells in maps.values()]), "linear")
    labels = bin_labels(profile.num_bins)
    image: Any = None
    for position, axes in enumerate(grids.ravel()):
        block, place = divmod(position, rows * columns)
        if place >= len(bins):
            axes.set_visible(False)
            continue
        stream, number = streams[block], bins[place]
        prefix = f"{stream_label(stream, streams).split(' ')[0]} " if len(streams) > 1 else ""
        x, y = STATE if position >= grids.size - columns else "", STATE if position % columns == 0 else ""
        style_axes(axes, theme, title=prefix + labels[number], x=x, y=y)
        image = _draw_bin(axes, maps[stream, number], norm, theme)
        _set_state_ticks(axes, len(maps[stream, number]), side, view)
    add_color_bar(figure, image, list(grids.ravel()), theme, COMPARED[view.kind], shrink=0.9, aspect=28)
    return figure


def bins_to_draw(profile: Profile) -> list[int]:
    """All timestep bins where they are few, or else those with samples, or as many of them at even distances."""
    if profile.num_bins <= MOST_BINS:
        return list(range(profile.num_bins))
    filled = sorted(set(range(profile.num_bins)) - set(profile.empty_bins()))
    chosen = np.linspace(0, len(filled) - 1, min(MOST_BINS, len(filled))).round().astype(int)
    return [filled[number] for number in chosen]


def _draw_bin(axes: Axes, cells: Array, norm: Normalize, theme: Theme) -> Any:
    """The similarities of one bin; words in their place where nothing was counted."""
    if not np.isfinite(cells).any():
        style: Any = {"transform": axes.transAxes, "ha": "center", "va": "center", "fontsize": SMALL}
        axes.text(0.5, 0.5, "no samples", color=theme.ink, **style)
    return draw_cells(axes, cells, norm, theme)


def _set_state_ticks(axes: Axes, num_states: int, side: float, view: SimilarityView) -> None:
    """Labels of states by the layers that they come out of, on both axes of a square panel of this side in inches."""
    axes.set_aspect("equal")
    first_layer = 1 - view.first_state  # the position of the state after layer 0
    positions = [number + first_layer for number in tick_positions(num_states - first_layer, int(side / 0.24))]
    labels = [str(number - first_layer) for number in positions]
    if view.with_embedding:
        is_crowded = side < 0.132 * num_states  # `in` and 0 would touch
        positions, labels = [0, *positions[is_crowded:]], ["in", *labels[is_crowded:]]
    axes.set_xticks(positions, labels)
    axes.set_yticks(positions, labels)


def _draw_groups(
    axes: Axes, groups: LayerGroups, num_states: int, side: float, theme: Theme, *, first_state: int
) -> None:
    """A square and a name for each group of blocks; block i is state i + 1, `first_state` the first one drawn."""
    names, centers = [], []
    for name, run in zip(groups.names, groups.runs, strict=True):
        low = run.start + 0.5 - first_state
        high = min(run.stop - first_state, num_states - 1) + 0.5
        if high <= low:
            continue
        square = Rectangle((low, low), high - low, high - low, fill=False, edgecolor="#ffffff", linewidth=1.4)
        square.set_path_effects([withStroke(linewidth=3, foreground="#000000"), Normal()])
        axes.add_patch(square)
        names.append(f"{name} {indices_to_text(run)}")
        centers.append((low + high) / 2)
    edge = num_states - 0.5
    heights = spread_labels(centers, 0.2 / side * num_states, -0.3, edge - 0.2)
    for name, center, height in zip(names, centers, heights, strict=True):
        axes.annotate(
            name,
            xy=(edge, center),
            xytext=(edge + 0.12 / side * num_states, height),
            color=theme.ink,
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": theme.ink, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )
