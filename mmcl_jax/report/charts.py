"""What a figure shows, apart from how it is drawn: plain values, and their CSV."""

import csv
import io
import math
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

from mmcl_jax.report.theme import Mark, level

# joins the parts of an emoji; all other format characters may hide or turn text
_JOINER = "\u200d"


def shown(text: Any, limit: int = 60) -> str:
    r"""Returns a name from data as it is shown: one line, no control characters, cut.

    >>> shown("a\tvery\u202e long name", limit=8)
    'a very…'
    """
    # what is cut anyway is not looked at
    head = str(text)[: 8 * limit]
    kept = [
        c
        if c == _JOINER or unicodedata.category(c)[0] != "C"
        else " "
        if c.isspace()
        else ""
        for c in head
    ]
    line = " ".join("".join(kept).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


class Series(NamedTuple):
    """One curve.

    Attributes:
        name: in the legend.
        mark: colour and marker.
        x: places.
        y: shares, drawn in percent; NaN is not drawn.
        low: of an interval around each value; empty: none.
        high: its other end.
        dashed: whether the line is a reference.
    """

    name: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False


class Lines(NamedTuple):
    """Curves over the tasks.

    Attributes:
        name: of its files.
        title: short.
        y_label: of the vertical axis.
        series: the curves.
        limits: of the vertical axis.
        x_label: of the other one.
    """

    name: str
    title: str
    y_label: str
    series: tuple[Series, ...]
    limits: tuple[float, float]
    x_label: str = "tasks learnt"

    def rows(self) -> list[list[Any]]:
        """Returns a head, and a row for each point of each curve."""
        found: list[list[Any]] = [["series", self.x_label, self.title, "low", "high"]]
        for series in self.series:
            none = (math.nan,) * len(series.x)
            columns = (series.y, series.low or none, series.high or none)
            for x, *values in zip(series.x, *columns, strict=True):
                found.append([series.name, x, *values])
        return found


class Label(NamedTuple):
    """A row or column of a matrix, a bar or a part of one.

    Attributes:
        text: its name.
        colour: of its mark, a name of `theme.COLOURS`, or "".
    """

    text: str
    colour: str = ""


class Matrix(NamedTuple):
    """Numbers on a ramp of colours.

    Attributes:
        name: of its files.
        title: short.
        corner: what rows and columns are.
        rows_are: labels.
        columns_are: labels.
        values: numbers; NaN: none.
        shares: from 0 to 1, the place of each on the ramp; empty: the values are it.
        counts: whether the values are whole numbers, and not shares to be shown in
            percent.
    """

    name: str
    title: str
    corner: str
    rows_are: tuple[Label, ...]
    columns_are: tuple[Label, ...]
    values: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...] = ()
    counts: bool = False

    @property
    def short(self) -> bool:
        """Returns whether the titles of the columns need no turning."""
        return all(len(label.text) <= 3 for label in self.columns_are)

    def cells(self) -> list[list[tuple[str, int | None]]]:
        """Returns the text of each value and its level on the ramp, None without."""
        return [
            [
                ("", None)
                if math.isnan(value)
                else (
                    f"{value:.0f}" if self.counts else f"{100 * value:.1f}",
                    level(share),
                )
                for value, share in zip(values, shares, strict=True)
            ]
            for values, shares in zip(
                self.values, self.shares or self.values, strict=True
            )
        ]

    def rows(self) -> list[list[Any]]:
        """Returns a head and the rows."""
        head = [self.corner, *(label.text for label in self.columns_are)]
        body = zip(self.rows_are, self.values, strict=True)
        return [head, *([label.text, *values] for label, values in body)]


class Cloud(NamedTuple):
    """Points of one kind.

    Attributes:
        name: in the legend.
        mark: colour and marker.
        points: places.
        labels: what each is.
        text: whether they are class texts, which are drawn hollow.
    """

    name: str
    mark: Mark
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]
    text: bool = False


class Points(NamedTuple):
    """Points in two dimensions.

    Attributes:
        name: of its files.
        title: short.
        clouds: the points.
        links: pairs of places with a line between them.
    """

    name: str
    title: str
    clouds: tuple[Cloud, ...]
    links: tuple[tuple[tuple[float, float], tuple[float, float]], ...] = ()

    def rows(self) -> list[list[Any]]:
        """Returns a head, and a row for each point."""
        found: list[list[Any]] = [["kind", "name", "x", "y"]]
        for cloud in self.clouds:
            for label, point in zip(cloud.labels, cloud.points, strict=True):
                found.append([cloud.name, label, *point])
        return found


class Stop(NamedTuple):
    """One task of a timeline."""

    number: int
    name: str
    modality: str
    colour: str
    classes: tuple[str, ...]
    learnt: bool


class Timeline(NamedTuple):
    """The tasks in order.

    Attributes:
        name: of its files.
        title: short.
        stops: the tasks.
        more: tasks that are left out.
    """

    name: str
    title: str
    stops: tuple[Stop, ...]
    more: int = 0

    def rows(self) -> list[list[Any]]:
        """Returns a head, and a row for each task."""
        return [
            ["number", "task", "modality", "classes"],
            *([s.number, s.name, s.modality, "; ".join(s.classes)] for s in self.stops),
        ]


class Interval(NamedTuple):
    """A row of a forest plot.

    Attributes:
        text: what it is of.
        mark: colour and marker.
        value: a share, drawn in percent; NaN is not drawn.
        low: of its interval; NaN: none.
        high: the other end.
    """

    text: str
    mark: Mark
    value: float
    low: float
    high: float


class Forest(NamedTuple):
    """Differences with their intervals, one below the other, and a line at zero.

    Attributes:
        name: of its files.
        title: short.
        x_label: what differs.
        intervals: from above.
        limits: of the horizontal axis.
    """

    name: str
    title: str
    x_label: str
    intervals: tuple[Interval, ...]
    limits: tuple[float, float]

    def rows(self) -> list[list[Any]]:
        """Returns a head, and a row for each interval."""
        body = [[row.text, row.value, row.low, row.high] for row in self.intervals]
        return [["of", self.x_label, "low", "high"], *body]


class Bars(NamedTuple):
    """Bars of equal length, one below the other, each cut into parts.

    Attributes:
        name: of its files.
        title: short.
        x_label: what a part is a share of.
        parts: name and colour of each, from the left.
        rows_are: what each bar is of, from above.
        values: numbers of each bar, one a part; drawn as shares of their sum.
    """

    name: str
    title: str
    x_label: str
    parts: tuple[Label, ...]
    rows_are: tuple[Label, ...]
    values: tuple[tuple[float, ...], ...]

    def rows(self) -> list[list[Any]]:
        """Returns a head, and a row for each bar."""
        body = zip(self.rows_are, self.values, strict=True)
        head = [self.x_label, *(part.text for part in self.parts)]
        return [head, *([label.text, *values] for label, values in body)]


Chart = Bars | Forest | Lines | Matrix | Points | Timeline


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Returns rows as CSV; NaN and None are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if _missing(value) else value for value in row])
    return text.getvalue()


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
