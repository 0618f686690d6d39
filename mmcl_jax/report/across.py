"""Section on what was learnt of classes in another modality than their own."""

import numpy as np

from mmcl_jax.evaluation import cross_modal
from mmcl_jax.evaluation.label_spaces import ROUTES
from mmcl_jax.report import tables
from mmcl_jax.report.blocks import Section
from mmcl_jax.report.charts import shown
from mmcl_jax.report.run_data import RunData
from mmcl_jax.report.tables import Table

TITLE = "Across modalities"
_NUMBERS = ("chance", "frozen", *ROUTES)


def across(run: RunData) -> Section:
    """Returns the accuracy on classes before they are learnt in their own modality."""
    about = (
        "Tasks whose classes had all been learnt by name in other modalities, and in "
        "their own by none: accuracy among the classes of the task just before it is "
        "learnt, beside chance and the frozen encoder. The transfer is what the method "
        "is better than the frozen encoder, with the modality given."
    )
    accuracy = np.stack([run.accuracy("task", route) for route in ROUTES])
    found = cross_modal.transfers(run.stream, accuracy, run.zero_shot("task"))
    if not found:
        reason = "no task had classes that were all learnt in other modalities before"
        return Section("across", TITLE, about, absent=reason)
    body = []
    for each in found:
        words = each["task"], each["modality"], ", ".join(each["learnt_in"])
        numbers = [each[name] for name in _NUMBERS]
        body.append(
            (
                *(tables.word(shown(word)) for word in words),
                *map(tables.percent, numbers),
                tables.percent(each["given"] - each["frozen"], signed=True),
            )
        )
    head = ("task", "modality", "learnt in", "chance", "frozen encoder")
    head += (*(f"modality {route}" for route in ROUTES), "transfer, in points")
    title = "Accuracy before learning, in percent"
    return Section(
        "across", TITLE, about, (Table("across", title, head, tuple(body), 3),)
    )
