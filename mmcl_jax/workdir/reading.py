"""The reader of stored runs: every program reads a workdir through this module.

Every file is checked by `schema` when it is read, so that one defect has one error,
whichever program finds it. Predictions and embeddings are read by `predictions`, arrays
of snapshots by `states`, temperatures by `temperatures`.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, DataError, WorkdirError, reading
from mmcl_jax.files import read_json
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.description import stored_stream
from mmcl_jax.workdir import identity, layout, schema, states
from mmcl_jax.workdir.identity import Owner
from mmcl_jax.workdir.results import Results, plain
from mmcl_jax.workdir.snapshots import damage

_MAX_LOG_BYTES = 2**20
_MAX_STEP_BYTES = 2**26


class LoggedStep(NamedTuple):
    """A line of `metrics.jsonl`.

    Attributes:
        stage: Index of the stage, from 0.
        step: Training step of the stage, from 1.
        values: Finite numbers by name.
    """

    stage: int
    step: int
    values: dict[str, float]


class StoredRun(NamedTuple):
    """What is known of a run without its data, its encoder and its code.

    Attributes:
        workdir: Workdir of the run.
        settings: Content of `config.json`; `config_of` makes a config of it.
        stream: Classes, tasks and stages; the tasks have no samples.
        tasks: Name, modality, class names and sample counts of each task.
        hash: Hash of the stream, samples included.
        encoder: Fingerprint of the encoder.
        towers: Tower of each modality that the encoder reads, in the order of a state's
            slots; the stream need not have them all.
        preprocessing: Version of the preprocessing of each modality.
        stages: Number of stages learnt and evaluated so far.
        owner: Id of the run, which its files carry.
        added: What was added to the run later: the index of its `first` task, the
            `data` and the `date`.
    """

    workdir: pathlib.Path
    settings: dict[str, Any]
    stream: Stream
    tasks: list[dict[str, Any]]
    hash: str
    encoder: str
    towers: dict[str, str]
    preprocessing: dict[str, str]
    stages: int
    owner: Owner
    added: tuple[dict[str, Any], ...] = ()


def read_run(workdir: str | os.PathLike[str]) -> StoredRun:
    """Reads config and stream of a run, which may be unfinished.

    Raises:
        WorkdirError: There is no run in the folder.
        DataError: Its `config.json` or `stream.json` is damaged; names file and field.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / layout.CONFIG
    if not path.exists():
        raise WorkdirError(
            f"{workdir}: no run in it, {layout.CONFIG} is not there; give the workdir "
            "of a run"
        )
    settings = read_json(
        path, "the config of a run; restore it, or start in another folder"
    )
    schema.check_config(settings, path)
    path = workdir / layout.STREAM
    expected = "the stream of a run"
    stored = read_json(path, expected)
    schema.check_stream(stored, path)
    with reading(str(path), expected):
        stream = stored_stream(stored)
        stream = dataclasses.replace(stream, retired=identity.retired(stored))
    stages = _evaluated(workdir, len(stream.stages))
    return StoredRun(
        workdir,
        settings,
        stream,
        stored["tasks"],
        stored["hash"],
        stored["encoder"],
        dict(stored["towers"]),
        stored["preprocessing"],
        stages,
        identity.owner(workdir, settings, stored),
        tuple(identity.added_tasks(stored)),
    )


def _evaluated(workdir: pathlib.Path, total: int) -> int:
    """Returns the number of stages whose predictions are there.

    Raises:
        DataError: The predictions of an earlier stage are missing.
    """
    paths = [layout.predictions(workdir, stage) for stage in range(total)]
    there = [path.is_file() for path in paths]
    sealed = [n + 1 for n in states.sealed(workdir / layout.SNAPSHOTS) if n < total]
    stages = total if layout.is_finished(workdir) else max(sealed, default=0)
    for path, found in zip(paths[:stages], there, strict=False):
        if not found:
            raise DataError(
                f"{path}: no such file, but the stage has been evaluated; restore it"
            )
    return there.index(False) if False in there else total


def config_of(run: StoredRun) -> configs.Config:
    """Returns the config of a run; this executes user-defined code that it names.

    Raises:
        ConfigError: This version cannot run it; names the file and the field.
    """
    try:
        return configs.resolve(run.settings, stored=True)
    except ConfigError as error:
        raise ConfigError(f"{run.workdir / layout.CONFIG}: {error}") from error


