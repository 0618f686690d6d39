"""Per-sample predictions and frozen features of a run, as `.npz` of plain arrays."""

import itertools
import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmcl_jax.errors import DataError, reading
from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES, TaskPredictions
from mmcl_jax.evaluation.novelty import Scores
from mmcl_jax.files import keep
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.identity import Owner

# largest file that is read, for some three million samples
MAX_BYTES = 2**28
# largest number of embedded samples, of all classes and of each
MAX_EMBEDDED = 2000
_EMBEDDED = 10
# in front of the names of columns on control sets
_CONTROLS = "reserved"


class StoredPredictions(NamedTuple):
    """The predictions after a stage, one entry per sample.

    Attributes:
        task: Index of the task whose test set the sample is from.
        id: Id of the sample.
        label: Class slot.
        chosen: Predicted class slots `[spaces, routes, n]`; -1 where not defined.
    """

    task: Int[np.ndarray, " n"]
    id: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    chosen: Int[np.ndarray, "s r n"]


class StoredNovelty(NamedTuple):
    """The novelty of samples after a stage, and what was made of control sets.

    Attributes:
        task: Index of the task whose test set each sample is from.
        label: Class slot of each sample.
        scores: Novelty of each sample.
        controls: Predictions for control sets; None: there are none.
    """

    task: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    scores: Scores
    controls: ControlPredictions | None


class StoredEmbeddings(NamedTuple):
    """Embeddings of class names and of some test samples, by the frozen encoder.

    Attributes:
        text: Text embeddings of the class slots.
        id: Id of each sample.
        label: Class slot of each sample.
        query: Features of each sample.
    """

    text: Float[np.ndarray, "C d"]
    id: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    query: Float[np.ndarray, "n d"]


def read_predictions(
    workdir: pathlib.Path, owner: Owner, stream: Stream, stage: int
) -> StoredPredictions:
    """Reads the predictions after a stage.

    Args:
        workdir: Of the run.
        owner: The run.
        stream: That the run learns, with or without its samples.
        stage: Counted from 0.

    Raises:
        DataError: The file is absent, damaged, larger than 256 MiB, or of another run,
            stage or stream.
    """
    path = layout.predictions(workdir, stage)
    with _columns(path, "the predictions of a run") as columns:
        _check_owner(path, owner, columns, stage)
        task, ids, label = (columns[name] for name in ("task", "id", "label"))
        chosen = np.array(
            [[columns[f"chosen/{s}/{r}"] for r in ROUTES] for s in SPACES]
        )
        slots = len(stream.classes)
        _check_column("task", task, len(task), 0, len(stream.tasks))
        _check_column("id", ids, len(task), 0, np.inf)
        _check_column("label", label, len(task), 0, slots)
        if chosen.ndim != 3:
            raise ValueError("chosen: columns of different shapes")
        for column in chosen.reshape(-1, chosen.shape[-1]):
            _check_column("chosen", column, len(task), -1, slots)
        return StoredPredictions(task, ids, label, chosen)


def read_novelty(
    workdir: pathlib.Path, owner: Owner, stream: Stream, stage: int
) -> StoredNovelty | None:
    """Reads the novelty of samples after a stage, from the file of its predictions.

    Arguments and errors are those of `read_predictions`. Returns None for a file of a
    version that did not measure it.
    """
    path = layout.predictions(workdir, stage)
    with _columns(path, "the predictions of a run") as columns:
        _check_owner(path, owner, columns, stage)
        if "novelty" not in columns:
            return None
        task, label = columns["task"], columns["label"]
        _check_column("task", task, len(task), 0, len(stream.tasks))
        _check_column("label", label, len(task), 0, len(stream.classes))
        scores = Scores(columns["novelty"], columns["percentile"])
        _check_scores(scores, len(task))
        return StoredNovelty(task, label, scores, _read_controls(columns, stream))


def _read_controls(columns: Any, stream: Stream) -> ControlPredictions | None:
    if stream.reserved is None:
        return None
    names = ControlPredictions._fields
    found = ControlPredictions(*(columns[f"{_CONTROLS}/{name}"] for name in names))
    rows, slots = len(found.task), len(stream.reserved.classes)
    _check_column("task", found.task, rows, 0, len(stream.control_sets))
    _check_column("id", found.id, rows, 0, np.inf)
    for name in ("label", "chosen"):
        _check_column(name, getattr(found, name), rows, 0, slots)
    _check_scores(Scores(found.novelty, found.percentile), rows)
    return found


def _check_scores(scores: Scores, rows: int) -> None:
    for column in scores:
        if column.dtype.kind != "f" or column.shape != (rows,):
            raise ValueError("novelty: columns of different shapes or types")


