"""Draws charts with matplotlib: as SVG for a page, or as SVG and PNG files."""

import functools
import io
import pathlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmcl_jax.files import write_bytes
from mmcl_jax.report import theme
from mmcl_jax.report.charts import (
    Bars,
    Chart,
    Forest,
    Lines,
    Matrix,
    Points,
    Timeline,
)

# inches; a panel is as wide as a phone, and several stand side by side on a screen
_PANEL = (3.7, 2.5)
# in a panel with named rows: height of a row, width of the names
_ROW, _NAMES = 0.21, 1.3
_DPI = 200
# a matrix of more numbers shows colours alone
_WRITTEN = 3600
_NAMED = 60
_INK, _MUTED, _LINE, _SURFACE = (
    theme.COLOURS[name][0] for name in ("ink", "muted", "line", "surface")
)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmcl_jax",
    # dollar signs in a class name do not mark a formula
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
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
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@functools.lru_cache(maxsize=256)
def inline(chart: Bars | Forest | Lines | Points) -> Markup:
    """Returns a chart as an `<svg>` element for a page, in the page's colours.

    Unchanged charts are cached.
    """
    with _styled():
        figure = _draw(chart, legend=False)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata=_NO_METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # ids must be unique on a page of several figures
    svg = re.sub(r'\bid="', f'id="{chart.name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{chart.name}-", svg)
    for name, (light, _) in theme.COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    head = f'<svg role="img" aria-label="{Markup.escape(chart.title)}"'
    return Markup(svg.replace("<svg", head, 1))


def save(chart: Chart, folder: pathlib.Path) -> None:
    """Writes a chart as `<name>.svg` and `<name>.png`, on white and with its legend."""
    with _styled():
        figure = _draw(chart, legend=True)
        figure.set_facecolor("white")
        _write(figure, folder / f"{chart.name}.svg", metadata=_NO_METADATA)
        FigureCanvasAgg(figure)
        _write(figure, folder / f"{chart.name}.png", dpi=_DPI)


def _write(figure: Figure, path: pathlib.Path, **options: Any) -> None:
    drawn = io.BytesIO()
    form = path.suffix.removeprefix(".")
    figure.savefig(drawn, format=form, bbox_inches="tight", **options)
    write_bytes(path, drawn.getvalue())


@contextmanager
def _styled() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # the browser has fonts for characters that this one lacks
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def _draw(chart: Chart, legend: bool) -> Figure:
    if isinstance(chart, Lines):
        return _lines(chart, legend)
    if isinstance(chart, Points):
        return _points(chart, legend)
    if isinstance(chart, Matrix):
        return _matrix(chart)
    if isinstance(chart, Forest):
        return _forest(chart, legend)
    if isinstance(chart, Bars):
        return _bars(chart, legend)
    return _timeline(chart)


def _panel(
    height: float = _PANEL[1], left: float = 0.5, right: float = 0.08
) -> tuple[Figure, Axes]:
    width = _PANEL[0]
    figure = Figure(figsize=(width, height))
    # margins in inches, so that labels fit
    bottom, top = 0.46, 0.1
    return figure, figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )


def _lines(chart: Lines, legend: bool) -> Figure:
    figure, axes = _panel()
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
    if chart.shares:
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    if legend:
        # a page shows them above the panel
        axes.set_ylabel(chart.y_label)
        axes.set_title(chart.title, loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _named_rows(names: list[str], x_label: str) -> tuple[Figure, Axes]:
    """Returns a panel as high as its rows need; the first row is at 0, at the top."""
    figure, axes = _panel(0.56 + _ROW * max(len(names), 1), _NAMES, right=0.2)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    return figure, axes


def _forest(chart: Forest, legend: bool) -> Figure:
    names = [row.text for row in chart.intervals]
    figure, axes = _named_rows(names, chart.x_label)
    axes.grid(visible=True, axis="x")
    axes.axvline(0, color=_INK, lw=0.9)
    for i, row in enumerate(chart.intervals):
        colour = theme.COLOURS[row.mark.colour][0]
        axes.plot((row.low, row.high), (i, i), color=colour, lw=1.4)
        axes.plot(row.value, i, color=colour, marker=row.mark.marker, ms=5, mew=0)
    axes.set_xlim(*chart.limits)
    axes.xaxis.set_major_formatter(FuncFormatter(_points_of))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if legend:
        # a page shows it above the panel
        axes.set_title(chart.title, loc="left")
    return figure


def _bars(chart: Bars, legend: bool) -> Figure:
    names = [label.text for label in chart.rows_are]
    figure, axes = _named_rows(names, chart.x_label)
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
        axes.set_title(chart.title, loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _percent(share: float, place: int) -> str:
    del place
    return f"{round(100 * share, 6):g} %".replace("-", "−")


def _points_of(share: float, place: int) -> str:
    """Returns a difference of shares in percentage points."""
    return _percent(share, place).removesuffix(" %")


def _points(chart: Points, legend: bool) -> Figure:
    figure, axes = _panel()
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
        axes.set_title(chart.title, loc="left")
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return figure


def _matrix(chart: Matrix) -> Figure:
    rows, columns = len(chart.rows_are), len(chart.columns_are)
    large = rows * columns > _WRITTEN
    figure = Figure(
        figsize=(10, 10) if large else (1.2 + 0.42 * columns, 0.8 + 0.26 * rows)
    )
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
            axes.text(*place, text, ha="center", va="center", color=ink, size=8)
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
    axes.set_title(f"{chart.title}; {chart.corner}", loc="left")
    return figure


def _timeline(chart: Timeline) -> Figure:
    figure = Figure(figsize=(6.5, 0.3 + 0.24 * len(chart.stops)))
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
            axes.text(x, i + 0.5, text, ha=side, va="center", color=ink, size=8)
    axes.set_title(chart.title, loc="left")
    return figure
