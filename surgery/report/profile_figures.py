"""A stack of a profile -> figures: heat maps, curves, spans.

Each figure has a panel a stream side by side, and says below it over what its values are means.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from surgery.profiles.heatmaps import (
    CLIP_PERCENTILE,
    Z_LIMIT,
    clip_at_percentile,
    combine_streams,
    without_outliers,
)
from surgery.profiles.layer_profile import Array, Profile, ProfiledStack
from surgery.report.panels import (
    LAYER,
    SMALL,
    TIMESTEP,
    Scale,
    add_color_bar,
    bin_labels,
    cells_size,
    color_scale,
    draw_cells,
    hatch_rows,
    log_ticks,
    new_figure,
    set_bin_ticks,
    set_layer_ticks,
    show_all_layers,
    style_axes,
    tick_positions,
)
from surgery.report.themes import Theme
from surgery.spec.nearest import shorten

IMAGE, TEXT = "hidden_states", "encoder_hidden_states"
DISTANCE = "angular distance (units of π)"
LINES = ("-", "--", ":", "-.")  # by branch of guidance


@dataclass(frozen=True)
class Variant:
    """One way of drawing a heat map: its title, its cells, and the scale of its colours."""

    title: str
    cells: Array
    scale: Scale = "linear"


def stream_label(stream: str, streams: Sequence[str]) -> str:
    """A stream as people say it: image and text where a stack has both, its name elsewhere."""
    if {IMAGE, TEXT} <= set(streams) and stream in (IMAGE, TEXT):
        return f"{'image' if stream == IMAGE else 'text'} ({stream})"
    return stream


def drawn_streams(profile: Profile, stack: ProfiledStack) -> list[str]:
    """The streams as they are drawn, the image first; one that no block returns has nothing to be drawn."""
    found = [stream for stream in stack.streams if profile.sums(stack.name, stream).num_states > 1]
    return sorted(found, key=lambda stream: (stream != IMAGE, stack.streams.index(stream)))


def heading(profile: Profile, stack: ProfiledStack, what: str) -> str:
    """`what`, and of which stack of which model."""
    model = str(profile.recipe.get("model", ""))
    name = PurePath(model).name if model.startswith(("/", ".", "~")) else model
    return f"{what}\n{stack.name}" + (f" of {shorten(name, 50)}" if name else "")


def counted(profile: Profile) -> str:
    """Over what values are means, and which bins are empty."""
    count = len(profile.recipe.get("samples", ()))
    text = f"mean over {count:,} sample{'s' * (count != 1)}" if count else "mean over all samples"
    if "part" in profile.recipe:
        text += f", part {profile.recipe['part']}"
    empty = profile.empty_bins()
    if not empty:
        return text
    labels = bin_labels(profile.num_bins)
    shown = ", ".join(labels[number] for number in empty[:6]) + (
        f" and {len(empty) - 6} more" if len(empty) > 6 else ""
    )
    return f"{text}\nhatched: no samples at {shown}"


# Heat maps.


def heatmap_variants(cells: Array) -> list[Variant]:
    """A heat map as it is, and three ways of seeing more than its extremes."""
    return [
        Variant("linear", cells),
        Variant("logarithmic colours", cells, "log"),
        Variant(f"clipped at percentile {CLIP_PERCENTILE:g}", clip_at_percentile(cells)),
        Variant(f"outliers left out (|z| > {Z_LIMIT:g}, grey)", without_outliers(cells)),
    ]


def draw_heatmaps(profile: Profile, stack: ProfiledStack, theme: Theme) -> Figure:
    """Angular distance by layer and timestep: a column a stream, a row a variant (two by two for a single stream)."""
    streams = drawn_streams(profile, stack)
    maps = [profile.angular(stack.name, stream) for stream in streams]
    columns = [
        [(f"{stream_label(stream, streams)}: {variant.title}", variant) for variant in heatmap_variants(cells)]
        for stream, cells in zip(streams, maps, strict=True)
    ]
    if len(streams) == 1:
        columns = [[(variant.title, variant) for _, variant in columns[0][half::2]] for half in (0, 1)]
    what = "How far each layer turns its stream"
    return _heatmap_grid(profile, stack, columns, heading(profile, stack, what), theme)


def draw_combined(profile: Profile, stack: ProfiledStack, theme: Theme) -> Figure | None:
    """The mean of the streams' heat maps; None for a single stream."""
    streams = drawn_streams(profile, stack)
    if len(streams) < 2:
        return None
    cells = combine_streams([profile.angular(stack.name, stream) for stream in streams])
    names = " and ".join(stream_label(stream, streams).split(" ")[0] for stream in streams)
    variants = [(variant.title, variant) for variant in heatmap_variants(cells)]
    title = heading(profile, stack, f"How far each layer turns its streams, mean of {names}")
    return _heatmap_grid(profile, stack, [variants[0::2], variants[1::2]], title, theme)