def read_embeddings(
    workdir: pathlib.Path, owner: Owner, stream: Stream
) -> StoredEmbeddings | None:
    """Reads `embeddings.npz` of a run; returns None if there is none.

    Raises:
        DataError: The file is damaged, larger than 256 MiB, or of another run or
            stream.
    """
    path = workdir / layout.EMBEDDINGS
    if not path.is_file():
        return None
    with _columns(path, "the embeddings of a run") as columns:
        _check_owner(path, owner, columns)
        found = StoredEmbeddings(*(columns[n] for n in StoredEmbeddings._fields))
        slots, samples = len(stream.classes), len(found.label)
        _check_column("id", found.id, samples, 0, np.inf)
        _check_column("label", found.label, samples, 0, slots)
        width = found.text.shape[1:]
        if len(width) != 1:
            raise ValueError("text: no vectors")
        for name, rows in (("text", slots), ("query", samples)):
            values = getattr(found, name)
            if values.dtype.kind != "f" or values.shape != (rows, *width):
                raise ValueError(f"{name}: arrays of another stream")
        return found


@contextmanager
def _columns(path: pathlib.Path, expected: str) -> Iterator[Any]:
    """Opens an `.npz` of plain arrays; the file may have been edited by anyone."""
    with reading(str(path), expected):
        # a small archive may unpack to any size: bound it before anything is read
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes, more than the limit of {MAX_BYTES}")
        try:
            with np.load(path, allow_pickle=False) as columns:
                yield columns
        except MemoryError as error:
            raise DataError(f"{path}: an array in it has an impossible size") from error


def _check_owner(
    path: pathlib.Path, owner: Owner, columns: Any, stage: int | None = None
) -> None:
    if "run" not in columns or "stage" not in columns:
        raise DataError(
            f"{path}: it does not say of which run it is; read it with the version "
            "that wrote it"
        )
    written = int(columns["stage"])
    owner.check(path, str(columns["run"]), written)
    if stage is not None and written != stage:
        raise DataError(
            f"{path}: written after stage {written + 1}, not after stage {stage + 1}; "
            "restore the files"
        )


def _check_column(
    name: str, column: np.ndarray, rows: int, low: int, high: float
) -> None:
    """Raises `ValueError` unless a column has integers in `low <= x < high`."""
    if column.dtype.kind != "i" or column.shape != (rows,):
        raise ValueError(f"{name}: columns of different shapes or types")
    if column.size and not low <= column.min() <= column.max() < high:
        raise ValueError(f"{name}: a class, task or sample that does not exist")


def save_predictions(
    path: pathlib.Path,
    run: str,
    stage: int,
    by_task: dict[int, TaskPredictions],
    controls: ControlPredictions | None = None,
) -> None:
    """Writes the predictions of several test sets as one `.npz` of plain arrays.

    Args:
        path: File to write.
        run: Id of the run.
        stage: Stage after which they were made, counted from 0.
        by_task: Predictions of each test set.
        controls: Predictions of control sets; None: there are none.
    """
    columns: dict[str, list[np.ndarray]] = {"task": []}
    for task, predictions in by_task.items():
        columns["task"].append(np.full(len(predictions.id), task, np.int32))
        for name in ("id", "label", "modality", "novelty", "percentile"):
            columns.setdefault(name, []).append(getattr(predictions, name))
        for s, space in enumerate(SPACES):
            for r, route in enumerate(ROUTES):
                for name in ("chosen", "margin"):
                    values = getattr(predictions, name)[s, r]
                    columns.setdefault(f"{name}/{space}/{route}", []).append(values)
    arrays = {k: np.concatenate(v) for k, v in columns.items()}
    for name, column in (controls._asdict() if controls else {}).items():
        arrays[f"{_CONTROLS}/{name}"] = column
    _save_arrays(path, _owned(run, stage) | arrays)


def some_of_each_class(records: Iterable[Record]) -> list[Record]:
    """Returns up to ten samples per class, at most `MAX_EMBEDDED` together."""
    records = list(records)
    of_class: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        of_class.setdefault(record.label, []).append(row)
    # the first of every class, then the second ones: no class is cut off before others
    turns = itertools.zip_longest(*(rows[:_EMBEDDED] for rows in of_class.values()))
    flat = [row for turn in turns for row in turn if row is not None]
    return [records[row] for row in sorted(flat[:MAX_EMBEDDED])]


def _owned(run: str, stage: int) -> dict[str, np.ndarray]:
    return {"run": np.array(run), "stage": np.array(stage, np.int32)}


def save_embeddings(
    path: pathlib.Path,
    run: str,
    stage: int,
    text: np.ndarray,
    records: Sequence[Record],
    queries: np.ndarray,
) -> None:
    """Writes the frozen encoder's embeddings of class names and of some test samples.

    Args:
        path: File of plain arrays (`.npz`): `text [C d]`, and `id [n]`, `label [n]` and
            `query [n d]` of the samples.
        run: Id of the run.
        stage: Stage after which they are written, counted from 0.
        text: Unit text embeddings of the class slots `[C d]`.
        records: Samples, see `some_of_each_class`.
        queries: Unit features of the samples `[n d]`.
    """
    arrays = {
        "text": text.astype(np.float16),
        "id": np.array([record.id for record in records], np.int32),
        "label": np.array([record.label for record in records], np.int32),
        "query": queries.astype(np.float16),
    }
    _save_arrays(path, _owned(run, stage) | arrays)


def _save_arrays(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Writes an `.npz` atomically, so that a reader never finds half of it."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
        keep(file)
    temporary.replace(path)
