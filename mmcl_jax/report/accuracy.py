"""Sections on what was learnt and kept: every number is of `metrics`."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from mmcl_jax import aggregate, metrics, statistics
from mmcl_jax.evaluate import ROUTES, SPACES
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import (
    Block,
    Card,
    Cards,
    Key,
    Panels,
    Section,
    Square,
    Switch,
    Text,
)
from mmcl_jax.report.charts import Label, Lines, Matrix, Series, Stop, Timeline, shown
from mmcl_jax.report.data import RunData
from mmcl_jax.report.tables import Cell, Table
from mmcl_jax.report.theme import Mark
from mmcl_jax.results import of_stream

Groups = dict[str, list[RunData]]
# what a page shows of a stream, so that it stays small whatever the stream
_STOPS, _CLASSES = 200, 12
_OVERALL, _FROZEN = Mark("ink", "o"), Mark("muted", "")
_TITLES = {
    "last_average_accuracy": "last average",
    "average_incremental_accuracy": "average incremental",
    "learning_accuracy": "just learnt",
    "forgetting_chaudhry": "forgetting",
    "excess_forgetting": "excess forgetting",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
}
# orders of tasks that are shown
_FEW = 5


def so_far(run: RunData, space: str, route: str) -> dict[str, float]:
    """Returns every metric over the tasks learnt so far; of a whole run, its own."""
    size = run.rows[-1] + 1
    cut = run.accuracy(space, route)[:size, :size]
    return of_stream(cut, run.zero_shot(space)[:size, :size])


def summary(
    runs: Sequence[RunData], space: str, route: str, name: str
) -> statistics.Summary:
    """Returns mean and interval of a metric over runs."""
    return statistics.summary([so_far(run, space, route)[name] for run in runs])


def cards(run: RunData) -> Cards:
    """Returns the first numbers of a run."""
    found = so_far(run, "union", "predicted")
    given = so_far(run, "union", "given")
    identified = run.results["modality_identification"]
    return Cards(
        (
            _card("last average accuracy", found, given, "last_average_accuracy"),
            _card("average incremental", found, given, "average_incremental_accuracy"),
            _card("forgetting", found, given, "forgetting_chaudhry"),
            _card("of it, excess", found, given, "excess_forgetting"),
            Card(
                "modality told apart",
                tables.percent(_float(identified.get("accuracy"))).text,
                "of the test samples",
            ),
        )
    )


def _card(title: str, found: dict, given: dict, name: str) -> Card:
    note = f"modality given: {tables.percent(given[name]).text}"
    return Card(title, tables.percent(found[name]).text, note)


def describe(run: RunData) -> str:
    """Returns a line on what a run learns."""
    listed = ", ".join(map(shown, run.modalities))
    tasks, classes = len(run.tasks), len(run.stream["classes"])
    return f"{tasks} tasks, {classes} classes; {listed}"


def stream(groups: Groups) -> Section:
    """Returns the tasks in order, once for each order among the runs."""
    timelines: dict[str, Timeline] = {}
    orders: dict[str, list[str]] = {}
    for name, runs in groups.items():
        for run in runs:
            key = str(run.stream.get("hash"))
            orders.setdefault(key, []).append(name)
            if key not in timelines and len(timelines) < _FEW:
                number = f"-{len(timelines) + 1}" if timelines else ""
                timelines[key] = _timeline(run, f"stream{number}")
    blocks: list[Block] = []
    for key, timeline in timelines.items():
        if len(orders) > 1:
            title = f"{timeline.title}; {len(orders[key])} of the runs"
            timeline = timeline._replace(title=title)
        blocks.append(timeline)
    if len(orders) > len(timelines):
        others = len(orders) - len(timelines)
        blocks.append(Text(f"Orders of tasks that are not listed: {others}."))
    about = "Tasks in the order they were met, with their new classes."
    return Section("stream", "The stream", about, tuple(blocks))


def _timeline(run: RunData, name: str) -> Timeline:
    marks = theme.of_modalities(run.modalities)
    stops = []
    for i, task in enumerate(run.tasks[:_STOPS]):
        classes = [shown(text, 40) for text in task["classes"][:_CLASSES]]
        if more := len(task["classes"]) - len(classes):
            classes.append(f"and {more} more")
        modality = str(task["modality"])
        stops.append(
            Stop(
                i + 1,
                shown(task["name"], 40),
                modality,
                marks[modality].colour,
                tuple(classes),
                i <= run.rows[-1],
            )
        )
    return Timeline(
        name, shown(describe(run), 200), tuple(stops), len(run.tasks) - len(stops)
    )


def matrices(run: RunData) -> Section:
    """Returns the accuracy matrix of every label space and route."""
    marks = theme.of_modalities(run.modalities)
    names = [shown(task["name"], 24) for task in run.tasks]
    colours = [marks[str(task["modality"])].colour for task in run.tasks]
    rows = tuple(Label(f"after {row + 1}", colours[row]) for row in run.rows)
    columns = tuple(map(Label, names, colours))
    about = (
        "Accuracy in percent on the test set of each task (columns) after each task "
        "(rows). Below the diagonal stands what was kept, above it the task that comes "
        "next. The columns' colours are the modalities'."
    )
    found = []
    order = sorted(SPACES, key=lambda space: space != "union")
    for space in order:
        for route in reversed(ROUTES):
            values = run.accuracy(space, route)[list(run.rows)]
            title = f"Accuracy, {space} labels, modality {route}"
            matrix = Matrix(
                f"accuracy-{space}-{route}",
                title,
                "after task, on test set",
                rows,
                columns,
                tuple(map(tuple, values.tolist())),
            )
            found.append((f"{space}, {route}", matrix))
    return Section(
        "accuracy",
        "Accuracy matrices",
        about,
        (Switch("space", tuple(found)), _metrics_table(run)),
    )


def _metrics_table(run: RunData) -> Table:
    body = []
    for space in SPACES:
        for route in ROUTES:
            found = so_far(run, space, route)
            cells = [tables.percent(found[name]) for name in _TITLES]
            body.append((tables.word(space), tables.word(route), *cells))
    head = ("labels", "modality", *_TITLES.values())
    return Table("metrics", "Metrics of the stream, in percent", head, tuple(body), 2)


def comparison(groups: Groups) -> Section:
    """Returns a table of all methods with intervals."""
    body = []
    for route in reversed(ROUTES):
        for name, runs in groups.items():
            cells = [
                tables.summarized(summary(runs, aggregate.SPACE, route, metric))
                for metric in aggregate.METRICS
            ]
            body.append(
                (
                    tables.word(shown(name)),
                    tables.word(route),
                    tables.number(len(runs)),
                    *cells,
                )
            )
    head = ("method", "modality", "n", *aggregate.METRICS.values())
    title = "Among all classes met, in percent"
    about = (
        "Mean ± sample deviation over runs, each with an order and seeds of its own, "
        "and the 95 % bootstrap interval of the mean. n is the number of runs; of few "
        "runs intervals are too narrow."
    )
    table = Table("comparison", title, head, tuple(body), 2)
    return Section("comparison", "Methods", about, (table,))


Metric = Callable[[np.ndarray], float]


def curve(
    run: RunData, metric: Metric, space: str, route: str, modality: str | None = None
) -> list[float]:
    """Returns a metric after each learnt stage, over all tasks or those of a modality.

    Args:
        run: whose accuracy.
        metric: of a matrix that is cut to the tasks learnt by then.
        space: label space.
        route: whether the modality is given; "zero_shot" is the frozen encoder.
        modality: whose test sets count; None: all.
    """
    frozen = route == "zero_shot"
    whole = run.zero_shot(space) if frozen else run.accuracy(space, route)
    keep = np.array([modality in (None, task["modality"]) for task in run.tasks])
    found = []
    for row in run.rows:
        cut = metrics.columns(whole[: row + 1, : row + 1], keep[: row + 1])
        found.append(metric(cut))
    return found


_CURVES: dict[str, tuple[str, Metric]] = {
    "average": ("average accuracy", metrics.last_average_accuracy),
    "forgetting": ("forgetting", metrics.forgetting_chaudhry),
}


def curves(groups: Groups) -> Section:
    """Returns average accuracy and forgetting over time."""
    about = (
        "Over all tasks met by then, among all classes met (union). Forgetting is the "
        "mean drop from the best earlier accuracy (Chaudhry et al.). "
    )
    if len(groups) == 1:
        (runs,) = groups.values()
        panels = _curves_by_modality(runs)
        about += "Dashed: the frozen encoder, whose accuracy falls as classes join."
    else:
        panels = _curves_by_method(groups)
    several = max(map(len, groups.values())) > 1
    if several:
        about += " Bands are 95 % bootstrap intervals of the mean over runs."
    return Section("curves", "Over time", about, panels)


def _curves_by_modality(runs: list[RunData]) -> tuple[Panels, ...]:
    modalities = list(dict.fromkeys(m for run in runs for m in run.modalities))
    marks = theme.of_modalities(modalities)
    charts = []
    for name, (title, metric) in _CURVES.items():
        for route in reversed(ROUTES):
            series = [_series(m, marks[m], runs, metric, route, m) for m in modalities]
            series.append(_series("all", _OVERALL, runs, metric, route))
            frozen = _series("frozen encoder", _FROZEN, runs, metric, "zero_shot")
            series.append(frozen._replace(dashed=True, low=(), high=()))
            text = f"{title.capitalize()}, modality {route}"
            charts.append(Lines(f"{name}-{route}", text, title, tuple(series), (0, 1)))
    legend = [Key("all", _OVERALL), *(Key(m, marks[m]) for m in modalities)]
    legend.append(Key("frozen encoder", _FROZEN, dashed=True))
    return (Panels(_with_limits(charts), tuple(legend)),)


def _curves_by_method(groups: Groups) -> tuple[Panels, ...]:
    marks = theme.of_methods(groups)
    legend = tuple(Key(shown(name), mark) for name, mark in marks.items())
    overall = []
    for name, (title, metric) in _CURVES.items():
        for route in reversed(ROUTES):
            series = [
                _series(shown(group), marks[group], runs, metric, route)
                for group, runs in groups.items()
            ]
            text = f"{title.capitalize()}, modality {route}"
            overall.append(Lines(f"{name}-{route}", text, title, tuple(series), (0, 1)))
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


def _series(
    name: str,
    mark: Mark,
    runs: list[RunData],
    metric: Metric,
    route: str,
    modality: str | None = None,
) -> Series:
    """Returns a curve, of several runs their mean where all of them have a value."""
    of_runs = [curve(run, metric, aggregate.SPACE, route, modality) for run in runs]
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
    """Returns charts, those of one axis with the same limits: whole tenths."""
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


def knowing(groups: Groups) -> Section:
    """Returns what it costs not to be told the modality, for labels and for routes."""
    about = (
        "Last average accuracy. To the right, classes of other modalities may win, "
        "too; downwards, the method has to find the modality itself. The order of the "
        "two steps matters, hence two numbers for each."
    )
    blocks: list[Block] = []
    if len(groups) == 1:
        (runs,) = groups.values()
        blocks.append(_square(runs))
    blocks += [_knowing_table(groups), _gap_table(groups)]
    return Section("knowing", "What knowing is worth", about, tuple(blocks))


def _cell_values(run: RunData) -> dict[str, float]:
    """Returns the four cells and what lies between them."""
    name = "last_average_accuracy"
    cells = {
        f"{space}/{route}": so_far(run, space, route)[name]
        for space in SPACES
        for route in ROUTES
    }
    parts = metrics.decomposition(
        cells["modality/given"],
        cells["union/given"],
        cells["modality/predicted"],
        cells["union/predicted"],
    )
    return cells | {
        "labels/given": parts.label_confusion[0],
        "labels/predicted": parts.label_confusion[1],
        "route/union": parts.routing[0],
        "route/modality": parts.routing[1],
        "gap": parts.gap,
    }


def _over(runs: list[RunData]) -> dict[str, statistics.Summary]:
    of_runs = [_cell_values(run) for run in runs]
    return {key: statistics.summary([v[key] for v in of_runs]) for key in of_runs[0]}


def _square(runs: list[RunData]) -> Square:
    found = _over(runs)
    cells = []
    for route in ROUTES:
        for space in ("modality", "union"):
            mean = found[f"{space}/{route}"]
            level = None if math.isnan(mean.mean) else theme.level(mean.mean)
            cells.append((tables.summarized(mean), level))

    def cost(key: str) -> Cell:
        value = found[key]
        return tables.percent(-value.mean, signed=True)

    return Square(
        ("classes of its modality", "all classes met"),
        ("modality given", "modality predicted"),
        tuple(cells),
        (cost("labels/given"), cost("labels/predicted")),
        (cost("route/modality"), cost("route/union")),
        cost("gap"),
    )


def _knowing_table(groups: Groups) -> Table:
    body, several = [], len(groups) > 1
    for name, runs in groups.items():
        found = _over(runs)
        for space in SPACES:
            pair = [found[f"{space}/{route}"] for route in ROUTES]
            costs = [
                _cell_values(run)[f"{space}/given"]
                - _cell_values(run)[f"{space}/predicted"]
                for run in runs
            ]
            body.append(
                (
                    *([tables.word(shown(name))] if several else []),
                    tables.word(space),
                    *(tables.summarized(value) for value in pair),
                    tables.summarized(statistics.summary(costs), signed=True),
                )
            )
    head = ("labels", "modality given", "predicted", "cost of not knowing")
    head = ("method", *head) if several else head
    title = "Last average accuracy by label space and route, in percent"
    return Table("knowing", title, head, tuple(body), 1 + several)


def _gap_table(groups: Groups) -> Table:
    """Returns the gap between all and nothing known, split along both paths."""
    parts = {
        "gap": "all of it",
        "labels/given": "labels, modality given",
        "labels/predicted": "labels, predicted",
        "route/modality": "route, own classes",
        "route/union": "route, all classes",
    }
    body = []
    for name, runs in groups.items():
        found = _over(runs)
        cells = [tables.summarized(found[part], signed=True) for part in parts]
        body.append((tables.word(shown(name)), *cells))
    title = "What is lost from all known to nothing known, in percent"
    return Table("gap", title, ("method", *parts.values()), tuple(body))


def identification(groups: Groups) -> Section:
    """Returns which modality test samples were taken for."""
    about = (
        "True modality (rows) and the one that the method took a sample for (columns), "
        "over all test samples seen so far; the colour is the share of the row."
    )
    blocks: list[Block] = []
    for name, runs in groups.items():
        names = list(runs[0].modalities)
        counts = np.zeros((len(names), len(names)))
        for run in runs:
            identified = run.results["modality_identification"]
            if identified and set(run.modalities) == set(names):
                order = [run.modalities.index(n) for n in names]
                counts += np.array(identified["confusion"], float)[np.ix_(order, order)]
        if not counts.any():
            continue
        marks = theme.of_modalities(names)
        labels = tuple(Label(shown(n), marks[n].colour) for n in names)
        totals = counts.sum(1, keepdims=True)
        shares = counts / np.where(totals > 0, totals, 1)
        number = "" if len(groups) == 1 else f"-{len(blocks) + 1}"
        title = "Modality confusion" + (f" of {shown(name)}" if number else "")
        blocks.append(
            Matrix(
                f"modalities{number}",
                title,
                "true, predicted",
                labels,
                labels,
                tuple(map(tuple, counts.tolist())),
                tuple(map(tuple, shares.tolist())),
                counts=True,
            )
        )
    absent = "" if blocks else "no test sample has been scored yet"
    return Section("modalities", "Modality confusion", about, tuple(blocks), absent)


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