def read_results(run: StoredRun) -> dict[str, Any] | None:
    """Returns the content of `results.json`, or None if the run is unfinished.

    Raises:
        DataError: The file is damaged, or of another run; names file and field.
    """
    path = run.workdir / layout.RESULTS
    if not path.exists():
        return None
    stored = read_json(path, "the results of a run")
    schema.check_results(stored, run.stream, path)
    results = identity.unsealed(path, stored)
    run.owner.check(path, results.pop("run", None), len(run.stream.stages))
    return results


def results_so_far(run: StoredRun) -> dict[str, Any] | None:
    """Returns the results stored with the newest snapshot, or None without one.

    A snapshot holds no environment, and of the costs the seconds alone.

    Raises:
        DataError: The snapshot cannot be read.
    """
    folder = run.workdir / layout.SNAPSHOTS
    numbers = states.sealed(folder)
    if not numbers:
        return None
    path = layout.snapshot(run.workdir, numbers[-1])
    check_snapshot(run, numbers[-1])
    try:
        whole = states.read_results(folder, numbers[-1])
        stored = Results.from_json(whole, len(run.stream.tasks))
        if confusion := stored.identification.get("confusion"):
            # a modality may have been added since
            left = len(run.stream.modalities) - len(confusion)
            stored.identification["confusion"] = np.pad(confusion, (0, left)).tolist()
        report = plain(stored.report())
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its results cannot be read ({error!r})") from error
    found = {
        "method": run.settings["method"]["name"],
        "seeds": run.settings["seeds"],
        "environment": {},
        "modalities": list(run.stream.modalities),
        "tasks": run.tasks,
        "skipped_samples": 0,
        "unscored": [],
        **report,
        "cost": {"seconds": stored.seconds},
    }
    schema.check_results(found, run.stream, path, whole=False)
    return found


def check_snapshot(run: StoredRun, number: int) -> None:
    """Raises `DataError` unless a `sealed` snapshot is intact, of a run and its place.

    Args:
        run: The run.
        number: Number of the snapshot, counted from 0.
    """
    path = layout.snapshot(run.workdir, number)
    # Orbax, which reads it, may do anything with damaged files
    if reason := damage(path):
        raise DataError(f"{path}: {reason}")
    try:
        stored = states.read_results(run.workdir / layout.SNAPSHOTS, number)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: its results cannot be read ({error!r})") from error
    states.check_place(run.workdir, number, stored, run.owner)


def seen_tasks(stream: Stream, stages: int) -> list[int]:
    """Returns the tasks of the first `stages` stages, in order."""
    return [task for stage in stream.stages[:stages] for task in stage]


def begun(workdir: pathlib.Path) -> str:
    """Returns the date on which a run began, as its log has it; "" without one.

    >>> begun(pathlib.Path("no such folder"))
    ''
    """
    path = workdir / layout.LOG
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(len("2026-01-31")).decode("utf-8", "replace")
    return head if re.fullmatch(r"\d{4}-\d\d-\d\d", head) else ""


def read_warnings(workdir: pathlib.Path) -> tuple[str, ...]:
    """Returns the warnings of a log that readers of the results should know, once each.

    Args:
        workdir: Workdir of the run; without a log there are none.
    """
    path = workdir / layout.LOG
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        lines = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()
    # each line starts with date and time
    said = [line.split(" ", 2)[2] for line in lines if line.count(" ") > 2]
    kept = ("warning: ", "skipped: ")
    marks = (" is damaged: ", " was close to singular", " was not written: ")
    found = [s for s in said if s.startswith(kept) or any(mark in s for mark in marks)]
    return tuple(dict.fromkeys(found))


def read_steps(workdir: pathlib.Path, stages: int) -> tuple[LoggedStep, ...]:
    """Returns the training steps that a run has logged.

    The file is for people, and is not checked: what is no such line is left out.

    Args:
        workdir: Workdir of the run; without a log there are none.
        stages: Number of stages of its stream.
    """
    path = workdir / layout.METRICS
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        lines = file.read(_MAX_STEP_BYTES).decode("utf-8", "replace").splitlines()
    found = []
    for line in lines:
        try:
            row = json.loads(line)
            stage, step = int(row.pop("stage")), int(row.pop("step"))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            continue
        numbers = {k: float(v) for k, v in row.items() if type(v) in (int, float)}
        finite = {k: v for k, v in numbers.items() if math.isfinite(v)}
        if 0 <= stage < stages and step > 0:
            found.append(LoggedStep(stage, step, finite))
    return tuple(found)
