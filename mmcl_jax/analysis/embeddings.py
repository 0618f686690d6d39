"""Embeddings of test samples under stored states, computed anew."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from rich.console import Console

from mmcl_jax.config import Config
from mmcl_jax.errors import DataError
from mmcl_jax.parallel import sharding
from mmcl_jax.training import capacity, learner
from mmcl_jax.training.batches import Feed
from mmcl_jax.training.build import Run, assemble, classes_at
from mmcl_jax.training.run_description import describe
from mmcl_jax.types import PyTree
from mmcl_jax.workdir.reading import StoredRun
from mmcl_jax.workdir.states import by_path


class Embedded(NamedTuple):
    """Some test samples of a modality under several states.

    Attributes:
        id: Id of each sample.
        features: Unit embeddings, states in front.
    """

    id: Int[np.ndarray, " n"]
    features: Float[np.ndarray, "s n d"]


def assembled(stored: StoredRun, config: Config) -> Run:
    """Returns a stored run assembled anew, its data included.

    Args:
        stored: The run.
        config: Config of the run.

    Raises:
        ValueError: The encoder or the data cannot be read.
        DataError: They are not those that the run has learnt from.
    """
    if config.data.on_error != "skip":  # a damaged sample raises when it is read
        unverified = dataclasses.replace(config.data, verify=False)
        config = dataclasses.replace(config, data=unverified)
    # the run may have had more or fewer devices than this machine
    model = config.mesh.model
    mesh = sharding.make_mesh(jax.devices()[:model], model)
    run = assemble(config, Console(quiet=True), mesh)
    here = describe(run)
    check_same("data", here["hash"], stored.hash, stored)
    check_same("encoder", here["encoder"], stored.encoder, stored)
    if here["preprocessing"] != stored.preprocessing:
        raise DataError(
            f"{stored.workdir}: it was made by a version that preprocesses samples as "
            f"{stored.preprocessing}; this one does so as {here['preprocessing']}. Use "
            "that version, or do without embeddings"
        )
    return run


def check_same(what: str, here: str, there: str, stored: StoredRun) -> None:
    """Raises `DataError` if data or encoder are not those that a run was made with."""
    if here != there:
        raise DataError(
            f"{stored.workdir}: it was made with another {what} than is there now "
            f"({there[:12]}, now {here[:12]}); restore it"
            + (", or do without embeddings" if what == "data" else "")
        )


def embed(
    run: Run,
    states: Sequence[tuple[int, dict[str, np.ndarray]]],
    tasks: Sequence[int],
    samples: int,
) -> dict[str, Embedded]:
    """Embeds test samples under each state, with their modality given.

    Args:
        run: Run that the states are of.
        states: Stage, counted from 0, and arrays by path (see `states.read`) of each.
        tasks: Tasks whose test samples are embedded.
        samples: Largest number of samples per modality; each of its tasks contributes
            the same number, spaced evenly over its test set.

    Returns:
        The embeddings by modality.

    Raises:
        DataError: A sample cannot be decoded, or a state is not of this method.
    """
    run = run._replace(stream=_shortened(run, tasks, samples))
    frozen = run.encoder.frozen
    feed = Feed(run, frozen)
    text = feed.embed_class_names()
    placed = []
    for stage, arrays in states:
        room = capacity.at_stage(run.stream, stage)
        like = jax.eval_shape(lambda room=room: run.learner.init(room))
        params, memory = (
            sharding.put(_filled(like_, arrays, name), run.mesh)
            for name, like_ in (("params", like.params), ("memory", like.memory))
        )
        at = frozen, classes_at(run, text, stage), np.int32(stage)
        placed.append((params, memory, *at))
    embedding = learner.make_embed(run.make_method, run.model, run.mesh)
    feed.embed_queries(tasks, "test")
    found = {}
    for modality, rows in feed.records(tasks, "test").items():
        parts = [
            [np.asarray(embedding(*state, batch)) for state in placed]
            for batch in feed.batches({modality: rows}, decoded=run.method.needs_inputs)
        ]
        features = np.concatenate([np.stack(part) for part in parts], axis=1)
        ids = np.array([row.id for row in rows])
        # the rows after the last sample are padding
        found[modality] = Embedded(ids, features[:, : len(rows)])
    return found


def _shortened(run: Run, tasks: Sequence[int], samples: int):
    """Returns the stream with fewer test samples in `tasks`."""
    stream, shorter = run.stream, list(run.stream.tasks)
    for i in tasks:
        modality, rows = stream.tasks[i].modality, stream.tasks[i].test
        share = samples // sum(stream.tasks[j].modality == modality for j in tasks)
        if len(rows) > share:
            # evenly spaced, since test samples are ordered by class
            picked = np.linspace(0, len(rows) - 1, max(share, 1)).round().astype(int)
            rows = [rows[k] for k in picked]
        shorter[i] = dataclasses.replace(stream.tasks[i], test=rows)
    return dataclasses.replace(stream, tasks=tuple(shorter))


def _filled(like: PyTree, arrays: dict[str, np.ndarray], name: str) -> PyTree:
    """Returns a tree with the structure of `like` and stored arrays as leaves."""
    leaves = []
    for path, leaf in by_path({name: like}).items():
        stored = arrays.get(path)
        if stored is None or (stored.shape, stored.dtype) != (leaf.shape, leaf.dtype):
            raise DataError(f"a state of another method or version: {path} differs")
        leaves.append(stored)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
