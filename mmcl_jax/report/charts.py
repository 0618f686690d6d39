"""The data of figures, apart from how they are drawn: plain values, and their CSV."""

import math
import unicodedata
from typing import Any, Literal, NamedTuple

from mmcl_jax.report.theme import Mark, level

# joins the parts of an emoji; other format characters may hide or reverse text
_JOINER = "\u200d"


def shown(text: Any, limit: int = 60) -> str:
    r"""Returns a name from data for display: one short line without control characters.

    >>> shown("a\tvery\u202e long name", limit=8)
    'a very…'
    """
    # names are untrusted and may be huge: only what can be shown is inspected
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


def shown_end(text: Any, limit: int) -> str:
    """Returns a name as `shown` does, but the end of one that is too long.

    The names of tasks of one data set differ in their ends.

    >>> shown_end("audio/instruments/3", limit=8)
    '…ments/3'
    """
    line = shown(text, 8 * limit)
    return line if len(line) <= limit else "…" + line[1 - limit :].lstrip()


class Series(NamedTuple):
    """One curve.

    Attributes:
        name: Name in the legend.
        mark: Colour and marker.
        x: Horizontal coordinates.
        y: Values; NaN is not drawn.
        low: Lower ends of intervals around the values; empty without intervals.
        high: Upper ends.
        dashed: Whether the line is a reference.
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
        name: Name of its files.
        title: Short title.
        y_label: Label of the vertical axis.
        series: The curves.
        limits: Limits of the vertical axis.
        x_label: Label of the horizontal axis.
        unit: Unit of the values: shares in "%", their differences in "points", or
            "" of other numbers.
    """

    name: str
    title: str
    y_label: str
    series: tuple[Series, ...]
    limits: tuple[float, float]
    x_label: str = "tasks learnt"
    unit: Literal["%", "points", ""] = "%"

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each point of each curve."""
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
        text: Its name.
        colour: Colour of its mark, a name of `theme.COLOURS`, or "".
    """

    text: str
    colour: str = ""


class Matrix(NamedTuple):
    """Numbers on a ramp of colours.

    Attributes:
        name: Name of its files.
        title: Short title.
        corner: What rows and columns stand for.
        rows_are: Labels of the rows.
        columns_are: Labels of the columns.
        values: Numbers; NaN leaves a cell empty.
        shares: Place of each number on the ramp, from 0 to 1; empty if the values are
            that themselves.
        counts: Whether the values are integers, rather than shares shown in percent.
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
        """Returns whether the titles of the columns fit without rotation."""
        return all(len(label.text) <= 3 for label in self.columns_are)

    def cells(self) -> list[list[tuple[str, int | None]]]:
        """Returns the text of each value and its level on the ramp, None if empty."""
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
        """Returns a header and the rows."""
        head = [self.corner, *(label.text for label in self.columns_are)]
        body = zip(self.rows_are, self.values, strict=True)
        return [head, *([label.text, *values] for label, values in body)]


class Cloud(NamedTuple):
    """Points of one kind.

    Attributes:
        name: Name in the legend.
        mark: Colour and marker.
        points: Coordinates of the points.
        labels: Name of each point.
        text: Whether they are class texts, which are drawn hollow.
    """

    name: str
    mark: Mark
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...]
    text: bool = False


class Points(NamedTuple):
    """Points in two dimensions.

    Attributes:
        name: Name of its files.
        title: Short title.
        clouds: The points.
        explained: Share of the variance along each axis.
    """

    name: str
    title: str
    clouds: tuple[Cloud, ...]
    explained: tuple[float, float]

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each point."""
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
        name: Name of its files.
        title: Short title.
        stops: The tasks.
        more: Number of tasks that are left out.
    """

    name: str
    title: str
    stops: tuple[Stop, ...]
    more: int = 0

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each task."""
        return [
            ["number", "task", "modality", "classes"],
            *([s.number, s.name, s.modality, "; ".join(s.classes)] for s in self.stops),
        ]


