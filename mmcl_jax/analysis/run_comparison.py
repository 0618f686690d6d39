"""What differs between runs over one stream.

All results are dicts of lists and numbers for JSON; undefined values are null.
Stages are counted from 1, as `--stop_after` counts: after the first one the snapshot
`snapshots/000` was written.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mmcl_jax.analysis import paired_tests, statistics
from mmcl_jax.config import Config
from mmcl_jax.errors import ComparisonError
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.streams.base import Stream
from mmcl_jax.workdir.predictions import StoredPredictions, read_predictions
from mmcl_jax.workdir.reading import StoredRun, config_of, read_run, seen_tasks
from mmcl_jax.workdir.results import plain

Path = str | pathlib.Path


def compare_runs(
    a: Path, b: Path, stage: int | None = None, *, spaces: Sequence[str] = SPACES
) -> dict[str, Any]:
    """Compares the predictions of two runs on the same test samples.

    Args:
        a: Workdir of the run that the other is compared to.
        b: Workdir of the other run.
        stage: Stage of both; None takes the last stage of each.
        spaces: Label spaces.

    Returns:
        `first`, `second`: identities of the runs. `spaces`: by label space and route,
        for each task and for `all` of them: accuracies, their difference
        `second - first` with its interval over samples
        (`paired_tests.paired_difference`), McNemar's test, the share of samples
        `predicted_alike`, and Cohen's kappa. Classes of equal name count as one.

    Raises:
        ComparisonError: The runs are not over the same stream, have not seen the same
            tasks, or were not tested on the same samples.
        WorkdirError, DataError, ConfigError: A workdir cannot be read.
    """
    first, second = read_run(a), read_run(b)
    configs = [config_of(run) for run in (first, second)]
    _check_streams(first, second)
    sides = [
        (run, check_stage(run, run.stages if stage is None else stage))
        for run in (first, second)
    ]
    identities = [
        identity(run, at, config)
        for (run, at), config in zip(sides, configs, strict=True)
    ]
    seen = [sorted(seen_tasks(run.stream, at)) for run, at in sides]
    if seen[0] != seen[1]:
        raise ComparisonError(
            f"{a} has seen {len(seen[0])} tasks, {b} {len(seen[1])}: finish both, or "
            "choose a stage that both have finished"
        )
    one, other = (
        read_predictions(run.workdir, run.owner, run.stream, k - 1) for run, k in sides
    )
    rows = matched_samples(one, other, seen[0], str(a), str(b))
    found = {
        space: {
            route: _differences(
                first.stream, rows, one.chosen[s, r], other.chosen[s, r], one.label
            )
            for r, route in enumerate(ROUTES)
        }
        for s, space in enumerate(SPACES)
        if space in spaces
    }
    return plain(
        {
            "kind": "runs",
            "first": identities[0],
            "second": identities[1],
            "stream": first.hash,
            "intervals": "over test samples, paired; tasks and seeds as they are",
            "spaces": found,
        }
    )


def compare_pairs(
    pairs: Sequence[tuple[Path, Path]], stage: int | None = None
) -> dict[str, Any]:
    """Compares two methods over several orders or seeds, one pair of runs for each.

    Args:
        pairs: Workdirs as for `compare_runs`; the streams of two pairs may differ.
        stage: Stage of all runs; None takes the last.

    Returns:
        `pairs`: what `compare_runs` gives for each. `over`: the seeds in which pairs
        differ. `differences`: by label space and route, of the mean accuracy over
        tasks, with mean, deviation and interval over pairs
        (`statistics.paired_difference`); also the mean over pairs of both accuracies,
        of the share `predicted_alike` and of kappa. `tasks`: the same for each task
        that all pairs have by name and modality; its classes differ between orders.

    Raises:
        ComparisonError: As for `compare_runs` and `over_pairs`.
    """
    return over_pairs([compare_runs(a, b, stage) for a, b in pairs])


def over_pairs(compared: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarizes comparisons of pairs of runs.

    Args:
        compared: What `compare_runs` gives for each pair, in the same label spaces.

    Returns:
        What `compare_pairs` returns.

    Raises:
        ComparisonError: The pairs are of different methods, or two of them have the
            same seeds.
    """
    sides = [(pair["first"], pair["second"]) for pair in compared]
    methods = [tuple(side["method"] for side in pair) for pair in sides]
    for k, names in enumerate(methods):
        if names != methods[0]:
            raise ComparisonError(
                f"pair 1 is of {' and '.join(methods[0])}, pair {k + 1} of "
                f"{' and '.join(names)}: an interval over both is meaningless; give "
                "pairs of the same two methods"
            )
    seeds = [pair[0]["seeds"] for pair in sides]
    for k, own in enumerate(seeds):
        if own in seeds[:k]:
            raise ComparisonError(
                f"pair {k + 1} has the seeds of pair {seeds.index(own) + 1}: the same "
                "draw would count twice; leave one of them out"
            )
    differences: dict[str, Any] = {space: {} for space in compared[0]["spaces"]}
    tasks: dict[str, Any] = {space: {} for space in differences}
    for space in differences:
        for route in ROUTES:
            cells = [pair["spaces"][space][route] for pair in compared]
            differences[space][route] = _over_pairs([each["all"] for each in cells])
            tasks[space][route] = _tasks_over_pairs([each["tasks"] for each in cells])
    varied = [name for name in seeds[0] if len({own[name] for own in seeds}) > 1]
    return plain(
        {
            "kind": "pairs",
            "over": [f"seeds.{name}" for name in varied],
            "intervals": (
                f"over {len(compared)} pairs of runs; each run's test set as is"
            ),
            "differences": differences,
            "tasks": tasks,
            "pairs": compared,
        }
    )


