"""From workdirs to what a page knows of their runs."""

import pathlib
from typing import Any

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.models import pretrained
from mmcl_jax.report.history import History
from mmcl_jax.report.run_data import RunData, Source
from mmcl_jax.streams.base import Stream
from mmcl_jax.training import build
from mmcl_jax.workdir import layout, schema
from mmcl_jax.workdir.predictions import read_embeddings
from mmcl_jax.workdir.reading import (
    StoredRun,
    config_of,
    read_results,
    read_run,
    read_warnings,
    results_so_far,
)


def load(
    workdir: pathlib.Path,
    results: dict[str, Any] | None = None,
    history: History | None = None,
    source: Source | None = None,
    inside: bool = True,
) -> RunData:
    """Reads a workdir.

    Args:
        workdir: of a run that may still be on its way.
        results: of a run that is on its way; None: from `results.json`, or else from
            the newest snapshot.
        history: that has read the snapshots before; None: all are read.
        source: of the test samples; None: built anew from `config.json`.
        inside: whether snapshots, predictions, embeddings and samples are read, which
            a page of several runs has no room for.

    Raises:
        WorkdirError: there is no run in the folder.
        DataError: a file is absent or damaged; names it.
    """
    stored = read_run(workdir)
    if results is not None:
        schema.check_results(results, stored.stream, workdir / layout.RESULTS)
    else:
        results = read_results(stored) or results_so_far(stored)
    if results is None:
        raise DataError(
            f"{workdir}: neither {layout.RESULTS} nor a snapshot is there; a report "
            "needs one learnt task at least"
        )
    rows = _learnt(results, stored.stream)
    if not rows:
        raise DataError(f"{workdir}: accuracy: no task was scored yet")
    history = history or History(workdir)
    if inside:
        history.follow(stored.towers)
        history.follow_predictions(stored, len(rows))
    return RunData(
        stored=stored,
        results=results,
        rows=rows,
        history=history,
        embeddings=read_embeddings(workdir, stored.stream) if inside else None,
        source=(source or _source(stored))
        if inside
        else "a page of several runs shows none",
        log=read_warnings(workdir),
    )


def _learnt(results: dict[str, Any], stream: Stream) -> tuple[int, ...]:
    """Returns the last task of each stage that has a row in the accuracy matrix."""
    accuracy = np.array(results["accuracy"]["task"]["given"], np.float64)
    rows = (stage[-1] for stage in stream.stages)
    return tuple(row for row in rows if not np.isnan(accuracy[row]).all())


def _source(run: StoredRun) -> Source | str:
    """Returns the test samples of a run, or why they cannot be had."""
    try:
        config = config_of(run)
        stream = build.build_stream(config)
        name = build.encoder_name(config.encoder)
        if not pretrained.is_here(name):
            return "the encoder is a repository, and a page fetches nothing"
        inputs = pretrained.read_inputs(name)
    except (ValueError, OSError) as error:
        return f"the samples are not at hand ({str(error).splitlines()[0]})"
    if stream.classes != run.stream.classes:
        return "the data are not those that the run was made with"
    return Source(stream, inputs)
