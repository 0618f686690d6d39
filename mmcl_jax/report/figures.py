"""Charts as SVG for a page, or as SVG, PNG and PDF files."""

import functools
import io
import pathlib
import re
from typing import Any, NamedTuple

from markupsafe import Markup
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mmcl_jax.files import write_bytes
from mmcl_jax.report import theme
from mmcl_jax.report.charts import Chart, Panel
from mmcl_jax.report.drawing import FONT_SIZE, draw, styled

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
# formats of files, and how each is written; a PDF would hold the time
FORMATS: dict[str, dict[str, Any]] = {
    "svg": {"metadata": _NO_METADATA},
    "png": {"dpi": 200},
    "pdf": {"metadata": dict.fromkeys(("CreationDate", "Creator", "Producer"))},
}
# attributes of SVG that hold coordinates
_PLACES = re.compile(r'\b(?:d|x|y|transform|points)="[^"]*"')
# inches; what is left for a panel whose legend takes nearly all the width
_NARROWEST = 1.0


class Look(NamedTuple):
    """How figures are drawn as files.

    Attributes:
        width: Width in inches, legend included; None leaves it to each chart.
        font_size: Font size in points.
        titles: Whether titles are written above.
    """

    width: float | None = None
    font_size: float = FONT_SIZE
    titles: bool = True


DEFAULT = Look()


@functools.lru_cache(maxsize=256)
def inline(chart: Panel) -> Markup:
    """Returns a chart as an `<svg>` element for a page, in the page's colours.

    Unchanged charts are cached.
    """
    return Markup(_recoloured(chart, legend=False))


def standalone(chart: Panel) -> str:
    """Returns a chart as an SVG file in the colours of its reader's screen."""
    svg = _recoloured(chart, legend=True)
    used = theme.css_of([n for n in theme.COLOURS if f"var(--{n})" in svg])
    head, _, rest = svg.partition(">")
    return f"{head}>\n <style>{used}</style>{rest}"


def _rounded(places: re.Match[str]) -> str:
    """Returns an attribute with its numbers to a hundredth of a point, on one line."""
    short = re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", places[0])
    return " ".join(short.split())


def _recoloured(chart: Panel, legend: bool) -> str:
    with styled():
        figure = draw(chart, legend)
        text = io.StringIO()
        FigureCanvasSVG(figure)
        bounds = "tight" if legend else None
        figure.savefig(text, format="svg", metadata=_NO_METADATA, bbox_inches=bounds)
    svg = text.getvalue()
    svg = _PLACES.sub(_rounded, svg[svg.index("<svg") :])
    svg = re.sub(r"\n +<", "\n<", svg)  # a tenth of it is indentation
    # ids must be unique on a page of several figures
    svg = re.sub(r'\bid="', f'id="{chart.name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{chart.name}-", svg)
    for name, (light, _) in theme.COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    head = f'<svg role="img" aria-label="{Markup.escape(chart.title)}"'
    return svg.replace("<svg", head, 1)


def save(chart: Chart, folder: pathlib.Path, look: Look = DEFAULT) -> None:
    """Writes a chart as SVG, PNG and PDF, on white and with its legend.

    Args:
        chart: The chart, whose name is that of the files.
        folder: Folder that exists.
        look: Width, font size and whether there are titles.
    """
    with styled(look.font_size):
        figure = _fitted(chart, look)
        figure.set_facecolor("white")
        for form, options in FORMATS.items():
            drawn = io.BytesIO()
            figure.savefig(drawn, format=form, bbox_inches="tight", **options)
            write_bytes(folder / f"{chart.name}.{form}", drawn.getvalue())


def _fitted(chart: Chart, look: Look) -> Figure:
    """Returns a figure that is as wide as asked for, with all that stands beside it."""
    figure = draw(chart, True, look.titles)
    FigureCanvasAgg(figure)
    if look.width is None:
        return figure
    # legends and names are outside of the figure, of the same size at every width
    beside = figure.get_tightbbox().width - figure.get_figwidth()
    beside += 2 * rcParams["savefig.pad_inches"]
    width = max(look.width - beside, _NARROWEST)
    return draw(chart, True, look.titles, width)
