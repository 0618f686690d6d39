"""The classifier of one modality as a program that needs no other code."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Bool, Float
from scipy.linalg import solve_triangular

from mmcl_jax.evaluation import calibration, novelty
from mmcl_jax.methods.base import forward
from mmcl_jax.ops import losses
from mmcl_jax.training import unknowns
from mmcl_jax.training.build import Run, input_shapes
from mmcl_jax.types import Batch, Classes, Context, Prediction, PyTree

PLATFORMS = ("cpu", "cuda", "tpu")
OUTPUTS = {
    "logits": "over class slots [b C], the modality given",
    "probabilities": "of class slots [b C], the modality given; 0 for other classes",
    "routed_logits": "over class slots [b C], the modality predicted",
    "routed_probabilities": "of class slots [b C], the modality predicted; as above",
    "routed_modality": "index of the predicted modality [b] in `modalities`",
    "novelty": "distance from the nearest class of the modality, or energy [b]",
    "percentile": "share of samples learnt that are less unlike [b]; NaN: none tells",
}


class Parts(NamedTuple):
    """What a program is made of.

    Attributes:
        run: Config, encoder and method.
        tree: `params`, `memory` and `frozen`: everything that a program takes as an
            argument.
        slots: Class slots, as far as the snapshot has met them.
        snapshot: Number of the stage after which it was written, counted from 1.
        allowed: Class slots `[C]` that can win, by modality in the order of the model;
            of those that were met.
        temperatures: Divisor of the logits for each of `calibration.ROUTES`.
        gauge: What novelty is measured by.
    """

    run: Run
    tree: PyTree
    slots: Classes
    snapshot: int
    allowed: dict[str, Bool[np.ndarray, " C"]]
    temperatures: dict[str, float]
    gauge: unknowns.Gauge


def weights(parts: Parts) -> dict[str, np.ndarray]:
    """Returns all arrays that a program takes, by path."""
    return {name: np.asarray(leaf) for name, leaf in _named(parts.tree).items()}


def _named(tree: PyTree) -> dict[str, Array]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def make(parts: Parts, modality: str) -> export.Exported:
    """Returns the program of a modality that the run has met.

    Its arguments are the dictionary `weights` and the result of `Modality.preprocess`
    in a row for each sample, for any number of them: `float32 [b f s s 3]`, for text
    `int32 [b n]`. It returns a dictionary of `OUTPUTS`: what `Classifier` says with the
    modality given, and what it says without.
    """
    run, model = parts.run, parts.run.model
    # what is preprocessed: a stem is a part of the program
    ((name, sample),) = input_shapes(run.encoder.inputs, [modality])[0].items()
    named, treedef = _named(parts.tree), jax.tree.structure(parts.tree)

    def classify(flat: dict[str, Array], values: Array) -> dict[str, Array]:
        tree = jax.tree.unflatten(treedef, [flat[path] for path in named])
        context = Context(
            tree["frozen"],
            tree["memory"],
            jnp.int32(parts.snapshot - 1),
            parts.slots,
            phase="predict",
        )
        rows, inputs = values.shape[0], {name: values}
        seen = context.frozen, modality, inputs, None
        layers = None
        if blocks := run.method.layer_blocks:
            query, layers = model.embed_layers(*seen, blocks)
        else:
            query = model.embed(*seen)
        batch = Batch(
            inputs=inputs,
            query=query,
            layers=layers,
            label=jnp.zeros(rows, jnp.int32),
            weight=jnp.ones(rows),
            id=jnp.full(rows, -1, jnp.int32),
            hint=jnp.full(rows, model.modalities.index(modality), jnp.int32),
            modality=modality,
        )
        return _said(parts, tree["params"], context, batch)

    (rows,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((rows, *sample.shape), sample.dtype)
    shapes = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in named.items()
    }
    return export.export(jax.jit(classify), platforms=PLATFORMS)(shapes, shape)


def _said(
    parts: Parts, params: PyTree, context: Context, batch: Batch
) -> dict[str, Array]:
    run, modality, gauge = parts.run, batch.modality, parts.gauge

    def route(batch: Batch) -> Prediction:
        features = forward(run.method, run.model, params, context, batch)
        return run.method.predict(params, context, batch, features)

    unhinted = dataclasses.replace(batch, hint=jnp.full_like(batch.hint, -1))
    free = route(unhinted)
    given = route(batch) if run.method.uses_hint else free
    known = np.array([run.model.modalities.index(name) for name in parts.allowed])
    masks = jnp.stack([jnp.asarray(mask) for mask in parts.allowed.values()])
    best = free.modality[:, known].argmax(-1).astype(jnp.int32)
    count = len(run.stream.classes)
    logits, routed = given.logits[:, :count], free.logits[:, :count]
    allowed = jnp.asarray(parts.allowed[modality])[None]
    score = _novelty(gauge, batch, given.logits)
    at_given, at_predicted = (parts.temperatures[name] for name in calibration.ROUTES)
    return {
        "logits": logits,
        "probabilities": _softmax(logits, allowed, at_given),
        "routed_logits": routed,
        "routed_probabilities": _softmax(routed, masks[best], at_predicted),
        "routed_modality": best,
        "novelty": score,
        "percentile": _percentile(gauge.kept.get(modality, []), score),
    }


def _softmax(
    logits: Float[Array, "b C"], allowed: Bool[Array, "rows C"], temperature: float
) -> Float[Array, "b C"]:
    allowed = jnp.broadcast_to(allowed, logits.shape)
    return jax.nn.softmax(losses.mask_logits(logits / temperature, allowed)) * allowed


def _novelty(
    gauge: unknowns.Gauge, batch: Batch, logits: Float[Array, "b C"]
) -> Float[Array, " b"]:
    """Returns the novelty, see `unknowns.Watch`; NaN where nothing tells it."""
    own = gauge.own[batch.modality]
    if gauge.view is None:
        at = gauge.temperature
        among = logits[:, np.flatnonzero(own)]
        return -at * jax.nn.logsumexp(among / at, axis=1)
    spread = gauge.spreads.get(batch.modality)
    if spread is None:
        return jnp.full(len(batch.label), jnp.nan)
    seen = batch.query if gauge.view == "queries" else batch.layers
    assert seen is not None
    # features of a narrower tower are padded with zeros
    seen = jnp.pad(seen, ((0, 0), (0, len(spread.centre) - seen.shape[1])))
    return _distance(spread, seen)


def _distance(known: novelty.Spread, features: Float[Array, "b d"]) -> Array:
    """Returns `novelty.distance`, by an inverse that was computed in float64."""
    whiten = solve_triangular(known.factor, np.eye(len(known.factor)), lower=True).T
    offset = features - jnp.float32(known.centre)
    x = jnp.matmul(offset, jnp.float32(whiten), precision="highest")
    mean = jnp.float32(known.mean)
    products = jnp.matmul(x, mean.T, precision="highest")
    squared = jnp.square(x).sum(1, keepdims=True) - 2 * products
    squared = squared + jnp.square(mean).sum(1)
    return jnp.maximum(squared, 0).min(1) / known.typical


def _percentile(
    kept: list[novelty.Quantiles], score: Float[Array, " b"]
) -> Float[Array, " b"]:
    """Returns `novelty.percentile`."""
    if not kept:
        return jnp.full_like(score, jnp.nan)
    levels = jnp.float32(novelty.LEVELS)
    lower = [e.count * jnp.interp(score, jnp.float32(e.values), levels) for e in kept]
    return jnp.sum(jnp.stack(lower), axis=0) / sum(e.count for e in kept)
