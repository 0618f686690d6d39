"""How well a frozen encoder does on the test samples of a stream, by itself."""

from typing import Any

import numpy as np

from mmcl_jax.evaluation import label_spaces
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run


def frozen_accuracy(run: Run) -> dict[str, Any]:
    """Returns the accuracy of the frozen encoder on the test samples of each task.

    A sample is assigned to the class of the nearest text embedding; see
    `Feed.embed_class_names` for its ensemble of templates.

    Returns:
        `tasks`: for each that has test samples its `name`, `modality`, number of
        `classes` and of `samples`, and accuracies: `own` among its classes,
        `modality_classes` among those of its modality in the whole stream, `all` among
        all. `mean`: of the three over tasks. `encoder`: lines of its summary.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4 (ensembles of templates).
    """
    stream = run.stream
    feed = Feed(run, run.encoder.frozen)
    text = feed.embed_class_names()
    every = range(len(stream.tasks))
    # the label spaces of `evaluation` once all tasks have been seen
    spaces = {"own": "task", "modality_classes": "modality", "all": "universe"}
    rows = []
    for i, task in [(i, t) for i, t in enumerate(stream.tasks) if t.test]:
        feed.embed_queries([i], "test")
        queries = feed.queries(task.test)
        labels = np.array([row.label for row in task.test])
        found = label_spaces.zero_shot_accuracy(stream, i, every, queries, labels, text)
        by_space: dict[str, float] = dict(
            zip(label_spaces.SPACES, found.tolist(), strict=True)
        )
        rows.append(
            {
                "name": task.name,
                "modality": task.modality,
                "classes": len(task.classes),
                "samples": len(labels),
                **{name: by_space[space] for name, space in spaces.items()},
            }
        )
    mean = {space: float(np.mean([row[space] for row in rows])) for space in spaces}
    return {"tasks": rows, "mean": mean, "encoder": list(run.encoder.summary)}
