"""Fitting one tower: AdamW, a cosine schedule, checkpoints, and the curve."""

import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jaxtyping import Array, Float

from mmcl_jax.types import PyTree

Loss = Callable[[PyTree, PyTree], tuple[Float[Array, ""], dict[str, Array]]]


def optimizer(
    steps: int, learning_rate: float, warmup_steps: int, weight_decay: float
) -> optax.GradientTransformation:
    """Returns AdamW with warm-up and a cosine; only matrices decay."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, steps
    )
    matrices = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b2=0.98, weight_decay=weight_decay, mask=matrices),
    )


def fit(
    loss: Loss,
    weights: PyTree,
    transformation: optax.GradientTransformation,
    batches: Callable[[int], Iterator[PyTree]],
    steps: int,
    evaluate: Callable[[PyTree], dict[str, Any]],
    every: int,
    checkpoint: pathlib.Path,
) -> tuple[PyTree, list[dict[str, Any]]]:
    """Trains weights and returns them with the curve.

    Args:
        loss: `(weights, batch) -> (value, metrics)`.
        weights: Initial weights.
        transformation: Optimizer.
        batches: Function from the first step to the batches from there on.
        steps: Number of steps.
        evaluate: Function of the weights, called every `every` steps and at the end.
        every: Also the number of steps between checkpoints.
        checkpoint: File from which an interrupted training resumes.
    """

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: PyTree, state: PyTree, batch: PyTree):
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(weights, batch)
        updates, state = transformation.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, metrics

    state, done, curve = transformation.init(weights), 0, []
    if checkpoint.exists():
        weights, state, done, curve = _restored(checkpoint, (weights, state))
    sums, started = None, time.monotonic()
    # the steps come first: a finished training must not ask for another batch
    for i, batch in zip(range(done + 1, steps + 1), batches(done), strict=False):
        weights, state, metrics = step(weights, state, batch)
        sums = metrics if sums is None else jax.tree.map(jnp.add, sums, metrics)
        if i % every == 0 or i == steps:
            count = i % every or every
            means = {name: round(float(v) / count, 4) for name, v in sums.items()}
            seconds, sums = round(time.monotonic() - started, 1), None
            curve.append({"step": i, "seconds": seconds} | means | evaluate(weights))
            logging.info("%s", json.dumps(curve[-1]))
            _save(checkpoint, (weights, state), i, curve)
    return weights, curve


def _save(path: pathlib.Path, tree: PyTree, done: int, curve: list) -> None:
    arrays = {f"{i:05}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(tree))}
    arrays["about"] = np.frombuffer(json.dumps([done, curve]).encode(), np.uint8)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    # a rename is atomic: an interrupted training finds a whole checkpoint or the last
    part.replace(path)


def _restored(path: pathlib.Path, like: PyTree) -> tuple[PyTree, PyTree, int, list]:
    with np.load(path, allow_pickle=False) as file:
        done, curve = json.loads(file["about"].tobytes())
        leaves = [file[name] for name in sorted(set(file) - {"about"})]
    weights, state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return weights, state, done, curve