def _heatmap_grid(
    profile: Profile, stack: ProfiledStack, columns: Sequence[Sequence[tuple[str, Variant]]], title: str, theme: Theme
) -> Figure:
    num_rows = len(columns[0])
    size = cells_size(stack.num_blocks, profile.num_bins)
    empty = profile.empty_bins()
    note = counted(profile)
    if any(variant.cells.shape[1] < stack.num_blocks for variants in columns for _, variant in variants):
        note += "\nblank: the last layer does not return every stream"
    figure = new_figure((size.width + 1.75) * len(columns), (size.height + 0.72) * num_rows + 0.95, theme, title, note)
    panels = figure.subplots(num_rows, len(columns), squeeze=False)
    for column, variants in enumerate(columns):
        for row, (label, variant) in enumerate(variants):
            axes: Axes = panels[row, column]
            style_axes(axes, theme, title=label, x=LAYER, y=TIMESTEP if column == 0 else "")
            image = draw_cells(axes, variant.cells, color_scale(variant.cells, variant.scale), theme)
            hatch_rows(axes, empty, variant.cells.shape[1], theme)
            show_all_layers(axes, variant.cells.shape[1], stack.num_blocks, theme)
            set_layer_ticks(axes, stack.num_blocks, size.width)
            set_bin_ticks(axes, profile.num_bins, size.height)
            add_color_bar(figure, image, axes, theme, DISTANCE, pad=0.02, aspect=16)
    return figure


# Curves.


def layer_curves(profile: Profile, stack: str, stream: str, part: str) -> Mapping[str, Array]:
    """Of each layer over all timesteps: Block Influence, angular distance and relative residual norm."""
    return {
        "block influence\n(1 - cosine, no unit)": profile.influence(stack, stream, part),
        DISTANCE.replace(" (", "\n("): np.diagonal(profile.span_angular(stack, stream, part), 1),
        "relative residual norm\n(‖update‖ / ‖input‖)": profile.residual_norm(stack, stream, part),
    }


def _series(profile: Profile, stack: ProfiledStack) -> Iterator[tuple[str, str, int, int, Mapping[str, Array]]]:
    """Every stream and branch with its curves, and the numbers of both."""
    streams = drawn_streams(profile, stack)
    for number, stream in enumerate(streams):
        branches = [part for part in profile.parts(stack.name, stream) if ":" not in part]
        for order, branch in enumerate(branches):
            label = stream_label(stream, streams)
            suffix = f", {branch}" if len(branches) > 1 else ""
            yield stream, label + suffix, number, order, layer_curves(profile, stack.name, stream, branch)


def draw_curves(profile: Profile, stack: ProfiledStack, theme: Theme) -> Figure:
    """What each layer does, a line for each stream and branch; logarithmic where a few layers dwarf the others."""
    series = list(_series(profile, stack))
    width = float(np.clip(0.17 * stack.num_blocks, 4.2, 9.5))
    figure = new_figure(width + 1.2, 7.4, theme, heading(profile, stack, "What each layer does to its stream"))
    names = list(series[0][4])
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for _, label, number, order, curves in series:
            axes.plot(
                curves[name],
                LINES[order % len(LINES)],
                color=theme.series[number % len(theme.series)],
                marker="o" if order == 0 else "s",
                markersize=3.2,
                markerfacecolor=None if order == 0 else theme.paper,
                linewidth=1.3,
                label=label,
            )
        values = np.concatenate([curves[name] for *_, curves in series])
        is_log = spans_decades(values)
        if is_log:
            axes.set_yscale("log")
            locator, formatter = log_ticks(float(np.nanmin(values)), float(np.nanmax(values)))
            axes.yaxis.set_major_locator(locator)
            axes.yaxis.set_major_formatter(formatter)
            axes.yaxis.set_minor_locator(NullLocator())
        style_axes(axes, theme, y=name + (", log scale" if is_log else ""))
        axes.yaxis.set_tick_params(which="both", colors=theme.ink, labelsize=SMALL)
        axes.grid(visible=True, color=theme.faint, linewidth=0.5, alpha=0.6)
        axes.set_xlim(-0.6, stack.num_blocks - 0.4)
        if not is_log:
            axes.set_ylim(min(0.0, float(np.nanmin(values))), max(1e-9, 1.07 * float(np.nanmax(values))))
    note = f"{counted(profile).splitlines()[0]} and all timesteps"
    panels[-1].set_xlabel(f"{LAYER}\n{note}", color=theme.ink, fontsize=SMALL)
    set_layer_ticks(panels[-1], stack.num_blocks, width)
    if len(series) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=1 if width < 6 else 2,
            fontsize=SMALL,
            frameon=False,
            labelcolor=theme.ink,
        )
    return figure


