"""How test samples of each task have changed since it was learnt, for one run."""

import numpy as np

from mmcl_jax.analysis import run_comparison
from mmcl_jax.analysis.measures import SPACE
from mmcl_jax.evaluation.label_spaces import ROUTES
from mmcl_jax.report import tables, theme
from mmcl_jax.report.blocks import Key, Panels, Section
from mmcl_jax.report.charts import Bars, Label, shown
from mmcl_jax.report.run_data import NO_PREDICTIONS, RunData
from mmcl_jax.report.tables import Table
from mmcl_jax.report.theme import Mark
from mmcl_jax.workdir.predictions import StoredPredictions

TITLE = "Forgotten and recovered"
# in this order the samples right before, and those right now, are adjacent
_COLOURS = {
    "forgotten": "warning",
    "right": "muted",
    "recovered": "accent",
    "wrong": "line",
}
_TITLES = {"right": "right both times", "wrong": "wrong both times"}
# largest number of bars in a chart; the table has all
_BARS = 60


def changes(run: RunData) -> Section:
    """Returns how a task's samples were predicted when it was learnt, and are now."""
    about = (
        "Predictions for the test samples of each task, among the classes seen of the "
        "modality that is given or predicted, just after the task was learnt and after "
        "the newest task. Right then: forgotten "
        "and right both times; right now: right both times and recovered. A sample "
        "also counts as forgotten if a class added later wins."
    )
    try:
        found = since_learnt(run)
    except ValueError as error:
        return Section("changes", TITLE, about, absent=str(error))
    parts = tuple(Label(_TITLES.get(k, k), _COLOURS[k]) for k in _COLOURS)
    marks = theme.of_modalities(run.modalities)
    charts, body = [], []
    for route in reversed(ROUTES):
        labels, values = [], []
        for task, kinds in found[route].items():
            known = run.tasks[task]
            name, modality = shown(known["name"], 24), str(known["modality"])
            labels.append(Label(name, marks[modality].colour))
            values.append(tuple(kinds[kind] for kind in _COLOURS))
            words = (name, route)
            numbers = (kinds["samples"], *values[-1])
            body.append((*map(tables.word, words), *map(tables.number, numbers)))
        charts.append(
            Bars(
                f"changes-{route}",
                f"Since each task was learnt, modality {route}",
                "share of test samples",
                parts,
                tuple(labels[:_BARS]),
                tuple(values[:_BARS]),
            )
        )
    if (more := len(found[ROUTES[0]]) - _BARS) > 0:
        about += f" {more} more tasks are only in the table."
    head = ("task", "modality", "samples", *(part.text for part in parts))
    table = Table(
        "changes", "Test samples since each task was learnt", head, tuple(body), 2
    )
    legend = tuple(Key(part.text, Mark(part.colour, ""), solid=True) for part in parts)
    return Section("changes", TITLE, about, (Panels(tuple(charts), legend), table))


def since_learnt(run: RunData) -> dict[str, dict[int, dict[str, int]]]:
    """Returns how many samples of each task but the newest have changed.

    Args:
        run: Run whose history has read the predictions.

    Returns:
        By route and task, in the main label space (`measures.SPACE`), what
        `run_comparison.counts` gives.

    Raises:
        ValueError: There is nothing to count; says why.
    """
    history, stages = run.history, run.stream.stages[: len(run.rows)]
    if reason := history.absent.get("changes"):
        raise ValueError(reason)
    if history.newest is None:
        raise ValueError(NO_PREDICTIONS)
    if len(stages) < 2:
        raise ValueError("it needs two stages; there is one")
    before = StoredPredictions(
        *(
            np.concatenate(part, axis=-1)
            for part in zip(*history.just_learnt, strict=True)
        )
    )
    earlier = [task for stage in stages[:-1] for task in stage]
    rows = run_comparison.matched_samples(
        before, history.newest, earlier, "the stage that learnt it", "the newest"
    )
    canonical = np.array([slot.canonical for slot in run.stream.classes])
    flips = run_comparison.task_flips(before, history.newest, rows, canonical)
    return {
        route: {task: run_comparison.counts(kinds) for task, kinds in by_task.items()}
        for route, by_task in flips[SPACE].items()
    }
