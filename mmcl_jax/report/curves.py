"""Sections on accuracy and forgetting over time; `metrics` computes every number."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.analysis.measures import SPACE
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation.label_spaces import ROUTES
from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Lines, Series, shown
from mmcl_jax.report.run_data import Groups, RunData
from mmcl_jax.report.theme import Mark

_OVERALL, _FROZEN = Mark("ink", "o"), Mark("muted", "")
Metric = Callable[[np.ndarray], float]


def curve(
    run: RunData, metric: Metric, space: str, route: str, modality: str | None = None
) -> list[float]:
    """Returns a metric after each learnt stage, over all tasks or those of a modality.

    Args:
        run: The run.
        metric: Function of a matrix that is restricted to the tasks learnt by then.
        space: Label space.
        route: Whether the modality is given; "zero_shot" is the frozen encoder.
        modality: Modality whose test sets count; None takes all.
    """
    frozen = route == "zero_shot"
    whole = run.zero_shot(space) if frozen else run.accuracy(space, route)
    keep = np.array([modality in (None, task["modality"]) for task in run.tasks])
    found = []
    for row in run.rows:
        cut = metrics.columns(whole[: row + 1, : row + 1], keep[: row + 1])
        found.append(metric(cut))
    return found


# title, metric, and unit of the axis
_CURVES: dict[str, tuple[str, Metric, Literal["%", "points"]]] = {
    "average": ("average accuracy", metrics.last_average_accuracy, "%"),
    "forgetting": ("forgetting", metrics.forgetting_chaudhry, "points"),
}


def curves(groups: Groups) -> Section:
    """Returns average accuracy and forgetting over time."""
    about = (
        "Over all tasks seen so far, among the classes seen of the modality that is "
        "given or predicted (routed). Forgetting is the mean drop from the best "
        "earlier accuracy (Chaudhry et al.), in points. "
    )
    if len(groups) == 1:
        (runs,) = groups.values()
        panels = _curves_by_modality(runs)
        about += "Dashed: the frozen encoder, whose accuracy falls with more classes."
    else:
        panels = _curves_by_method(groups)
    several = max(map(len, groups.values())) > 1
    if several:
        about += " Bands are 95 % t intervals of the mean over runs."
    return Section("curves", "Over time", about, panels)


def _curves_by_modality(runs: list[RunData]) -> tuple[Panels, ...]:
    modalities = list(dict.fromkeys(m for run in runs for m in run.modalities))
    marks = theme.of_modalities(modalities)
    charts = []
    for name, (title, metric, unit) in _CURVES.items():
        for route in reversed(ROUTES):
            series = [_series(m, marks[m], runs, metric, route, m) for m in modalities]
            series.append(_series("all", _OVERALL, runs, metric, route))
            frozen = _series("frozen encoder", _FROZEN, runs, metric, "zero_shot")
            series.append(frozen._replace(dashed=True, low=(), high=()))
            text = f"{title.capitalize()}, modality {route}"
            charts.append(_chart(f"{name}-{route}", text, title, series, unit))
    legend = [Key("all", _OVERALL), *(Key(m, marks[m]) for m in modalities)]
    legend.append(Key("frozen encoder", _FROZEN, dashed=True))
    return (Panels(_with_limits(charts), tuple(legend)),)


def _curves_by_method(groups: Groups) -> tuple[Panels, ...]:
    marks = theme.of_methods(groups)
    legend = tuple(Key(shown(name), mark) for name, mark in marks.items())
    overall = []
    for name, (title, metric, unit) in _CURVES.items():
        for route in reversed(ROUTES):
            series = [
                _series(shown(group), marks[group], runs, metric, route)
                for group, runs in groups.items()
            ]
            text = f"{title.capitalize()}, modality {route}"
            overall.append(_chart(f"{name}-{route}", text, title, series, unit))
    modalities = dict.fromkeys(
        m for runs in groups.values() for run in runs for m in run.modalities
    )
    by_modality = []
    for modality in modalities:
        series = [
            _series(
                shown(group),
                marks[group],
                runs,
                metrics.last_average_accuracy,
                "predicted",
                modality,
            )
            for group, runs in groups.items()
        ]
        title = f"On {shown(modality)}, modality predicted"
        name = f"average-{shown(modality)}"
        by_modality.append(
            Lines(name, title, "average accuracy", tuple(series), (0, 1))
        )
    return tuple(Panels(_with_limits(c), legend) for c in (overall, by_modality))


def _chart(
    name: str,
    text: str,
    title: str,
    series: list[Series],
    unit: Literal["%", "points"],
) -> Lines:
    label = title if unit == "%" else f"{title}, in points"
    return Lines(name, text, label, tuple(series), (0, 1), unit=unit)


def _series(
    name: str,
    mark: Mark,
    runs: list[RunData],
    metric: Metric,
    route: str,
    modality: str | None = None,
) -> Series:
    """Returns a curve; for several runs the mean, where all of them have a value."""
    of_runs = [curve(run, metric, SPACE, route, modality) for run in runs]
    places = [{row: i for i, row in enumerate(run.rows)} for run in runs]
    common = sorted(set.intersection(*(set(place) for place in places)))
    points = [
        statistics.summary(
            [values[place[row]] for values, place in zip(of_runs, places, strict=True)]
        )
        for row in common
    ]
    several = len(runs) > 1
    return Series(
        name,
        mark,
        tuple(row + 1 for row in common),
        tuple(point.mean for point in points),
        tuple(point.low for point in points) if several else (),
        tuple(point.high for point in points) if several else (),
    )


def _with_limits(charts: list[Lines]) -> tuple[Lines, ...]:
    """Returns charts with limits in whole tenths, the same for one kind of axis."""
    found = []
    for chart in charts:
        alike = [other for other in charts if other.y_label == chart.y_label]
        values = [
            y
            for other in alike
            for series in other.series
            for y in (*series.y, *series.low, *series.high)
            if not math.isnan(y)
        ]
        low, high = min(values, default=0.0), max(values, default=1.0)
        bottom = math.floor(low * 10) / 10
        top = max(math.ceil(high * 10) / 10, bottom + 0.1)
        margin = 0.02 * (top - bottom)
        found.append(chart._replace(limits=(bottom - margin, top + margin)))
    return tuple(found)
