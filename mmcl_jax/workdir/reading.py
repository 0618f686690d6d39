"""What the workdir of a run holds, read back and checked."""

import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from mmcl_jax import config as configs
from mmcl_jax.errors import DataError, reading
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.files import read_json
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.description import stored_stream

# of one file of predictions: some three million samples
MAX_PREDICTION_BYTES = 2**28


class StoredRun(NamedTuple):
    """What is known of a run without its data and its encoder.

    Attributes:
        workdir: of the run.
        config: it was made with.
        stream: its classes, tasks and stages; the tasks have neither samples nor slots.
        class_names: of each task.
        hash: of the stream, samples included.
        encoder: fingerprint of the encoder.
        preprocessing: version of that of each modality.
        stages: learnt and scored so far, from the first.
    """

    workdir: pathlib.Path
    config: configs.Config
    stream: Stream
    class_names: tuple[tuple[str, ...], ...]
    hash: str
    encoder: str
    preprocessing: dict[str, str]
    stages: int


class StoredPredictions(NamedTuple):
    """What was predicted after a stage, a row a sample.

    Attributes:
        task: index of the task that the sample tests.
        id: of the sample.
        label: class slot.
        chosen: predicted class slots `[spaces, routes, n]`; -1 where not defined.
    """

    task: np.ndarray
    id: np.ndarray
    label: np.ndarray
    chosen: np.ndarray


def read_run(workdir: str | pathlib.Path) -> StoredRun:
    """Reads config and stream of a run.

    Raises:
        ConfigError: its config cannot be read.
        DataError: there is no run in the folder, or its `stream.json` is damaged.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file():
        raise DataError(f"{workdir}: no config.json; expected the workdir of a run")
    config = configs.load(workdir / "config.json")
    path = workdir / "stream.json"
    with reading(str(path), "the stream of a run"):
        stored = read_json(path, "the stream of a run")
        stream = stored_stream(stored)
        names = tuple(tuple(task["classes"]) for task in stored["tasks"])
        known = stored["hash"], stored["encoder"]
        if not all(isinstance(value, str) for value in known):
            raise ValueError("a hash that is no text")
        preprocessing = dict(stored["preprocessing"])
    stages = 0
    while (workdir / "predictions" / f"{stages:03d}.npz").is_file():
        stages += 1
    stages = min(stages, len(stream.stages))
    return StoredRun(workdir, config, stream, names, *known, preprocessing, stages)


def read_predictions(run: StoredRun, stage: int) -> StoredPredictions:
    """Reads the predictions after a stage, as `predictions_of` does."""
    tasks, slots = len(run.stream.tasks), len(run.stream.classes)
    return predictions_of(run.workdir, stage, tasks, slots)


def predictions_of(
    workdir: pathlib.Path, stage: int, tasks: int, slots: int
) -> StoredPredictions:
    """Reads the predictions after a stage.

    Args:
        workdir: of the run.
        stage: counted from 0.
        tasks: of the stream.
        slots: class slots of the stream.

    Raises:
        DataError: absent, damaged, larger than 256 MiB, or of another stream.
    """
    path = workdir / "predictions" / f"{stage:03d}.npz"
    with reading(str(path), "the predictions of a run"):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_PREDICTION_BYTES:
            raise DataError(
                f"{path}: {size} bytes, more than the limit of {MAX_PREDICTION_BYTES}"
            )
        with np.load(path, allow_pickle=False) as columns:
            task, ids, label = (columns[name] for name in ("task", "id", "label"))
            chosen = np.array(
                [[columns[f"chosen/{s}/{r}"] for r in ROUTES] for s in SPACES]
            )
        for column, low, high in (
            (task, 0, tasks),
            (ids, 0, np.inf),
            (label, 0, slots),
            (chosen, -1, slots),
        ):
            shape = (len(SPACES), len(ROUTES)) if column is chosen else ()
            if column.dtype.kind != "i" or column.shape != (*shape, len(task)):
                raise ValueError("columns that do not fit together")
            if column.size and not low <= column.min() <= column.max() < high:
                raise ValueError("a class, task or sample that there is not")
        return StoredPredictions(task, ids, label, chosen)


def seen_tasks(stream: Stream, stages: int) -> list[int]:
    """Returns the tasks of the first `stages` stages, in order."""
    return [task for stage in stream.stages[:stages] for task in stage]
