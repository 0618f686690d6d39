"""The classifier of one modality as a program that needs no other code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Bool, Float
from scipy.linalg import solve_triangular

from mmcl_jax.evaluation import novelty
from mmcl_jax.methods.base import Features, forward
from mmcl_jax.ops import losses
from mmcl_jax.serving.classifier import Classifier
from mmcl_jax.training import unknowns
from mmcl_jax.training.build import input_shapes
from mmcl_jax.types import Batch, Context, Prediction, PyTree

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


def weights(classifier: Classifier) -> dict[str, np.ndarray]:
    """Returns all arrays that a program takes, by path.

    They are those of `frozen`, the encoder, and of `params` and `memory`, which the run
    has learnt.
    """
    return {name: np.asarray(leaf) for name, leaf in _named(classifier).items()}


def _tree(classifier: Classifier) -> PyTree:
    learnt = {"params": classifier.state.params, "memory": classifier.state.memory}
    return learnt | {"frozen": classifier.frozen}


def _named(classifier: Classifier) -> dict[str, Array]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(_tree(classifier))
    }


def make(classifier: Classifier, modality: str) -> export.Exported:
    """Returns the program.

    Its arguments are the dictionary `weights` and the result of `Modality.preprocess`
    in a row for each sample, for any number of them: `float32 [b f s s 3]`, for text
    `int32 [b n]`. It returns a dictionary of `OUTPUTS`, which say what `Classifier`
    says with the modality given and without it; routes are computed with the modality
    hidden from the method, temperatures and masks included.

    Raises:
        ConfigError: The run has not seen the modality.
    """
    classifier.check_modality(modality)
    run, model = classifier.run, classifier.run.model
    # what is preprocessed: a stem is a part of the program
    ((name, sample),) = input_shapes(run.encoder.inputs, [modality])[0].items()
    named = _named(classifier)
    gauge = classifier.gauge  # outside of the trace, since it needs numbers
    treedef = jax.tree.structure(_tree(classifier))

    def classify(flat: dict[str, Array], values: Array) -> dict[str, Array]:
        tree = jax.tree.unflatten(treedef, [flat[path] for path in named])
        context = Context(
            tree["frozen"],
            tree["memory"],
            jnp.int32(classifier.snapshot - 1),
            classifier.slots,
            phase="predict",
        )
        rows, inputs = values.shape[0], {name: values}
        batch = Batch(
            inputs=inputs,
            query=model.embed(context.frozen, modality, inputs, None),
            label=jnp.zeros(rows, jnp.int32),
            weight=jnp.ones(rows),
            id=jnp.full(rows, -1, jnp.int32),
            hint=jnp.full(rows, model.modalities.index(modality), jnp.int32),
            modality=modality,
        )
        return _said(classifier, gauge, tree["params"], context, batch)

    (rows,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((rows, *sample.shape), sample.dtype)
    shapes = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in named.items()
    }
    return export.export(jax.jit(classify), platforms=PLATFORMS)(shapes, shape)


def _said(
    classifier: Classifier,
    gauge: unknowns.Gauge,
    params: PyTree,
    context: Context,
    batch: Batch,
) -> dict[str, Array]:
    run, modality = classifier.run, batch.modality

    def route(batch: Batch) -> tuple[Prediction, Features]:
        features = forward(run.method, run.model, params, context, batch)
        return run.method.predict(params, context, batch, features), features

    unhinted = dataclasses.replace(batch, hint=jnp.full_like(batch.hint, -1))
    free, features = route(unhinted)
    given = route(batch)[0] if run.method.uses_hint else free
    modalities = [run.model.modalities[m] for m in classifier.known]
    masks = jnp.stack([jnp.asarray(classifier.allowed(name)) for name in modalities])
    best = free.modality[:, classifier.known].argmax(-1).astype(jnp.int32)
    count = len(run.stream.classes)
    logits, routed = given.logits[:, :count], free.logits[:, :count]
    allowed = jnp.asarray(classifier.allowed(modality))[None]
    score = _novelty(gauge, batch, given.logits, features)
    return {
        "logits": logits,
        "probabilities": _softmax(logits, allowed, classifier.temperature(modality)),
        "routed_logits": routed,
        "routed_probabilities": _softmax(
            routed, masks[best], classifier.temperature(None)
        ),
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
    gauge: unknowns.Gauge,
    batch: Batch,
    logits: Float[Array, "b C"],
    features: Features,
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
    seen = batch.query if gauge.view == "queries" else features.layers
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
