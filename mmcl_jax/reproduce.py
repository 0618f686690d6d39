"""Derives the results of a run again, from its predictions.

Says whether `results.json` is what the stored predictions give. Neither the encoder nor
the data are needed.

Examples:
  mmcl-reproduce --check=runs/demo
  mmcl-reproduce --check=/mnt/archive/run
"""

import sys
from typing import Any

import numpy as np

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError, WorkdirError
from mmcl_jax.evaluation import (
    control_sets,
    cross_modal,
    label_spaces,
    novelty,
    returning,
)
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.plain_text import printable
from mmcl_jax.workdir.predictions import read_novelty, read_predictions
from mmcl_jax.workdir.reading import StoredRun, read_results, read_run, seen_tasks
from mmcl_jax.workdir.results import of_stream, plain

_NUMBER = (float, int, type(None))
_CHECK = command_line.define_path("check", None, "Folder of a finished run.")


def main(argv: list[str]) -> None:
    """Prints whether they are equal.

    The exit code is 1 if they differ, and 2 if the run cannot be read.
    """
    try:
        command_line.refuse_arguments(argv)
        if not _CHECK.value:
            raise ConfigError("--check: missing; give the folder of a finished run")
        different = differences(_CHECK.value)
    except (ValueError, OSError) as error:  # includes errors of data and workdir
        sys.exit(command_line.complain(error))
    for line in different:
        print(printable(line))
    print("different" if different else "equal")
    sys.exit(1 if different else 0)


def differences(workdir: str) -> list[str]:
    """Returns what in the results of a run is not what its predictions give.

    Accuracies after each stage, on each test set, in each label space and route; the
    metrics over the stream, and the transfer across modalities, that follow from them;
    how the unknown is told apart; and accuracies on control sets. Those of the frozen
    encoder are taken as they are stored.

    Raises:
        WorkdirError, DataError: The run cannot be read, or is not finished.
    """
    run = read_run(workdir)
    stored = read_results(run)
    if stored is None:
        raise WorkdirError(f"{workdir}: not finished; there are no results to check")
    matrix = accuracies(run)
    zero_shot = np.array([stored["zero_shot"][space] for space in SPACES], np.float64)
    known = course(run)
    found = []
    for s, space in enumerate(SPACES):
        for r, route in enumerate(ROUTES):
            there = np.array(stored["accuracy"][space][route], np.float64)
            for i, j in np.argwhere(~_same(there, matrix[s, r])).tolist():
                found.append(
                    f"accuracy.{space}.{route}, after {run.tasks[i]['name']} on "
                    f"{run.tasks[j]['name']}: {there[i, j]:g} in the results, "
                    f"{matrix[s, r, i, j]:g} by the predictions"
                )
            wanted = of_stream(matrix[s, r], zero_shot[s])
            if known.returns:
                wanted |= returning.of_course(matrix[s, r], known)
            wanted = plain(wanted)
            for name, value in stored["metrics"][space][route].items():
                if not _same(_number(value), _number(wanted.get(name))).all():
                    found.append(
                        f"metrics.{space}.{route}.{name}: {value} in the results, "
                        f"{wanted.get(name)} by the predictions"
                    )
    space = SPACES.index("task")
    across = cross_modal.transfers(run.stream, matrix[space], zero_shot[space])
    if not _alike(stored.get("across_modalities", across), plain(across)):
        found.append("across_modalities: not what the predictions give")
    return found + _unknown(run, stored)


def _unknown(run: StoredRun, stored: dict[str, Any]) -> list[str]:
    """Returns what differs in the results on novelty and on control sets."""
    told_apart = {}
    accuracy = [[] for _ in run.stream.control_sets]
    slots = run.stream.reserved.classes if run.stream.reserved else ()
    canonical = np.array([slot.canonical for slot in slots])
    for stage in range(len(run.stream.stages)):
        found = read_novelty(run.workdir, run.owner, run.stream, stage)
        if found is None:
            continue
        seen = seen_tasks(run.stream, stage + 1)
        told_apart[str(stage)] = novelty.of_stage(run.stream, seen, *found)
        for i, own in enumerate(accuracy):
            assert found.controls is not None
            rows = found.controls.task == i
            chosen, label = found.controls.chosen[rows], found.controls.label[rows]
            own.append(control_sets.accuracy(chosen, label, canonical))
    reserved = [told["accuracy"] for told in stored.get("reserved", [])]
    pairs = {
        "novelty": (stored.get("novelty", {}), told_apart),
        "reserved": (reserved, accuracy),
    }
    return [
        f"{name}: not what the predictions give"
        for name, (there, here) in pairs.items()
        if not _alike(there, plain(here))
    ]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, str):
        return one == other
    if isinstance(one, _NUMBER) and isinstance(other, _NUMBER):
        return bool(_same(_number(one), _number(other)).all())
    return False


def accuracies(run: StoredRun) -> np.ndarray:
    """Returns accuracies `[spaces, routes, T, T]` by the stored predictions."""
    tasks = len(run.stream.tasks)
    matrix = np.full((len(SPACES), len(ROUTES), tasks, tasks), np.nan)
    for stage, learnt in enumerate(run.stream.stages):
        stored = read_predictions(run.workdir, run.owner, run.stream, stage)
        for task in np.unique(stored.task).tolist():
            rows = stored.task == task
            found = label_spaces.shares(
                run.stream, stored.chosen[..., rows], stored.label[rows]
            )
            matrix[:, :, learnt[-1], task] = found
    return matrix


def course(run: StoredRun) -> returning.Course:
    """Returns what a finished run has trained and tested, by its predictions."""
    tested: list[set[int]] = [set() for _ in run.tasks]
    for stage in range(len(run.stream.stages)):
        stored = read_predictions(run.workdir, run.owner, run.stream, stage)
        for task in np.unique(stored.task).tolist():
            tested[task].update(stored.label[stored.task == task].tolist())
    train, test = ([task[part] for task in run.tasks] for part in ("train", "test"))
    return returning.course_of(run.stream, tested, train, test)


def _number(value: float | None) -> np.ndarray:
    return np.array(np.nan if value is None else value, np.float64)


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    # a mean of the same numbers in another order may be rounded otherwise
    return np.isclose(one, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def cli() -> None:
    """Runs the program."""
    command_line.run(main)


if __name__ == "__main__":
    cli()