def spans_decades(values: Array) -> bool:
    """Whether the largest value is so far above most that they could not be told apart on a linear axis."""
    finite = values[np.isfinite(values)]
    return bool(finite.size and (finite > 0).all() and finite.max() > 8 * np.median(finite))


# Spans.


def best_starts(angles: Array) -> Array:
    """For n = 1, 2, ... the start l of the n layers whose input and output are the least apart (S - 1,)."""
    num_layers = len(angles) - 1
    found = [int(np.nanargmin(np.diagonal(angles, length))) for length in range(1, num_layers + 1)]
    return np.array(found, dtype=np.float64)


def draw_spans(profile: Profile, stack: ProfiledStack, theme: Theme) -> Figure:
    """How far n layers from layer l on turn a stream, and the best l for each n (arXiv 2403.17887)."""
    streams = drawn_streams(profile, stack)
    side = float(np.clip(0.13 * stack.num_blocks, 2.6, 5.4))
    note = (
        f"{counted(profile).splitlines()[0]} and all timesteps; "
        "◇ the start of the n layers that change least (arXiv 2403.17887)"
    )
    figure = new_figure(
        max(6.4, (side + 1.0) * len(streams) + 0.9),
        side * 0.85 + 1.5,
        theme,
        heading(profile, stack, "How far runs of layers turn their stream"),
        note,
    )
    panels = figure.subplots(1, len(streams), squeeze=False)[0]
    maps = [span_cells(profile.span_angular(stack.name, stream)) for stream in streams]
    norm = color_scale(np.concatenate([cells.ravel() for cells in maps]), "linear")
    image: Any = None
    for axes, stream, cells in zip(panels, streams, maps, strict=True):
        style_axes(axes, theme, title=stream_label(stream, streams), x="first layer of the run", y="layers in the run")
        image = draw_cells(axes, cells, norm, theme)
        axes.set_facecolor(theme.paper)
        starts = best_starts(profile.span_angular(stack.name, stream))
        axes.add_line(_diamonds(starts, side, len(cells)))
        set_layer_ticks(axes, len(cells), side)
        axes.set_yticks(
            [number - 1 for number in _lengths(len(cells), side)], [str(n) for n in _lengths(len(cells), side)]
        )
    add_color_bar(figure, image, list(panels), theme, DISTANCE, shrink=0.9, aspect=28)
    return figure


def _lengths(count: int, side: float) -> list[int]:
    positions = tick_positions(count + 1, int(side * 0.85 / 0.2))
    return [1, *(number for number in positions if number > 1 and number >= positions.step)]


def _diamonds(starts: Array, side: float, count: int) -> Line2D:
    size = float(np.clip(side / count * 72 * 0.5, 2.5, 6))
    return Line2D(
        starts,
        np.arange(len(starts)),
        linestyle="",
        marker="D",
        markersize=size,
        markerfacecolor="#ffffff",
        markeredgecolor="#000000",
        markeredgewidth=0.6,
    )


def span_cells(angles: Array) -> Array:
    """[n - 1, l]: the angular distance of the n layers from l on; NaN where the stack ends before."""
    num_layers = len(angles) - 1
    cells = np.full((num_layers, num_layers), np.nan)
    for length in range(1, num_layers + 1):
        cells[length - 1, : num_layers - length + 1] = np.diagonal(angles, length)
    return cells
