"""Paired comparisons of several runs: each method against the first."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmcl_jax.analysis import run_comparison
from mmcl_jax.analysis.measures import SPACE
from mmcl_jax.evaluation.label_spaces import ROUTES
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import Block, Facts, Key, Panels, Section
from mmcl_jax.report.charts import Forest, Interval, shown
from mmcl_jax.report.run_data import Groups, RunData
from mmcl_jax.report.tables import Cell, Table
from mmcl_jax.report.theme import Mark

_ALL, _OVERALL = "all tasks", Mark("ink", "o")
_ABOUT = (
    "Accuracy after the newest stage, among the classes seen of the modality that is "
    "given or predicted, minus that of {first} on the same test samples, with 95 % "
    "intervals: by the bootstrap over test samples for one pair of runs, by Student's "
    "t over pairs of runs with the same seeds if there are several. An "
    "interval over samples says nothing about other seeds. p: McNemar's exact test of "
    "two runs, separately for each row: of many rows some are small by chance. "
    "Agreement: share of samples with the same predicted class; kappa: agreement "
    "beyond chance."
)
# largest number of tasks and methods that a page draws, and of task rows in its table
_TASKS, _METHODS, _ROWS = 40, 8, 1200
_HEAD = ("samples", "accuracy", "of first", "difference", "p", "agreement", "kappa")

Row = dict[str, Any]


class Side(NamedTuple):
    """A method or run that is compared to the first one.

    Attributes:
        name: Name of the method, or of the run if there is one method.
        mark: Colour and marker.
        pairs: What `compare_runs` gives for each pair.
        whole: Row for all tasks by route, of one pair or over pairs.
        tasks: Rows of each task by route.
    """

    name: str
    mark: Mark
    pairs: tuple[dict[str, Any], ...]
    whole: dict[str, Row]
    tasks: dict[str, list[Row]]


def differences(groups: Groups) -> Section:
    """Returns all methods against the first, or all runs against the first run."""
    title = "Paired differences"
    named = groups if len(groups) > 1 else _run_by_run(groups)
    (first, base), *others = named.items()
    marks = theme.of_methods(named)
    sides, refused = [], []
    for name, runs in others:
        side, reasons = _side(name, marks[name], base, runs)
        sides += [side] if side else []
        refused += [(shown(name), shown(reason, 500)) for reason in reasons]
    about = _ABOUT.format(first=shown(first))
    blocks: list[Block] = []
    if sides:
        rows, told = 0, []
        for side in sides:
            rows += sum(map(len, side.tasks.values()))
            told.append(rows <= _ROWS)
        blocks += [*_charts(sides), _table(sides, told)]
        if not all(told):
            about += (
                " To keep the page small, the table has only the tasks of the first "
                "methods; python -m mmcl_jax.compare --json has all."
            )
        if any(len(side.pairs) > 1 for side in sides):
            blocks.append(_pairs_table(sides))
    if refused:
        folded = len(refused) > 3
        blocks.append(Facts("Not compared", tuple(refused), folded))
    absent = "" if sides else "no two of these runs can be compared"
    return Section("differences", title, about, tuple(blocks), absent)


def _run_by_run(groups: Groups) -> Groups:
    """Returns the runs of one method as groups of one, by the names of folders."""
    (runs,) = groups.values()
    unique = len({run.workdir.name for run in runs}) == len(runs)
    return {run.workdir.name if unique else str(run.workdir): [run] for run in runs}


def _side(
    name: str, mark: Mark, base: list[RunData], runs: list[RunData]
) -> tuple[Side | None, list[str]]:
    """Compares a group with the first one.

    Returns:
        The comparison, None if nothing can be compared; and what is left out, and why.
    """
    compared, reasons = [], []
    for run in runs:
        if len(base) == len(runs) == 1:
            partners = base
        else:
            partners = [one for one in base if one.seeds == run.seeds]
        if not partners:
            reasons.append(f"{run.workdir} has no partner with the same seeds")
        for one in partners:
            try:
                compared.append(
                    run_comparison.compare_runs(
                        one.workdir, run.workdir, spaces=(SPACE,)
                    )
                )
            except (ValueError, OSError) as error:
                reasons.append(str(error).splitlines()[0])
    if not compared:
        return None, reasons
    pairs = tuple(compared)
    if len(pairs) == 1:
        cells = pairs[0]["spaces"][SPACE]
        whole, tasks = (
            {route: cells[route][part] for route in ROUTES} for part in ("all", "tasks")
        )
        return Side(name, mark, pairs, whole, tasks), reasons
    try:
        over = run_comparison.over_pairs(pairs)
    except ValueError as error:
        return None, [*reasons, str(error)]
    whole, tasks = over["differences"][SPACE], over["tasks"][SPACE]
    return Side(name, mark, pairs, whole, tasks), reasons


def _charts(sides: list[Side]) -> tuple[Panels, ...]:
    overall = [
        Forest(
            f"differences-{route}",
            f"All tasks, modality {route}",
            "difference of mean accuracy, in points",
            tuple(_interval(s.name, s.mark, s.whole[route]) for s in sides),
            (0.0, 0.0),
        )
        for route in reversed(ROUTES)
    ]
    drawn = sides[:_METHODS]
    modalities = dict.fromkeys(
        row["modality"] for side in drawn for row in side.tasks["predicted"]
    )
    marks = theme.of_modalities(modalities)
    by_task = []
    for k, side in enumerate(drawn):
        rows = side.tasks["predicted"]
        intervals = [
            _interval(row["name"], marks[row["modality"]], row) for row in rows[:_TASKS]
        ]
        if (more := len(rows) - _TASKS) > 0:
            none: Row = dict.fromkeys(("difference", "low", "high"))
            intervals.append(_interval(f"{more} more tasks", Mark("muted", ""), none))
        intervals.append(_interval(_ALL, _OVERALL, side.whole["predicted"]))
        by_task.append(
            Forest(
                f"differences-tasks-{k + 1}",
                f"{shown(side.name)}: each task, modality predicted",
                "difference of accuracy, in points",
                tuple(intervals),
                (0.0, 0.0),
            )
        )
    methods = tuple(Key(shown(side.name), side.mark) for side in sides)
    of_tasks = (
        *(Key(shown(name), mark) for name, mark in marks.items()),
        Key(_ALL, _OVERALL),
    )
    return (
        Panels(_with_limits(overall), methods),
        Panels(_with_limits(by_task), of_tasks),
    )


def _interval(text: str, mark: Mark, row: Row) -> Interval:
    value, low, high = (_number(row[n]) for n in (_difference(row), "low", "high"))
    return Interval(shown(text, 24), mark, value, low, high)


def _difference(row: Row) -> str:
    """Returns the key of the difference in a row of one pair, or over pairs."""
    return "difference" if "difference" in row else "mean"


def _with_limits(charts: Sequence[Forest]) -> tuple[Forest, ...]:
    """Returns charts with the same limits, which include zero."""
    ends = [
        end
        for chart in charts
        for row in chart.intervals
        for end in (row.value, row.low, row.high)
        if not math.isnan(end)
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.05 * max(high - low, 0.02)
    limits = low - margin, high + margin
    return tuple(chart._replace(limits=limits) for chart in charts)


def _table(sides: list[Side], told: list[bool]) -> Table:
    """Returns a row for all tasks of each side, and one per task where `told`."""
    body = []
    for side, with_tasks in zip(sides, told, strict=True):
        for route in reversed(ROUTES):
            tasks = side.tasks[route] if with_tasks else []
            for row in ({"name": _ALL} | side.whole[route], *tasks):
                words = shown(side.name), shown(row["name"], 40), route
                count = tables.number(len(side.pairs))
                body.append((*map(tables.word, words), count, *_cells(row)))
    head = ("method", "on", "modality", "pairs", *_HEAD)
    title = (
        "Against the first: accuracy in percent, differences in points; 95 % intervals"
    )
    return Table("differences", title, head, tuple(body), 3)


def _pairs_table(sides: list[Side]) -> Table:
    body = []
    for side in sides:
        for pair in side.pairs:
            for route in reversed(ROUTES):
                seeds = ", ".join(
                    f"{k} {v}" for k, v in pair["second"]["seeds"].items()
                )
                words = shown(side.name), seeds, route
                row = pair["spaces"][SPACE][route]["all"]
                body.append((*map(tables.word, words), *_cells(row)))
    head = ("method", "seeds", "modality", *_HEAD)
    title = "Each pair of runs, all tasks; 95 % intervals over samples"
    return Table("differences-pairs", title, head, tuple(body), 3)


def _cells(row: Row) -> tuple[Cell, ...]:
    difference, low, high = (
        tables.percent(_number(row[name]), signed=True)
        for name in (_difference(row), "low", "high")
    )
    if not math.isnan(low.value):
        difference = difference._replace(note=f"[{low.text}, {high.text}]")
    p = row["mcnemar"]["p_value"] if "mcnemar" in row else math.nan
    return (
        tables.number(row["samples"]),
        tables.percent(_number(row["second"])),
        tables.percent(_number(row["first"])),
        difference,
        Cell(tables.NONE if math.isnan(p) else f"{p:.2g}", p),
        tables.percent(_number(row["predicted_alike"])),
        tables.number(row["kappa"], 3),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