class Interval(NamedTuple):
    """A row of a forest plot.

    Attributes:
        text: Name of the row.
        mark: Colour and marker.
        value: A difference of shares, drawn in points; NaN is not drawn.
        low: Lower end of its interval; NaN without an interval.
        high: Upper end.
    """

    text: str
    mark: Mark
    value: float
    low: float
    high: float


class Forest(NamedTuple):
    """Differences with their intervals, one below the other, and a line at zero.

    Attributes:
        name: Name of its files.
        title: Short title.
        x_label: What differs.
        intervals: Rows from top to bottom.
        limits: Limits of the horizontal axis.
    """

    name: str
    title: str
    x_label: str
    intervals: tuple[Interval, ...]
    limits: tuple[float, float]

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each interval."""
        body = [[row.text, row.value, row.low, row.high] for row in self.intervals]
        return [["of", self.x_label, "low", "high"], *body]


class Bars(NamedTuple):
    """Bars of equal length, one below the other, each divided into parts.

    Attributes:
        name: Name of its files.
        title: Short title.
        x_label: What a part is a share of.
        parts: Name and colour of each part, from the left.
        rows_are: Label of each bar, from top to bottom.
        values: Numbers of each bar, one per part; drawn as shares of their sum.
    """

    name: str
    title: str
    x_label: str
    parts: tuple[Label, ...]
    rows_are: tuple[Label, ...]
    values: tuple[tuple[float, ...], ...]

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each bar."""
        body = zip(self.rows_are, self.values, strict=True)
        head = [self.x_label, *(part.text for part in self.parts)]
        return [head, *([label.text, *values] for label, values in body)]


class Ranked(NamedTuple):
    """A method of a plot of ranks.

    Attributes:
        text: Its name.
        mark: Colour and marker.
        ranks: Its rank in each run; 1 is best.
        mean: Their mean.
    """

    text: str
    mark: Mark
    ranks: tuple[float, ...]
    mean: float


class Ranks(NamedTuple):
    """Ranks of methods, one below the other, and which of them tests do not tell apart.

    Attributes:
        name: Name of its files.
        title: Short title.
        methods: Methods from top to bottom.
        groups: Rows of methods none of which differ from each other.
    """

    name: str
    title: str
    methods: tuple[Ranked, ...]
    groups: tuple[tuple[int, ...], ...]

    def groups_of(self, row: int) -> str:
        """Returns the numbers of the groups that hold a method, counted from 1."""
        held = [k + 1 for k, group in enumerate(self.groups) if row in group]
        return ", ".join(map(str, held))

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each method."""
        runs = len(self.methods[0].ranks) if self.methods else 0
        head = ["method", "groups", "mean rank", *(f"run {i + 1}" for i in range(runs))]
        return [
            head,
            *(
                [method.text, self.groups_of(i), method.mean, *method.ranks]
                for i, method in enumerate(self.methods)
            ),
        ]


class Spot(NamedTuple):
    """A method of a plot of what is gained against what it costs.

    Attributes:
        text: Its name.
        mark: Colour and marker.
        cost: Place on the horizontal axis.
        gain: Share on the vertical axis.
        low: Lower end of the interval of the gain; NaN without an interval.
        high: Upper end.
        best: Whether no other method costs as little and gains as much.
    """

    text: str
    mark: Mark
    cost: float
    gain: float
    low: float
    high: float
    best: bool


class Pareto(NamedTuple):
    """What methods gain against what they cost, and the front of the best ones.

    Attributes:
        name: Name of its files.
        title: Short title.
        x_label: What it costs.
        y_label: What is gained.
        spots: The methods.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    spots: tuple[Spot, ...]

    def rows(self) -> list[list[Any]]:
        """Returns a header, and a row for each method."""
        head = ["method", self.x_label, self.y_label, "low", "high", "front"]
        body = [[s.text, s.cost, s.gain, s.low, s.high, s.best] for s in self.spots]
        return [head, *body]


# charts that a page shows side by side
Panel = Bars | Forest | Lines | Pareto | Points | Ranks
Chart = Panel | Matrix | Timeline
