"""How well a frozen encoder does on the test samples of a stream, by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmcl_jax.evaluation import guessing, label_spaces
from mmcl_jax.streams.base import Stream
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run


def frozen_accuracy(run: Run) -> dict[str, Any]:
    """Returns the accuracy of the frozen encoder on the test samples of a stream.

    A sample is assigned to the class of the nearest text embedding; see
    `Feed.embed_class_names` for its ensemble of templates.

    Returns:
        `data_sets`: for each its `name`, `modality/data set`, number of `classes` and
        of `samples`, and the fields of `guessing.Judged` for the accuracy among its
        classes. `tasks`: for each that has test samples its `name`, `modality`, number
        of `classes` and of `samples`, and accuracies: `own` among its classes,
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
    rows, seen = [], []
    for i, task in [(i, t) for i, t in enumerate(stream.tasks) if t.test]:
        feed.embed_queries([i], "test")
        queries = feed.queries(task.test)
        labels = np.array([row.label for row in task.test])
        seen.append((queries, labels))
        own = np.full(len(labels), stream.modalities.index(task.modality))
        found = label_spaces.zero_shot_accuracy(
            stream, i, every, queries, labels, text, own
        )
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
    return {
        "data_sets": _by_data_set(stream, seen, text),
        "tasks": rows,
        "mean": {s: float(np.mean([row[s] for row in rows])) for s in spaces},
        "encoder": list(run.encoder.summary),
    }


def _by_data_set(
    stream: Stream,
    seen: Sequence[tuple[np.ndarray, np.ndarray]],
    text: Float[np.ndarray, "c d"],
) -> list[dict[str, Any]]:
    """Returns the accuracy on each data set, among its classes.

    Args:
        stream: Stream, for the data sets of its classes.
        seen: Embeddings and labels of the test samples, of each task.
        text: Embeddings of the classes.
    """
    queries, labels = map(np.concatenate, zip(*seen, strict=True))
    names = np.array([f"{slot.modality}/{slot.dataset}" for slot in stream.classes])
    rows = []
    for name in dict.fromkeys(names[labels].tolist()):
        slots = np.flatnonzero(names == name)
        own = names[labels] == name
        chosen = np.argmax(queries[own] @ text[slots].T, axis=-1)
        label = np.searchsorted(slots, labels[own])
        judged = guessing.judge(label, chosen, len(slots))
        counts = {"classes": len(slots), "samples": len(label)}
        rows.append({"name": name, **counts, **judged._asdict()})
    return rows
