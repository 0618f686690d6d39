"""Per-sample predictions and frozen features of a run, as `.npz` of plain arrays."""

import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES, TaskPredictions
from mmcl_jax.streams.base import Record

# of all samples, and of a class
MAX_EMBEDDED = 2000
_EMBEDDED = 10


def save_predictions(path: pathlib.Path, by_task: dict[int, TaskPredictions]) -> None:
    """Writes the predictions of several test sets as one `.npz` of plain arrays."""
    columns: dict[str, list[np.ndarray]] = {"task": []}
    for task, predictions in by_task.items():
        columns["task"].append(np.full(len(predictions.id), task, np.int32))
        for name in ("id", "label", "modality"):
            columns.setdefault(name, []).append(getattr(predictions, name))
        for s, space in enumerate(SPACES):
            for r, route in enumerate(ROUTES):
                for name in ("chosen", "margin"):
                    values = getattr(predictions, name)[s, r]
                    columns.setdefault(f"{name}/{space}/{route}", []).append(values)
    _save_arrays(path, {k: np.concatenate(v) for k, v in columns.items()})


def some_of_each_class(records: Iterable[Record]) -> list[Record]:
    """Returns up to ten samples a class, of which there are at most `MAX_EMBEDDED`."""
    records = list(records)
    of_class: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        of_class.setdefault(record.label, []).append(row)
    # the first of every class, then the second ones
    turns = itertools.zip_longest(*(rows[:_EMBEDDED] for rows in of_class.values()))
    flat = [row for turn in turns for row in turn if row is not None]
    return [records[row] for row in sorted(flat[:MAX_EMBEDDED])]


def save_embeddings(
    path: pathlib.Path,
    text: np.ndarray,
    records: Sequence[Record],
    queries: np.ndarray,
) -> None:
    """Writes what the frozen encoder makes of class names and of some test samples.

    Args:
        path: of the `.npz` of plain arrays: `text [C d]`, and `id [n]`, `label [n]` and
            `query [n d]` of the samples.
        text: unit text embeddings of the class slots `[C d]`.
        records: the samples, see `some_of_each_class`.
        queries: their unit features `[n d]`.
    """
    arrays = {
        "text": text.astype(np.float16),
        "id": np.array([record.id for record in records], np.int32),
        "label": np.array([record.label for record in records], np.int32),
        "query": queries.astype(np.float16),
    }
    _save_arrays(path, arrays)


def _save_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Writes an `.npz` at once, so that a reader never finds half of it."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(path)
