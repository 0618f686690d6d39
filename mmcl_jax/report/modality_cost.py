"""Sections on the value of knowing the modality, and on its identification."""

import math

import numpy as np

from mmcl_jax.analysis import statistics
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import Block, Section, Square
from mmcl_jax.report.charts import Label, Matrix, shown
from mmcl_jax.report.run_data import Groups, RunData
from mmcl_jax.report.tables import Cell, Table


def knowing(groups: Groups) -> Section:
    """Returns the cost of not knowing the modality, for labels and for routes."""
    about = (
        "Last average accuracy. Step to the right: classes of other modalities may be "
        "predicted, too. Step down: the method has to predict the modality itself. The "
        "order of the two steps matters, hence two numbers for each."
    )
    blocks: list[Block] = []
    if len(groups) == 1:
        (runs,) = groups.values()
        blocks.append(_square(runs))
    blocks += [_knowing_table(groups), _gap_table(groups)]
    return Section("knowing", "Value of knowing the modality", about, tuple(blocks))


def _cell_values(run: RunData) -> dict[str, float]:
    """Returns the four cells and the differences between them."""
    name = "last_average_accuracy"
    cells = {
        f"{space}/{route}": run.metrics(space, route)[name]
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
        ("classes of its modality", "all classes seen"),
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
    head = ("labels", "modality given", "predicted", "cost in points")
    head = ("method", *head) if several else head
    title = "Last average accuracy by label space and route, in percent"
    return Table("knowing", title, head, tuple(body), 1 + several)


def _gap_table(groups: Groups) -> Table:
    """Returns the gap between everything and nothing known, split along both paths."""
    parts = {
        "gap": "whole gap",
        "labels/given": "labels, modality given",
        "labels/predicted": "labels, modality predicted",
        "route/modality": "route, own classes",
        "route/union": "route, all classes",
    }
    body = []
    for name, runs in groups.items():
        found = _over(runs)
        cells = [tables.summarized(found[part], signed=True) for part in parts]
        body.append((tables.word(shown(name)), *cells))
    title = "Accuracy lost from everything known to nothing known, in points"
    return Table("gap", title, ("method", *parts.values()), tuple(body))


def identification(groups: Groups) -> Section:
    """Returns the true and the predicted modalities of test samples."""
    about = (
        "True modality (rows) and predicted modality (columns) of the test samples of "
        "all tasks seen so far; the colour is the share of the row."
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
    absent = "" if blocks else "no test sample has been evaluated yet"
    return Section("modalities", "Modality confusion", about, tuple(blocks), absent)