def _over_pairs(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the difference over pairs, and means over their rows."""
    columns = {
        name: [float("nan") if row[name] is None else row[name] for row in rows]
        for name in ("first", "second", "predicted_alike", "kappa")
    }
    first, second = (
        {(k,): value for k, value in enumerate(columns[side])}
        for side in ("first", "second")
    )
    summary = statistics.paired_difference(second, first)
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    samples = sum(row["samples"] for row in rows)
    return {"samples": samples, **means} | (summary._asdict() if summary else {})


def _tasks_over_pairs(pairs: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns a row for each task that all pairs have, in the order of the first."""
    named = [{(row["name"], row["modality"]): row for row in rows} for rows in pairs]
    return [
        {"name": key[0], "modality": key[1]} | _over_pairs([own[key] for own in named])
        for key in named[0]
        if all(key in own for own in named)
    ]


def _check_streams(first: StoredRun, second: StoredRun) -> None:
    if first.workdir.resolve() == second.workdir.resolve():
        raise ComparisonError(f"{first.workdir}: twice the same run; give two runs")
    if first.hash == second.hash:
        return
    tasks = zip(first.tasks, second.tasks, strict=False)
    where = next(
        (
            f"task {k} differs"
            for k, (one, other) in enumerate(tasks, 1)
            if one != other
        ),
        "they differ in samples or in the number of tasks",
    )
    raise ComparisonError(
        f"different streams: {first.workdir} has learnt {first.hash[:12]}, "
        f"{second.workdir} {second.hash[:12]}; {where}. Compare runs over several "
        "orders or data in pairs"
    )


def matched_samples(
    one: StoredPredictions,
    other: StoredPredictions,
    tasks: Sequence[int],
    first_name: str,
    second_name: str,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of each task's test samples in both predictions, in one order.

    Raises:
        ComparisonError: The samples are not the same.
    """
    rows = {}
    for task in tasks:
        mine, theirs = (np.flatnonzero(part.task == task) for part in (one, other))
        if not (
            np.array_equal(one.id[mine], other.id[theirs])
            and np.array_equal(one.label[mine], other.label[theirs])
        ):
            raise ComparisonError(
                f"different test samples: task {task + 1} has {len(mine)} in "
                f"{first_name}, {len(theirs)} in {second_name}, and not the same"
            )
        rows[task] = mine, theirs
    return rows


def check_stage(run: StoredRun, stage: int) -> int:
    """Returns `stage`; raises `ComparisonError` if the run has not learnt it."""
    if not run.stages:
        raise ComparisonError(
            f"{run.workdir}: no stage has been evaluated yet; wait for the first"
        )
    if not 1 <= stage <= run.stages:
        raise ComparisonError(
            f"--snapshots: no {stage} in {run.workdir}; there are 1 to {run.stages}"
        )
    return stage


def identity(run: StoredRun, stage: int, config: Config) -> dict[str, Any]:
    """Returns what identifies a run and its state."""
    return {
        "workdir": str(run.workdir),
        "method": config.method.name,
        "seeds": dataclasses.asdict(config.seeds),
        "encoder": run.encoder,
        "stage": stage,
    }


def _differences(
    stream: Stream,
    rows: dict[int, tuple[np.ndarray, np.ndarray]],
    one: np.ndarray,
    other: np.ndarray,
    label: np.ndarray,
) -> dict[str, Any]:
    """Returns one row per task, and one for all."""
    canonical = np.array([slot.canonical for slot in stream.classes])
    chosen = [
        (canonical[one[mine]], canonical[other[theirs]])
        for mine, theirs in rows.values()
    ]
    labels = [canonical[label[mine]] for mine, _ in rows.values()]
    tasks = []
    for task, pair, truth in zip(rows, chosen, labels, strict=True):
        known = stream.tasks[task]
        row = {"name": known.name, "modality": known.modality}
        tasks.append(row | _row([pair], [truth]))
    return {"tasks": tasks, "all": _row(chosen, labels)}


def _row(
    chosen: list[tuple[np.ndarray, np.ndarray]], labels: list[np.ndarray]
) -> dict[str, Any]:
    """Compares two predictors: canonical classes, one array per task."""
    hits = [
        [pair[side] == truth for pair, truth in zip(chosen, labels, strict=True)]
        for side in (0, 1)
    ]
    first, second = (np.concatenate([p[side] for p in chosen]) for side in (0, 1))
    test = paired_tests.mcnemar(*(np.concatenate(part) for part in hits))
    return {
        "samples": len(first),
        **paired_tests.paired_difference(*hits)._asdict(),
        "mcnemar": test._asdict(),
        "predicted_alike": paired_tests.share_equal(first, second),
        "kappa": paired_tests.cohen_kappa(first, second),
    }


def task_flips(
    before: StoredPredictions,
    after: StoredPredictions,
    rows: dict[int, tuple[np.ndarray, np.ndarray]],
    canonical: Int[np.ndarray, " C"],
) -> dict[str, dict[str, dict[int, paired_tests.Flips]]]:
    """Returns which samples were forgotten and recovered, by label space and route.

    Args:
        before: The earlier predictions.
        after: The later predictions.
        rows: Rows of each task's samples in both, see `matched_samples`.
        canonical: Class of each slot; equal names are one class.

    Returns:
        How the samples of each task have changed, in the order of `rows`.
    """

    def right(part: StoredPredictions, s: int, r: int, own: np.ndarray) -> np.ndarray:
        chosen = part.chosen[s, r, own]
        # -1, no class chosen, would index the last slot
        return (canonical[chosen] == canonical[part.label[own]]) & (chosen >= 0)

    return {
        space: {
            route: {
                task: paired_tests.flips(
                    right(before, s, r, mine), right(after, s, r, theirs)
                )
                for task, (mine, theirs) in rows.items()
            }
            for r, route in enumerate(ROUTES)
        }
        for s, space in enumerate(SPACES)
    }


def counts(flips: paired_tests.Flips) -> dict[str, int]:
    """Returns how many samples there are, and of each kind."""
    return {"samples": len(flips.right)} | {
        kind: int(mask.sum()) for kind, mask in flips._asdict().items()
    }
