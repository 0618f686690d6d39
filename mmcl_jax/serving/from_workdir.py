"""From the workdir of a run to a classifier of files."""

import contextlib
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from mmcl_jax import config as configs
from mmcl_jax.errors import DataError, WorkdirError
from mmcl_jax.evaluation import calibration
from mmcl_jax.files import read_json
from mmcl_jax.parallel import sharding
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.description import stored_stream
from mmcl_jax.streams.loader import Decoder
from mmcl_jax.training import build
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run
from mmcl_jax.training.learner import LearnerState
from mmcl_jax.workdir import layout as workdirs
from mmcl_jax.workdir.snapshots import Snapshots

_NO_SNAPSHOT = "{} has no snapshot yet; the first is written behind the first stage"


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
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").is_file():
        raise WorkdirError(f"--workdir: no run in {workdir}: config.json is not there")
    config = configs.load(workdir / "config.json")
    description, stream = _read_stream(workdir / "stream.json")
    if not (workdir / "snapshots").is_dir():
        raise WorkdirError(f"--workdir: {_NO_SNAPSHOT.format(workdir)}")
    store = Snapshots(workdir / "snapshots", create=False)
    with contextlib.closing(store):
        number, notes = _choose(store, workdir, snapshot)
        # one device: files come in any number
        mesh = sharding.make_mesh(jax.local_devices()[:1])
        encoder = build.load_encoder(config.encoder, mesh)
        decoder = Decoder(encoder.inputs, 0)
        run = build.compose(config, encoder, stream, mesh, decoder)
        _check_same(workdir, description, run)
        state = _restore(store, number, run)
    if number + 1 < len(stream.stages):
        notes.append(f"snapshot {number + 1} of {len(stream.stages)}")
        if snapshot is None:
            notes[-1] = f"the run is not finished; using {notes[-1]}"
    temperatures = calibration.read(workdir / calibration.CALIBRATION, number)
    if temperatures is None:
        notes.append("the run has stored no temperature: probabilities may be far off")
    frozen = encoder.frozen
    feed = Feed(run, frozen)
    slots = build.classes_at(run, feed.embed_class_names(), number)
    return Classifier(
        run, state, slots, number + 1, temperatures, tuple(notes), frozen, feed
    )


def _read_stream(path: pathlib.Path) -> tuple[dict[str, Any], Stream]:
    expected = "the stream of a run"
    description = read_json(path, expected)
    try:
        return description, stored_stream(description)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: {type(error).__name__}: {error}; expected {expected}"
        ) from error


def _choose(
    store: Snapshots, workdir: pathlib.Path, wanted: int | None
) -> tuple[int, list[str]]:
    """Returns the index of the snapshot to use, and notes on those passed over.

    Args:
        store: of all snapshots.
        workdir: of the run.
        wanted: counted from 1; None: the newest that is whole.
    """
    numbers, notes = store.numbers(), []
    if not numbers:
        raise WorkdirError(f"--workdir: {_NO_SNAPSHOT.format(workdir)}")
    if wanted is not None and wanted - 1 not in numbers:
        there = ", ".join(str(number + 1) for number in numbers)
        raise WorkdirError(f"--snapshot: no {wanted} in {workdir}; there are {there}")
    for number in reversed(numbers) if wanted is None else [wanted - 1]:
        reason = store.damage(number)
        if reason is None:
            return number, notes
        notes.append(f"{store.path(number)} is damaged: {reason}")
    raise WorkdirError("; ".join(notes))


def _check_same(workdir: pathlib.Path, description: dict[str, Any], run: Run) -> None:
    """Raises `WorkdirError` if samples would be embedded otherwise than in the run."""
    here = build.describe(run)
    if here["encoder"] != description.get("encoder"):
        raise WorkdirError(
            f"{run.config.encoder.path}: not the encoder that {workdir} was made with: "
            f"its fingerprint is {here['encoder']}, expected "
            f"{description.get('encoder')}"
        )
    if here["preprocessing"] != description.get("preprocessing"):
        raise WorkdirError(
            f"--workdir: {workdir} was made by a version that preprocesses samples as "
            f"{description.get('preprocessing')}; this one does as "
            f"{here['preprocessing']}"
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
        raise workdirs.foreign(store.path(number), error) from error
    # predictions read nothing of an optimizer
    none = jnp.zeros((), jnp.int32)
    return LearnerState(**learnt, optimizer=None, step=none, refused=none)
