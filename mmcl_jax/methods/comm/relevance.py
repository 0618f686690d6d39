"""Relevance in COMM: the router, and the weights of adapters computed from it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.methods import router as routers
from mmcl_jax.methods.comm.aggregation import blend_weights, same_tower, warm_started
from mmcl_jax.methods.comm.options import Options
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, losses, relevance
from mmcl_jax.types import Batch, Context, Key, Params, PyTree

# rows drawn from the Gaussians of queries in each step of joint training
_REHEARSED = 64


def scores(
    model: Model, options: Options, params: Params, context: Context, query: Array
) -> Float[Array, "b m"]:
    """Returns the router's scores of modalities; those never met are masked."""
    router = params if options.relevance == "joint" else context.memory
    return routers.scores(
        options.relevance,
        router["router"],
        query,
        context.classes,
        len(model.modalities),
    )


def relevance_weights(
    model: Model, options: Options, params: Params, context: Context, batch: Batch
) -> Float[Array, "b m"]:
    """Returns the weight of each modality's adapter, among those of the same tower."""
    memory, own_tower = context.memory, same_tower(model)
    own_tower = own_tower[model.modalities.index(batch.modality)]
    if own_tower.sum() == 1:
        return jnp.broadcast_to(own_tower, (batch.label.shape[0], len(own_tower))) * 1.0
    if context.train and options.blend == "none":
        return (batch.hint[:, None] == jnp.arange(len(own_tower))) * 1.0
    known = ((memory["snapshots"] > 0) | memory["active"]) & own_tower
    # before any modality of this tower was met, its untrained adapters are used
    known = jnp.where(known.any(), known, own_tower)
    evidence = scores(model, options, params, context, batch.query)
    evidence = losses.mask_logits(evidence, known)
    own = evidence.argmax(-1)
    allowed = jnp.broadcast_to(known, evidence.shape)
    # in training soft weights ignore the hint, as in a prediction without one
    if not context.train or options.blend in ("residual", "none"):
        given = (batch.hint[:, None] == jnp.arange(evidence.shape[1])) & known
        evidence = jnp.where(given, evidence.max(-1, keepdims=True), evidence)
        own = jnp.where(given.any(-1), given.argmax(-1), own)
        if options.given_route == "one_hot":
            allowed = allowed & (given | ~given.any(-1, keepdims=True))
    if options.mix_support == "seen_when_last_trained":
        then = memory["support"][own] & allowed
        allowed = jnp.where(then.any(-1, keepdims=True), then, allowed)
    if options.weighting == "task":
        mean = memory["router"]["mean_relevance"][own]
        kept = jnp.where(allowed, mean, 0.0)
        # before any modality was met none takes part, and 0 / 0 must not arise
        total = jnp.where(kept.any(-1), kept.sum(-1), 1.0)
        return kept * (mean.sum(-1) / total)[:, None]
    return blend_weights(
        evidence,
        own,
        allowed,
        options.blend,
        memory["router"]["temperature"],
        options.residual_share,
    )


def router_loss(
    model: Model,
    options: Options,
    params: Params,
    context: Context,
    batch: Batch,
    key: Key,
) -> Float[Array, ""]:
    """Returns the router's loss on the batch and on draws of what was met before."""
    classes, num_modalities = context.classes, len(model.modalities)
    stats = context.memory["queries"]
    met = (stats.count > 0) / jnp.maximum(jnp.sum(stats.count > 0), 1)
    pick, draw = jax.random.split(key)
    # uniform over the classes met; before any, the draws weigh nothing
    label = jax.random.categorical(pick, jnp.log(met + 1e-12), shape=(_REHEARSED,))
    drawn, weight, _ = gaussians.sample(
        draw, stats, label, classes.modality, options.shrinkage
    )
    own = jnp.full(batch.label.shape, model.modalities.index(batch.modality))
    of_batch, of_draws = (
        routers.loss(params["router"], query, modality, rows, classes, num_modalities)
        for query, modality, rows in (
            (batch.query, own, batch.weight),
            (drawn, classes.modality[label], weight),
        )
    )
    # a batch of padding alone must leave the parameters unchanged
    return jnp.where(jnp.any(batch.weight > 0), of_batch + of_draws, 0.0)


def warm_start(
    model: Model,
    options: Options,
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
    evidence = scores(model, options, params, context, memory["queries"].mean)
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


def fit_router(
    model: Model, options: Options, params: Params, context: Context, key: Key
) -> PyTree:
    """Fits relevance to all queries so far, from their Gaussians alone.

    The temperature is calibrated on draws from the Gaussians: scores grow with every
    class that the router knows, so with an old temperature the weight of the own
    modality would shrink with each task.
    """
    memory, classes = context.memory, context.classes
    stats, num_modalities = memory["queries"], len(model.modalities)
    drawn, own, weight, jitter = routers.pseudo_queries(
        key, stats, classes, options.pseudo_samples, options.shrinkage
    )
    router = {}
    if options.relevance == "discriminant":
        router = routers.fit_discriminant(
            stats, classes, num_modalities, options.shrinkage
        )
    elif options.relevance == "two_stage":
        before = {name: memory["router"][name] for name in ("direction", "offset")}
        router = routers.fit_two_stage(
            before, drawn, own, weight, classes, num_modalities
        )
    fitted = context._replace(memory=memory | {"router": router})
    evidence = scores(model, options, params, fitted, drawn)
    known = (memory["snapshots"] > 0) | memory["active"]
    allowed = known & jnp.asarray(same_tower(model))[own]
    # a modality alone in its tower has weight 1 at every temperature
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
        "jitter": jnp.maximum(jitter, router.get("jitter", 0.0)),
    }
