"""Relevance in COMM: the router, and the weights of adapters computed from it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.methods import router as routers
from mmcl_jax.methods.comm.aggregation import blend_weights, same_tower, warm_started
from mmcl_jax.methods.comm.options import Options
from mmcl_jax.models.model import Model
from mmcl_jax.ops import losses, relevance
from mmcl_jax.types import Batch, Context, Key, Params, PyTree


def scores(
    model: Model, context: Context, query: Float[Array, "b d"]
) -> Float[Array, "b m"]:
    """Returns the router's scores of modalities; those never met are masked."""
    return routers.scores(
        context.memory["router"], query, context.classes, len(model.modalities)
    )


def relevance_weights(
    model: Model, options: Options, context: Context, batch: Batch
) -> Float[Array, "b m"]:
    """Returns the weight of each modality's adapter, among those of the same tower.

    A sample's adapters are those that had been met when its modality was last trained:
    a modality that comes later leaves them alone.
    """
    memory, own_tower = context.memory, same_tower(model)
    own_tower = own_tower[model.modalities.index(batch.modality)]
    if own_tower.sum() == 1:
        return jnp.broadcast_to(own_tower, (batch.label.shape[0], len(own_tower))) * 1.0
    if context.train and options.blend == "none":
        return (batch.hint[:, None] == jnp.arange(len(own_tower))) * 1.0
    known = ((memory["snapshots"] > 0) | memory["active"]) & own_tower
    # before any modality of this tower was met, its untrained adapters are used
    known = jnp.where(known.any(), known, own_tower)
    evidence = losses.mask_logits(scores(model, context, batch.query), known)
    own = evidence.argmax(-1)
    # in training soft weights ignore the hint, as in a prediction without one
    if not context.train or options.blend != "soft":
        given = (batch.hint[:, None] == jnp.arange(evidence.shape[1])) & known
        evidence = jnp.where(given, evidence.max(-1, keepdims=True), evidence)
        own = jnp.where(given.any(-1), given.argmax(-1), own)
    then = memory["support"][own] & known
    allowed = jnp.where(then.any(-1, keepdims=True), then, known)
    return blend_weights(
        evidence,
        own,
        allowed,
        options.blend,
        memory["router"]["temperature"],
        options.residual_share,
    )


def warm_start(
    model: Model,
    params: Params,
    context: Context,
    active: Bool[Array, " m"],
) -> Params:
    """Starts each new modality at the blend of those that its queries resemble.

    The router fitted before this task scores the new classes' mean queries; the mean of
    its weights blends the anchors.
    """
    memory, classes = context.memory, context.classes
    before = memory["snapshots"] > 0
    allowed = before & same_tower(model)
    evidence = scores(model, context, memory["queries"].mean)
    rows = []
    for m in range(len(model.modalities)):
        own = classes.of_task & (classes.modality == m)
        weights = relevance.relevance(
            evidence, allowed[m], memory["router"]["temperature"]
        )
        rows.append(own / jnp.maximum(own.sum(), 1) @ weights)
    adapters = warm_started(
        model, params["adapters"], memory["anchor"], jnp.stack(rows), active & ~before
    )
    return params | {"adapters": adapters}


def fit_router(model: Model, options: Options, context: Context, key: Key) -> PyTree:
    """Fits relevance to all queries so far, from their Gaussians alone.

    The temperature is calibrated on draws from the Gaussians: scores grow with every
    class that the router knows, so with an old temperature the weight of the own
    modality would shrink with each task.
    """
    memory, classes = context.memory, context.classes
    stats, num_modalities = memory["queries"], len(model.modalities)
    drawn, own, weight, jitter = routers.pseudo_queries(key, stats, classes)
    router = routers.fit_discriminant(stats, classes, num_modalities)
    fitted = context._replace(memory=memory | {"router": router})
    evidence = scores(model, fitted, drawn)
    known = (memory["snapshots"] > 0) | memory["active"]
    allowed = known & jnp.asarray(same_tower(model))[own] & memory["support"][own]
    # a modality that has no others has weight 1 at every temperature
    counted = weight * (allowed.sum(-1) > 1)
    temperature = memory["router"]["temperature"]
    if options.self_weight is not None:
        temperature, _ = relevance.calibrate_temperature(
            evidence, own, allowed, counted, options.self_weight
        )
    weights = blend_weights(
        losses.mask_logits(evidence, allowed),
        own,
        allowed,
        options.blend,
        temperature,
        options.residual_share,
    )
    share = jax.nn.one_hot(own, num_modalities) * weight[:, None]
    mean = (share / jnp.maximum(share.sum(0), 1)).T @ weights
    return router | {
        "temperature": temperature,
        "mean_relevance": mean,
        "jitter": jnp.maximum(jitter, router["jitter"]),
    }
