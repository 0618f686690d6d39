"""Draws charts with matplotlib, one function for each kind."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    EngFormatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from mmcl_jax.report import theme
from mmcl_jax.report.charts import (
    Bars,
    Chart,
    Forest,
    Lines,
    Matrix,
    Pareto,
    Points,
    Ranks,
    Timeline,
)

# inches; a panel is as wide as a phone, and several stand side by side on a screen
_PANEL = (3.7, 2.5)
# in a panel with named rows: height of a row, width of the names
_ROW, _NAMES = 0.21, 1.3
# inches between the lines of groups
_LINE_WIDTH = 0.16
# a matrix of more numbers shows colours alone
_WRITTEN = 3600
_NAMED = 60
FONT_SIZE = 9.0  # points
_INK, _MUTED, _LINE, _SURFACE = (
    theme.COLOURS[name][0] for name in ("ink", "muted", "line", "surface")
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # letters as letters, which journals ask for
    "pdf.fonttype": 42,
    "svg.hashsalt": "mmcl_jax",
    # dollar signs in a class name do not mark a formula
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "figure.facecolor": "none",
    "legend.frameon": False,
}


@contextmanager
def styled(font_size: float = FONT_SIZE) -> Iterator[None]:
    """Sets the style of all charts while they are drawn and written."""
    style: dict[Any, Any] = _STYLE | {"font.size": font_size}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # the browser has fonts for characters that this one lacks
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def draw(
    chart: Chart, legend: bool, title: bool = False, width: float | None = None
) -> Figure:
    """Returns a chart as a figure.

    Args:
        chart: The chart.
        legend: Whether legend and vertical label are drawn; a page has its own.
        title: Whether the title is drawn.
        width: Width in inches of the figure without what stands beside its axes; None
            takes that of the kind of chart.
    """
    if isinstance(chart, Lines):
        figure = _lines(chart, legend, width)
    elif isinstance(chart, Points):
        figure = _points(chart, legend, width)
    elif isinstance(chart, Pareto):
        figure = _pareto(chart, legend, width)
    elif isinstance(chart, Matrix):
        figure = _matrix(chart, width)
    elif isinstance(chart, Forest):
        figure = _forest(chart, width)
    elif isinstance(chart, Ranks):
        figure = _ranks(chart, width)
    elif isinstance(chart, Bars):
        figure = _bars(chart, legend, width)
    else:
        figure = _timeline(chart, width)
    if title:
        corner = f"; {chart.corner}" if isinstance(chart, Matrix) else ""
        figure.axes[0].set_title(chart.title + corner, loc="left")
    return figure


def _panel(
    width: float | None,
    height: float = _PANEL[1],
    left: float = 0.5,
    right: float = 0.08,
) -> tuple[Figure, Axes]:
    width = width or _PANEL[0]
    figure = Figure(figsize=(width, height))
    # margins in inches, so that labels fit; at least a tenth is left for the axes
    bottom, top = 0.46, 0.1
    return figure, figure.add_axes(
        (
            left / width,
            bottom / height,
            max(width - left - right, 0.1 * width) / width,
            (height - bottom - top) / height,
        )
    )


def _small() -> float:
    return matplotlib.rcParams["font.size"] - 1


def _lines(chart: Lines, legend: bool, width: float | None) -> Figure:
    figure, axes = _panel(width)
    longest = max((len(series.x) for series in chart.series), default=0)
    for series in chart.series:
        colour = theme.COLOURS[series.mark.colour][0]
        if series.low:
            axes.fill_between(
                series.x, series.low, series.high, color=colour, alpha=0.15, lw=0
            )
        axes.plot(
            series.x,
            series.y,
            color=colour,
            label=series.name,
            lw=1.2 if series.dashed else 1.6,
            ls=(0, (4, 2)) if series.dashed else "-",
            marker="" if series.dashed else series.mark.marker,
            ms=4 if longest <= 25 else 2,
            mew=0,
        )
    axes.set_ylim(*chart.limits)
    axes.set_xlabel(chart.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if chart.unit:
        form = _percent if chart.unit == "%" else _points_of
        axes.yaxis.set_major_formatter(FuncFormatter(form))
    if legend:
        # a page shows them above the panel
        axes.set_ylabel(chart.y_label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _named_rows(
    names: list[str], x_label: str, width: float | None, right: float = 0.2
) -> tuple[Figure, Axes]:
    """Returns a panel as high as its rows need; the first row is at 0, at the top."""
    row = _ROW * matplotlib.rcParams["font.size"] / FONT_SIZE
    figure, axes = _panel(width, 0.56 + row * max(len(names), 1), _NAMES, right)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    return figure, axes


def _forest(chart: Forest, width: float | None) -> Figure:
    names = [row.text for row in chart.intervals]
    figure, axes = _named_rows(names, chart.x_label, width)
    axes.grid(visible=True, axis="x")
    axes.axvline(0, color=_INK, lw=0.9)
    for i, row in enumerate(chart.intervals):
        colour = theme.COLOURS[row.mark.colour][0]
        axes.plot((row.low, row.high), (i, i), color=colour, lw=1.4)
        axes.plot(row.value, i, color=colour, marker=row.mark.marker, ms=5, mew=0)
    axes.set_xlim(*chart.limits)
    axes.xaxis.set_major_formatter(FuncFormatter(_points_of))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return figure


def _bars(chart: Bars, legend: bool, width: float | None) -> Figure:
    names = [label.text for label in chart.rows_are]
    figure, axes = _named_rows(names, chart.x_label, width)
    shares = [[v / max(sum(row), 1) for v in row] for row in chart.values]
    left = [0.0] * len(shares)
    for k, part in enumerate(chart.parts):
        own = [row[k] for row in shares]
        axes.barh(
            range(len(own)),
            own,
            left=left,
            color=theme.COLOURS[part.colour][0],
            label=part.text,
            height=0.78,
            # the gap between parts has the colour of the page
            edgecolor=_SURFACE,
            linewidth=0.8,
        )
        left = [start + width for start, width in zip(left, own, strict=True)]
    axes.set_xlim(0, 1)
    for label, tick in zip(chart.rows_are, axes.get_yticklabels(), strict=True):
        tick.set_color(theme.COLOURS[label.colour or "muted"][0])
    if legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _percent(share: float, place: int) -> str:
    del place
    return f"{round(100 * share, 6):g} %".replace("-", "−")


def _points_of(share: float, place: int) -> str:
    """Returns a difference of shares in percentage points."""
    return _percent(share, place).removesuffix(" %")


def _points(chart: Points, legend: bool, width: float | None) -> Figure:
    figure, axes = _panel(width)
    axes.grid(visible=False)
    first, second = (f"{100 * share:.0f} %" for share in chart.explained)
    axes.set_xlabel(f"first principal component ({first} of variance)")
    axes.set_ylabel(f"second ({second})")
    axes.tick_params(labelbottom=False, labelleft=False, length=0)
    handles = []
    for cloud in chart.clouds:
        colour = theme.COLOURS[cloud.mark.colour][0]
        look = {
            "marker": cloud.mark.marker,
            "markerfacecolor": "none" if cloud.text else colour,
            "markeredgecolor": colour,
            "markeredgewidth": 1.0 if cloud.text else 0,
            "linestyle": "none",
            "markersize": 5.5 if cloud.text else 4,
        }
        axes.plot(*zip(*cloud.points, strict=True), **look, alpha=0.85)
        handles.append(Line2D([], [], **look, label=cloud.name))
    if legend:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _ranks(chart: Ranks, width: float | None) -> Figure:
    beside = _LINE_WIDTH * len(chart.groups)
    width = width or _PANEL[0] + beside
    names = [method.text for method in chart.methods]
    figure, axes = _named_rows(names, "rank; 1 is best", width, 0.2 + beside)
    axes.grid(visible=True, axis="x")
    for i, method in enumerate(chart.methods):
        colour = theme.COLOURS[method.mark.colour][0]
        dots = {"ls": "none", "marker": "|", "mew": 1.0, "ms": 6, "alpha": 0.6}
        axes.plot(method.ranks, [i] * len(method.ranks), color=colour, **dots)
        axes.plot(method.mean, i, color=colour, marker=method.mark.marker, ms=6, mew=0)
    axes.set_xlim(0.5, len(names) + 0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, place: f"{rank:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    # right of the axes, in inches, a line for each group with a dot for each member
    inches = axes.get_position().width * width
    for k, group in enumerate(chart.groups):
        x = 1 + (0.2 + _LINE_WIDTH * (k + 0.5)) / inches
        axes.plot(
            [x] * len(group),
            group,
            color=_INK,
            lw=1.2,
            marker="o",
            ms=3.5,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
        _below(axes, x, 3.5, f"{k + 1}")
    if chart.groups:
        _below(axes, 1 + (0.2 + beside / 2) / inches, 15, "groups")
    return figure


def _below(axes: Axes, x: float, points: float, text: str) -> None:
    """Writes a text some points below the axes, at a share of their width."""
    axes.annotate(
        text,
        (x, 0),
        xycoords="axes fraction",
        xytext=(0, -points),
        textcoords="offset points",
        ha="center",
        va="top",
        color=_MUTED,
    )


def _pareto(chart: Pareto, legend: bool, width: float | None) -> Figure:
    figure, axes = _panel(width)
    axes.grid(visible=True, axis="both")
    front = sorted((s for s in chart.spots if s.best), key=lambda spot: spot.cost)
    axes.step(
        [spot.cost for spot in front],
        [spot.gain for spot in front],
        where="post",
        color=_MUTED,
        lw=1.2,
        ls=(0, (4, 2)),
    )
    for spot in chart.spots:
        colour = theme.COLOURS[spot.mark.colour][0]
        axes.plot([spot.cost] * 2, (spot.low, spot.high), color=colour, lw=1.2)
        look = {"marker": spot.mark.marker, "ms": 5.5, "mew": 0, "ls": "none"}
        axes.plot(spot.cost, spot.gain, color=colour, label=spot.text, **look)
    costs = [spot.cost for spot in chart.spots]
    if min(costs) > 0:
        axes.set_xscale("log")
        decades = math.log10(max(costs) / min(costs))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if decades < 3 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.margins(0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel(chart.x_label)
    if legend:
        axes.set_ylabel(chart.y_label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _matrix(chart: Matrix, width: float | None) -> Figure:
    rows, columns = len(chart.rows_are), len(chart.columns_are)
    large = rows * columns > _WRITTEN
    size = (10.0, 10.0) if large else (1.2 + 0.42 * columns, 0.8 + 0.26 * rows)
    figure = Figure(figsize=(width or size[0], size[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.grid(visible=False)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    ramp = theme.ramp()
    if large:
        colours = [
            [(1, 1, 1) if level is None else to_rgb(ramp[level][0]) for _, level in row]
            for row in chart.cells()
        ]
        axes.imshow(colours, extent=(0, columns, rows, 0), interpolation="nearest")
    for i, row in enumerate([] if large else chart.cells()):
        for j, (text, level) in enumerate(row):
            if level is None:
                continue
            background, ink = ramp[level]
            axes.add_patch(Rectangle((j, i), 1, 1, fc=background, ec="white", lw=0.8))
            place = (j + 0.5, i + 0.5)
            axes.text(*place, text, ha="center", va="center", color=ink, size=_small())
    # a large matrix names only every n-th row and column
    across, down = (n // _NAMED + 1 for n in (columns, rows))
    axes.set_xticks([j + 0.5 for j in range(0, columns, across)])
    names = [label.text for label in chart.columns_are[::across]]
    axes.set_xticklabels(names, rotation=60, ha="right")
    axes.set_yticks([i + 0.5 for i in range(0, rows, down)])
    axes.set_yticklabels([label.text for label in chart.rows_are[::down]])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _timeline(chart: Timeline, width: float | None) -> Figure:
    figure = Figure(figsize=(width or 6.5, 0.3 + 0.24 * len(chart.stops)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(chart.stops), 0)
    for i, stop in enumerate(chart.stops):
        colour = theme.COLOURS[stop.colour][0]
        axes.add_patch(Rectangle((0.05, i + 0.12), 0.012, 0.76, fc=colour))
        words = (
            (0.04, "right", str(stop.number), _MUTED),
            (0.08, "left", stop.name, _INK),
            (0.33, "left", stop.modality, colour),
            (0.45, "left", ", ".join(stop.classes), _MUTED),
        )
        for x, side, text, ink in words:
            axes.text(x, i + 0.5, text, ha=side, va="center", color=ink, size=_small())
    return figure
