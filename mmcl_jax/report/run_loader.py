"""Reads workdirs into the data of a page."""

import pathlib
from typing import Any

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.models import pretrained
from mmcl_jax.report.history import History
from mmcl_jax.report.run_data import RunData, Source
from mmcl_jax.streams.base import Stream
from mmcl_jax.training import build, remote_names
from mmcl_jax.workdir import layout, schema, states
from mmcl_jax.workdir.predictions import read_embeddings
from mmcl_jax.workdir.reading import (
    StoredRun,
    begun,
    check_snapshot,
    config_of,
    read_results,
    read_run,
    read_steps,
    read_warnings,
    results_so_far,
)
from mmcl_jax.workdir.snapshots import damage


def load(
    workdir: pathlib.Path,
    results: dict[str, Any] | None = None,
    history: History | None = None,
    source: Source | None = None,
    inside: bool = True,
) -> RunData:
    """Reads a workdir.

    Args:
        workdir: Workdir of a run, finished or not.
        results: Results of a running run; None reads `results.json`, or else the
            newest snapshot.
        history: History that has read earlier snapshots; None reads all.
        source: Source of the test samples; None builds it from `config.json`.
        inside: Whether to read snapshots, predictions, embeddings and samples, which a
            page of several runs does not show.

    Raises:
        WorkdirError: There is no run in the folder.
        DataError: A file is absent or damaged; names it.
    """
    stored = read_run(workdir)
    if results is not None:
        schema.check_results(results, stored.stream, workdir / layout.RESULTS)
    else:
        results = read_results(stored) or results_so_far(stored)
    if results is None:
        raise DataError(
            f"{workdir}: neither {layout.RESULTS} nor a snapshot is there; a report "
            "needs at least one learnt task"
        )
    rows = _learnt(results, stored.stream)
    if not rows:
        raise DataError(f"{workdir}: accuracy: no task has been evaluated yet")
    history = history or History(workdir)
    if inside:
        damaged = {}
        for number in states.sealed(stored.workdir / layout.SNAPSHOTS):
            if number in history.stages:
                continue
            # the page says what a damaged one lacks; a foreign one is an error
            if reason := damage(layout.snapshot(stored.workdir, number)):
                damaged[number] = reason
            else:
                check_snapshot(stored, number)
        history.follow(stored.towers, stored.stream.modalities, damaged)
        history.follow_predictions(stored, len(rows))
    return RunData(
        stored=stored,
        results=results,
        rows=rows,
        history=history,
        embeddings=read_embeddings(stored.workdir, stored.owner, stored.stream)
        if inside
        else None,
        source=(source or _source(stored))
        if inside
        else "a page of several runs shows none",
        log=read_warnings(workdir),
        steps=read_steps(workdir, len(stored.stream.stages)),
        begun=begun(workdir),
    )


def _learnt(results: dict[str, Any], stream: Stream) -> tuple[int, ...]:
    """Returns the last task of each stage that has a row in the accuracy matrix."""
    accuracy = np.array(results["accuracy"]["task"]["given"], np.float64)
    rows = (stage[-1] for stage in stream.stages)
    return tuple(row for row in rows if not np.isnan(accuracy[row]).all())


def _source(run: StoredRun) -> Source | str:
    """Returns the source of a run's test samples, or why there is none."""
    try:
        config = config_of(run)
        remote_names.check_data(config, run.workdir / layout.CONFIG)
        stream = build.build_stream(config)
        name = build.encoder_name(config.encoder)
        if not pretrained.is_here(name):
            return "the encoder is in a remote repository, and a page downloads nothing"
        inputs = pretrained.read_inputs(name)
    except (ValueError, OSError) as error:
        return f"the samples cannot be read ({str(error).splitlines()[0]})"
    if stream.classes != run.stream.classes:
        return "the data are not those that the run was made with"
    return Source(stream, inputs)
