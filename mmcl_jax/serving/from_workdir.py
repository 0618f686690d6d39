"""From the workdir of a run to a classifier of files."""

import contextlib
import os

import jax
import jax.numpy as jnp

from mmcl_jax.errors import WorkdirError
from mmcl_jax.evaluation import calibration
from mmcl_jax.parallel import sharding
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import build
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.workdir import layout, states, temperatures
from mmcl_jax.workdir.reading import StoredRun, config_of, read_run
from mmcl_jax.workdir.resuming import foreign
from mmcl_jax.workdir.snapshots import Snapshots


def load(workdir: str | os.PathLike[str], snapshot: int | None = None) -> Classifier:
    """Reads what a run has learnt; its data are not needed, and nothing is written.

    Args:
        workdir: of the run, which may still be on its way.
        snapshot: which, counted from 1 as stages are; None: the newest that is whole.

    Raises:
        WorkdirError: it holds no run, not this snapshot, or one that is damaged; or
            encoder or preprocessing are not those of the run.
        ConfigError, DataError: its config, its stream or its encoder cannot be read.
    """
    stored = read_run(workdir)
    config, stream = config_of(stored), stored.stream
    number, notes = states.choose(stored.workdir, snapshot)
    store = Snapshots(stored.workdir / layout.SNAPSHOTS, create=False)
    with contextlib.closing(store):
        # one device: files come in any number
        mesh = sharding.make_mesh(jax.local_devices()[:1])
        encoder = build.load_encoder(config.encoder, mesh)
        decoder = Decoder(encoder.inputs, 0)
        run = build.compose(config, encoder, stream, mesh, decoder)
        _check_same(stored, run)
        state = _restore(store, number, run)
    if number + 1 < len(stream.stages):
        notes.append(f"snapshot {number + 1} of {len(stream.stages)}")
        if snapshot is None:
            notes[-1] = f"the run is not finished; using {notes[-1]}"
    known = calibration.at_snapshot(temperatures.read(stored.workdir), number)
    if known is None:
        notes.append("the run has stored no temperature: probabilities may be far off")
    frozen = encoder.frozen
    feed = Feed(run, frozen)
    slots = build.classes_at(run, feed.embed_class_names(), number)
    return Classifier(run, state, slots, number + 1, known, tuple(notes), frozen, feed)


def _check_same(stored: StoredRun, run: Run) -> None:
    """Raises `WorkdirError` if samples would be embedded otherwise than in the run."""
    here, workdir = build.describe(run), stored.workdir
    if here["encoder"] != stored.encoder:
        raise WorkdirError(
            f"{run.config.encoder.path}: not the encoder that {workdir} was made with: "
            f"its fingerprint is {here['encoder']}, expected {stored.encoder}"
        )
    if here["preprocessing"] != stored.preprocessing:
        raise WorkdirError(
            f"--workdir: {workdir} was made by a version that preprocesses samples as "
            f"{stored.preprocessing}; this one does as {here['preprocessing']}"
        )


def _restore(store: Snapshots, number: int, run: Run) -> LearnerState:
    shape = jax.eval_shape(run.learner.init)
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
    # predictions read nothing of an optimizer
    none = jnp.zeros((), jnp.int32)
    return LearnerState(**learnt, optimizer=None, step=none, refused=none)
