"""Loads a classifier of files from the workdir of a run."""

import contextlib
import dataclasses
import os

import jax
import numpy as np

from mmcl_jax.errors import WorkdirError
from mmcl_jax.evaluation import calibration, label_spaces
from mmcl_jax.evaluation.novelty import kept_at
from mmcl_jax.parallel import sharding
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.streams import storage
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import build, capacity, remote_names, run_description, stems
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.workdir import layout, novelty, states, temperatures
from mmcl_jax.workdir.reading import (
    StoredRun,
    check_snapshot,
    config_of,
    read_results,
    read_run,
    results_so_far,
)
from mmcl_jax.workdir.resuming import foreign
from mmcl_jax.workdir.snapshots import Snapshots


def load(
    workdir: str | os.PathLike[str],
    snapshot: int | None = None,
    encoder: str | None = None,
) -> Classifier:
    """Reads what a run has learnt; its data are not needed, and nothing is written.

    Args:
        workdir: Folder of the run, which may still be running.
        snapshot: Number of the snapshot, counted from 1 as stages are; None: the newest
            intact one.
        encoder: Name of the encoder, if it has moved or is in a remote repository,
            which is then downloaded; None: the one that the run names, if it is local.

    Raises:
        WorkdirError: The folder holds no run, or not this snapshot, or a damaged one;
            or the encoder or the preprocessing differ from those of the run.
        ConfigError, DataError: The config, the stream or the encoder cannot be read.
    """
    stored = read_run(workdir)
    source = stored.workdir / layout.CONFIG
    config = remote_names.with_encoder(config_of(stored), encoder, source)
    stream = stored.stream
    number, notes = states.choose(stored.workdir, snapshot)
    store = Snapshots(stored.workdir / layout.SNAPSHOTS, create=False)
    with contextlib.closing(store):
        # One device: a mesh of several would need a multiple of as many files.
        mesh = sharding.make_mesh(jax.local_devices()[:1])
        loaded = build.encoder_of(config, mesh)
        stored_as = storage.for_all(config.stream)
        inputs = dataclasses.replace(loaded.inputs, storage=stored_as)
        decoder = Decoder(inputs, 0, stems.make_stem(loaded.spec, loaded.frozen))
        run = build.compose(config, loaded, stream, mesh, decoder)
        _check_same(stored, run)
        check_snapshot(stored, number)
        state = _restore(store, number, run)
    if number + 1 < len(stream.stages):
        notes.append(f"snapshot {number + 1} of {len(stream.stages)}")
        if snapshot is None:
            notes[-1] = f"the run is not finished; using {notes[-1]}"
    if "depth" in stream.modalities and storage.differs(config.stream):
        notes.append(
            "data sets of this run store depth in different ways; depth maps are read "
            "as integers of millimetres or floats of metres"
        )
    known = calibration.at_snapshot(
        temperatures.read(stored.workdir, stored.owner), number
    )
    if known is None:
        notes.append("the run has stored no temperature: probabilities may be far off")
    stages = novelty.read(stored.workdir, stored.owner)
    kept = kept_at(stages, number)
    frozen = loaded.frozen
    feed = Feed(run, frozen)
    text = feed.embed_class_names()
    slots = build.classes_at(run, text, number, upcoming=True)
    return Classifier(
        run, state, slots, number + 1, known, kept, tuple(notes), frozen, feed
    )


def accuracy(workdir: str | os.PathLike[str], snapshot: int) -> dict[str, float]:
    """Returns the mean accuracy over the tasks learnt by a snapshot, by route.

    It is that among the classes of the modality that is given or predicted; empty where
    nothing is stored of the stage.

    Raises:
        DataError: The results cannot be read.
    """
    stored = read_run(workdir)
    results = read_results(stored) or results_so_far(stored)
    if results is None:
        return {}
    seen = [i for stage in stored.stream.stages[:snapshot] for i in stage]
    found = {}
    for route in label_spaces.ROUTES:
        matrix = np.array(results["accuracy"]["routed"][route], np.float64)
        row = matrix[seen[-1], seen]
        if not np.isnan(row).all():
            found[route] = float(np.nanmean(row))
    return found


def _check_same(stored: StoredRun, run: Run) -> None:
    """Raises `WorkdirError` if samples would be embedded differently from the run."""
    here, workdir = run_description.describe(run), stored.workdir
    if here["encoder"] != stored.encoder:
        raise WorkdirError(
            f"{run.config.encoder.path}: not the encoder that {workdir} was made with: "
            f"its fingerprint is {here['encoder']}, expected {stored.encoder}"
        )
    if here["preprocessing"] != stored.preprocessing:
        raise WorkdirError(
            f"--workdir: {workdir} was made by a version that preprocesses samples as "
            f"{stored.preprocessing}; this version does it as {here['preprocessing']}"
        )


def _restore(store: Snapshots, number: int, run: Run) -> LearnerState:
    # Shapes suffice: an initialised state would only be overwritten.
    room = capacity.at_stage(run.stream, number)
    shape = jax.eval_shape(lambda: run.learner.init(room))
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding.replicated(run.mesh)
        ),
        {"params": shape.params, "memory": shape.memory},
    )
    try:
        learnt, _ = store.restore(number, like)
    except (KeyError, TypeError, ValueError) as error:
        raise foreign(store.path(number), error) from error
    # Predictions do not use the optimizer.
    none = jax.device_put(np.int32(0))
    state = LearnerState(**learnt, optimizer=None, step=none, refused=none)
    return run.learner.grow(state, capacity.of_stream(run.stream))
