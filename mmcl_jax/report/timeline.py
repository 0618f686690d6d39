"""Section on what a run has learnt, when it came, and what is left of it."""

import math

from mmcl_jax.analysis.measures import ROUTE, SPACE
from mmcl_jax.report import tables
from mmcl_jax.report.blocks import Section
from mmcl_jax.report.charts import shown
from mmcl_jax.report.run_data import RunData
from mmcl_jax.report.tables import Cell, Table

_HEAD = (
    *("task", "modality", "came", "classes", "new", "samples"),
    *("learnt, %", "now, %"),
)


def timeline(run: RunData) -> Section:
    """Returns the tasks in the order of learning, with those added later."""
    accuracy, now = run.accuracy(SPACE, ROUTE), run.rows[-1]
    learnt_after = {i: row for row, stage in _stages(run) for i in stage}
    met: set[int] = set()
    body = []
    for i, (task, said) in enumerate(zip(run.stream.tasks, run.tasks, strict=True)):
        row = learnt_after.get(i)
        body.append(
            (
                tables.word(shown(task.name)),
                tables.word(shown(task.modality)),
                tables.word(_came(run, i)),
                _number(len(task.classes)),
                _number(len(set(task.classes) - met)),
                _number(said["train"]),
                tables.percent(math.nan if row is None else accuracy[row, i]),
                tables.percent(math.nan if row is None else accuracy[now, i]),
            )
        )
        met |= set(task.classes)
    about = (
        "Tasks in the order of learning, and when each was added to the run. Accuracy "
        "among the classes learnt so far of the predicted modality, right after the "
        "task and now; – : not learnt yet, or its test samples are gone."
    )
    table = Table("timeline", "Tasks", _HEAD, tuple(body), words=3)
    return Section("timeline", "Timeline", about, (table,))


def _stages(run: RunData) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the learnt stages, each with its row in the accuracy matrix."""
    return list(zip(run.rows, run.stream.stages, strict=False))


def _came(run: RunData, task: int) -> str:
    """Returns when a task came, and from where."""
    before = [each for each in run.stored.added if each["first"] <= task]
    if not before:
        return "from the start"
    return shown(f"{before[-1]['date'][:10]} from {before[-1]['data']}", 80)


def _number(value: int) -> Cell:
    return tables.number(value, 0)
