"""The section on classes that were confused, for one run."""

import numpy as np

from mmcl_jax.analysis.measures import ROUTE, SPACE
from mmcl_jax.evaluation import metrics
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.report import theme
from mmcl_jax.report.blocks import Confusion, Example, Mistakes, Section
from mmcl_jax.report.charts import shown
from mmcl_jax.report.media import MAX_BYTES, example, fitting
from mmcl_jax.report.run_data import NO_PREDICTIONS, RunData
from mmcl_jax.workdir.predictions import StoredPredictions

_PAIRS, _SAMPLES = 6, 3


def mistakes(run: RunData) -> Section:
    """Returns the classes that were confused most, with some of their samples."""
    about = (
        "The most frequent mistakes among the classes seen of the predicted modality, "
        "after the newest task, each with some of the misclassified test samples."
    )
    title = "Most confused classes"
    if run.history.newest is None:
        return Section("mistakes", title, about, absent=NO_PREDICTIONS)
    pairs = _confusions(run, run.history.newest)
    absent = "" if pairs else "no test sample was misclassified"
    return Section(
        "mistakes", title, about, (Mistakes(pairs),) if pairs else (), absent
    )


def _confusions(run: RunData, predictions: StoredPredictions) -> tuple[Confusion, ...]:
    """Returns the most frequent mistakes, among classes of the predicted modality."""
    slots = run.stream.classes
    label = predictions.label
    chosen = predictions.chosen[SPACES.index(SPACE), ROUTES.index(ROUTE)]
    canonical = np.array([slot.canonical for slot in slots])
    marks = theme.of_modalities(run.modalities)
    room, found = MAX_BYTES, []
    for own, other, times in metrics.most_confused(label, chosen, canonical, _PAIRS):
        mistaken = predictions.id[(label == own) & (chosen == other)]
        examples = []
        for number in mistaken[:_SAMPLES].tolist():
            examples.append(fitting(_example(run, number, own), room))
            room -= len(examples[-1].content)
        found.append(
            Confusion(
                shown(slots[own].name),
                slots[own].modality,
                marks[slots[own].modality].colour,
                shown(slots[other].name),
                slots[other].modality,
                marks[slots[other].modality].colour,
                times,
                int((label == own).sum()),
                tuple(examples),
            )
        )
    return tuple(found)


def _example(run: RunData, number: int, label: int) -> Example:
    """Returns a test sample by its id and class slot."""
    if isinstance(run.source, str):
        return Example("nothing", run.source, f"sample {number}")
    stream, inputs = run.source
    for task in (task for task in stream.tasks if label in task.classes):
        for record in task.test:
            if record.id == number and record.label == label:
                return example(record, task.modality, inputs)
    reason = "the data are not those that the run was made with"
    return Example("nothing", reason, f"sample {number}")
