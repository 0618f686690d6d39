"""What has changed between two snapshots of one run."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from mmcl_jax.analysis import array_axes, embeddings, paired_tests
from mmcl_jax.analysis.measures import EMBEDDED, ROUTE, SPACE
from mmcl_jax.analysis.run_comparison import (
    Path,
    check_stage,
    counts,
    identity,
    matched_samples,
    task_flips,
)
from mmcl_jax.config import Config
from mmcl_jax.errors import ComparisonError
from mmcl_jax.evaluation.label_spaces import ROUTES, SPACES
from mmcl_jax.ops.losses import MASKED
from mmcl_jax.streams.base import Stream, stream_hash
from mmcl_jax.training import build, capacity, remote_names
from mmcl_jax.workdir import layout
from mmcl_jax.workdir.predictions import read_predictions
from mmcl_jax.workdir.reading import (
    StoredRun,
    check_snapshot,
    config_of,
    read_run,
    seen_tasks,
)
from mmcl_jax.workdir.results import plain
from mmcl_jax.workdir.states import read

Arrays = dict[str, np.ndarray]


def compare_snapshots(
    workdir: Path,
    i: int,
    j: int,
    *,
    with_embeddings: bool = True,
    samples: int = EMBEDDED,
    encoder: str | None = None,
) -> dict[str, Any]:
    """Compares two snapshots of one run, the earlier one first.

    Stages are counted from 1, as `--stop_after` counts: 1 is the snapshot `000`.

    Args:
        workdir: Workdir of the run.
        i: Stage of the first snapshot.
        j: Stage of the second snapshot.
        with_embeddings: Whether test samples are embedded under both, which needs the
            data.
        samples: Largest number of samples per modality that are embedded.
        encoder: Name of the encoder, if it has moved or is in a remote repository.

    Returns:
        A dict for JSON; undefined values are null. `params`, `memory`: for each array
        `paired_tests.displacement`, of all of it and by modality, layer and stage where
        it has such axes. `embeddings`: by modality, `paired_tests.linear_cka` between
        the embeddings of the same samples of the tasks seen by `i`, and their mean
        cosine; None without embeddings. `counts`: by label space and route, for each of
        these tasks the numbers of samples forgotten, recovered, right both times and
        wrong both times. `forgotten`, `recovered`: these samples among the classes
        seen of the predicted modality, with both predictions. `notes`: what is missing,
        and why.

    Raises:
        ComparisonError: A snapshot does not exist, or the later one is first.
        ValueError: A file, the encoder or a sample cannot be read, or is not the one
            that the run has learnt from; the message names it.
    """
    run = read_run(workdir)
    source = run.workdir / layout.CONFIG
    config = remote_names.with_encoder(config_of(run), encoder, source)
    for stage in (i, j):
        check_stage(run, stage)
    if not i < j:
        raise ComparisonError(f"snapshots {i} and {j}: give the earlier one first")
    for stage in (i, j):
        check_snapshot(run, stage - 1)
    seen = sorted(seen_tasks(run.stream, i))
    before, after = (read(layout.snapshot(run.workdir, stage - 1)) for stage in (i, j))
    # an array of the later snapshot may have grown since: what is new has not moved
    shapes = [{k: v.ndim for k, v in part.items()} for part in (before, after)]
    if shapes[0] != shapes[1]:
        raise ComparisonError(
            f"{run.workdir}: the snapshots have arrays of different shapes, so they "
            "are of two methods"
        )
    smaller = {k: np.minimum(before[k].shape, v.shape) for k, v in after.items()}
    both = [
        {k: v[tuple(map(slice, smaller[k]))] for k, v in part.items()}
        for part in (before, after)
    ]
    similar, notes = None, []
    if with_embeddings:
        remote_names.check_data(config, source)
        assembled = embeddings.assembled(run, config)
        embedded = embeddings.embed(
            assembled, [(i - 1, before), (j - 1, after)], seen, samples
        )
        similar = _similarity(embedded)
        model, stream = assembled.model, assembled.stream
    else:
        loaded = build.encoder_of(config)
        embeddings.check_same("encoder", loaded.fingerprint, run.encoder, run)
        model = build.build_model(loaded)
        stream, reason = _stream_with_samples(run, config)
        notes += [f"samples are not described: {reason}"] if reason else []
    room = capacity.at_stage(run.stream, i - 1)
    meaning = array_axes.find(build.method_of(config), model, room)
    met = {run.stream.tasks[task].modality for task in seen_tasks(run.stream, j)}
    meaning = {path: _in_use(axes, met, j) for path, axes in meaning.items()}
    return plain(
        {
            "kind": "snapshots",
            "run": identity(run, j, config),
            "snapshots": [i, j],
            "params": _drift(both[0], both[1], "params/", meaning),
            "memory": _drift(both[0], both[1], "memory/", meaning),
            "embeddings": similar,
            **_flips(run, (i, j), seen, stream),
            "notes": notes,
        }
    )


def _drift(
    before: Arrays,
    after: Arrays,
    kind: str,
    meaning: dict[str, dict[array_axes.Axis, Sequence[str]]],
) -> dict[str, Any]:
    found = {}
    for path in sorted(path for path in before if path.startswith(kind)):
        one, other = _numbers(before[path], after[path])
        entry: dict[str, Any] = {"shape": one.shape}
        entry |= paired_tests.displacement(one, other)._asdict()
        for axis, names in meaning.get(path, {}).items():
            # both axes of a square matrix may have the same parts: the first one counts
            entry.setdefault(axis.kind, _by_part(one, other, axis, names))
        found[path.removeprefix(kind)] = entry
    return found


def _numbers(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two arrays with 0 wherever one of them masks what has not been met.

    Such an entry has not moved, and its huge value is no size.
    """
    if one.dtype.kind in "biu":  # a key may hold any number
        return one, other
    masked = (abs(one) >= abs(MASKED)) | (abs(other) >= abs(MASKED))
    return np.where(masked, 0, one), np.where(masked, 0, other)


