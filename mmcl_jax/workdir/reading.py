"""The one reader of runs: whatever a program wants of a workdir, it asks for it here.

Every file is checked by `schema` when it is read, so that one defect has one error,
whichever program meets it. Predictions and embeddings are read by `predictions`, arrays
of snapshots by `states`, temperatures by `temperatures`.
"""

import os
import pathlib
from typing import Any, NamedTuple

from mmcl_jax import config as configs
from mmcl_jax.errors import ConfigError, DataError, WorkdirError, reading
from mmcl_jax.files import read_json
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.description import stored_stream
from mmcl_jax.workdir import layout, schema, states
from mmcl_jax.workdir.results import Results, plain

_MAX_LOG_BYTES = 2**20


class StoredRun(NamedTuple):
    """What is known of a run without its data, its encoder and its code.

    Attributes:
        workdir: of the run.
        settings: what `config.json` holds; `config_of` makes a config of it.
        stream: its classes, tasks and stages; the tasks have no samples.
        tasks: name, modality, class names and sample counts of each task.
        hash: of the stream, samples included.
        encoder: fingerprint of the encoder.
        towers: that read each modality, in the order of `stream.modalities`.
        preprocessing: version of that of each modality.
        stages: learnt and scored so far, from the first.
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


def read_run(workdir: str | os.PathLike[str]) -> StoredRun:
    """Reads config and stream of a run, which may still be on its way.

    Raises:
        WorkdirError: there is no run in the folder.
        DataError: its `config.json` or `stream.json` is damaged; names file and field.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / layout.CONFIG
    if not path.exists():
        raise WorkdirError(
            f"{workdir}: no run in it, {layout.CONFIG} is not there; give the workdir "
            "of a run"
        )
    settings = read_json(path, "the config of a run")
    schema.check_config(settings, path)
    path = workdir / layout.STREAM
    expected = "the stream of a run"
    stored = read_json(path, expected)
    schema.check_stream(stored, path)
    with reading(str(path), expected):
        stream = stored_stream(stored)
    stages = 0
    while layout.predictions(workdir, stages).is_file():
        stages += 1
    return StoredRun(
        workdir,
        settings,
        stream,
        stored["tasks"],
        stored["hash"],
        stored["encoder"],
        {name: stored["towers"][name] for name in stream.modalities},
        stored["preprocessing"],
        min(stages, len(stream.stages)),
    )


def config_of(run: StoredRun) -> configs.Config:
    """Returns the config of a run; user-defined code that it names has run.

    Raises:
        ConfigError: this version cannot run it; names the file and the field.
    """
    try:
        return configs.resolve(run.settings, stored=True)
    except ConfigError as error:
        raise ConfigError(f"{run.workdir / layout.CONFIG}: {error}") from error


def read_results(run: StoredRun) -> dict[str, Any] | None:
    """Returns what `results.json` of a run holds; None: it has not come to its end.

    Raises:
        DataError: the file is damaged, or of another stream; names file and field.
    """
    path = run.workdir / layout.RESULTS
    if not path.exists():
        return None
    results = read_json(path, "the results of a run")
    schema.check_results(results, run.stream, path)
    return results


def results_so_far(run: StoredRun) -> dict[str, Any] | None:
    """Returns what the newest snapshot holds of the results; None: there is none.

    Costs but the seconds are not in a snapshot, and neither is the environment.

    Raises:
        DataError: it cannot be read.
    """
    folder = run.workdir / layout.SNAPSHOTS
    numbers = states.sealed(folder)
    if not numbers:
        return None
    path = layout.snapshot(run.workdir, numbers[-1])
    try:
        stored = Results.from_json(states.read_results(folder, numbers[-1]))
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
        **report,
        "cost": {"seconds": stored.seconds},
    }
    schema.check_results(found, run.stream, path, whole=False)
    return found


def seen_tasks(stream: Stream, stages: int) -> list[int]:
    """Returns the tasks of the first `stages` stages, in order."""
    return [task for stage in stream.stages[:stages] for task in stage]


def read_warnings(workdir: pathlib.Path) -> tuple[str, ...]:
    """Returns the lines of a log that a reader of the results should know, each once.

    Args:
        workdir: of the run; a log that is not there has none.
    """
    path = workdir / layout.LOG
    if not path.is_file():
        return ()
    with path.open("rb") as file:
        lines = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()
    # date and time come first
    said = [line.split(" ", 2)[2] for line in lines if line.count(" ") > 2]
    kept = ("warning: ", "skipped: ")
    marks = (" is damaged: ", " was close to singular", " was not written: ")
    found = [s for s in said if s.startswith(kept) or any(mark in s for mark in marks)]
    return tuple(dict.fromkeys(found))