def _by_part(
    one: np.ndarray, other: np.ndarray, axis: array_axes.Axis, names: Sequence[str]
) -> dict[str, Any]:
    parts = [np.array_split(x, len(axis.names), axis.index) for x in (one, other)]
    return {
        name: paired_tests.displacement(mine, theirs)._asdict()
        for name, mine, theirs in zip(axis.names, *parts, strict=True)
        if name in names
    }


def _in_use(
    axes: Iterable[array_axes.Axis], met: Collection[str], stages: int
) -> dict[array_axes.Axis, Sequence[str]]:
    """Returns the parts of each axis that are in use, of modalities and stages met."""

    def used(kind: str, name: str) -> bool:
        if kind == "modality":
            return name in met
        return kind != "stage" or int(name) <= stages

    return {axis: [n for n in axis.names if used(axis.kind, n)] for axis in axes}


def _similarity(embedded: dict[str, embeddings.Embedded]) -> dict[str, Any]:
    found = {}
    for modality, (ids, (one, other)) in embedded.items():
        enough = len(ids) >= 4
        undefined = float("nan")
        found[modality] = {
            "samples": len(ids),
            "cka": paired_tests.linear_cka(one, other) if enough else undefined,
            "cka_biased": paired_tests.linear_cka(one, other, debiased=False),
            "cosine": float(np.mean(np.sum(one * other, axis=1))),
        }
    return found


def _stream_with_samples(run: StoredRun, config: Config) -> tuple[Stream | None, str]:
    """Returns the stream of a run from its present data, or why there is none."""
    try:
        remote_names.check_data(config, run.workdir / layout.CONFIG)
        stream = build.build_stream(config)
    except ValueError as error:
        return None, str(error)
    if stream_hash(stream) != run.hash:
        return None, "the data are not those that were learnt, or some were skipped"
    return stream, ""


def _flips(
    run: StoredRun, stages: tuple[int, int], seen: Sequence[int], stream: Stream | None
) -> dict[str, Any]:
    one, other = (
        read_predictions(run.workdir, run.owner, run.stream, stage - 1)
        for stage in stages
    )
    names = [f"snapshot {stage}" for stage in stages]
    rows = matched_samples(one, other, seen, *names)
    canonical = np.array([slot.canonical for slot in run.stream.classes])
    flips = task_flips(one, other, rows, canonical)
    counted = {
        space: {
            route: [
                {"name": run.stream.tasks[task].name} | counts(found)
                for task, found in by_task.items()
            ]
            for route, by_task in routes.items()
        }
        for space, routes in flips.items()
    }
    mine, theirs = (np.concatenate(part) for part in zip(*rows.values(), strict=True))
    space, route = SPACES.index(SPACE), ROUTES.index(ROUTE)
    columns = (
        *(one.task[mine], one.id[mine], one.label[mine]),
        *(one.chosen[space, route, mine], other.chosen[space, route, theirs]),
    )
    lists = {}
    for kind in ("forgotten", "recovered"):
        by_task = flips[SPACE][ROUTE].values()
        hit = np.concatenate([getattr(found, kind) for found in by_task])
        lists[kind] = _listed(run, stream, [column[hit] for column in columns])
    return {"counts": counted, **lists}


def _listed(
    run: StoredRun, stream: Stream | None, columns: list[np.ndarray]
) -> list[dict[str, Any]]:
    """Returns one entry per sample; columns: task, id, label and both predictions."""
    where = {}
    if stream is not None:
        where = {row.id: row.reference for task in stream.tasks for row in task.test}

    def taken_for(slot: int) -> dict[str, str]:
        known = run.stream.classes[slot]
        return {"class": known.name, "modality": known.modality}

    return [
        {
            "id": int(sample),
            "sample": where[sample].describe() if sample in where else None,
            "task": run.stream.tasks[task].name,
            "class": run.stream.classes[label].name,
            "before": taken_for(before),
            "after": taken_for(after),
        }
        for task, sample, label, before, after in zip(*columns, strict=True)
    ]
