"""COMM, as we read it: aggregation within and across modalities, and re-alignment.

The paper's text was not at hand: each uncertain part is an option, described in
`CommOptions`, and nothing here claims the paper's numbers.

References:
    Jin & Kim, Continual Learning for Multiple Modalities, arXiv 2503.08064, 2025.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax import drift, gaussians, losses, realign, relevance
from mmcl_jax.methods.base import LabelSpace, Method, aligned, alignment
from mmcl_jax.methods.prompted import adapted_features, init_groups
from mmcl_jax.methods.sharing import PER_MODALITY_GIVEN
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.options import Count, Fraction, NonNegative, Share
from mmcl_jax.types import (
    Batch,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    Prediction,
    PyTree,
)


@dataclasses.dataclass(frozen=True)
class CommOptions:
    """What is uncertain in our reading, each a switch.

    Attributes:
        aggregation: which adapter of a modality is used: the `running_mean` of its
            snapshots and the current one, or the `latest`.
        self_regularization: weight of the distance of features to those under the
            modality's adapter before the task; None: off.
        blend: `soft`: adapters of the seen modalities weighted by relevance;
            `residual`: the modality's own whole, the others added; `none`: its own.
        residual_share: weight of the others together in the residual blend.
        self_weight: mean relevance of a sample's own modality that the temperature is
            calibrated to; without it relevance is one-hot and nothing is shared.
        given_route: when the modality is given: `raised`: its score is raised to the
            largest, then blended as usual; `one_hot`: its adapter alone.
        warm_start: whether a new modality starts from those that its queries resemble.
        realignment: `discriminant` analysis mapped to the text space, `regression` on
            the class texts, or `off`.
        realignment_regularization: ridge of its solve, see `realign`.
        realignment_residual: whether the part of the discriminant that the class texts
            cannot express is kept beside it, for classes that were learnt.
        drift_compensation: whether stored class means follow the drift that a task
            causes in the features of its modality, estimated on the task's samples.
        shrinkage: of the covariances towards a multiple of the identity.
        pseudo_queries: draws from each stored Gaussian to calibrate relevance on.
    """

    aggregation: Literal["running_mean", "latest"] = "running_mean"
    self_regularization: NonNegative | None = 1.0
    blend: Literal["soft", "residual", "none"] = "soft"
    residual_share: NonNegative = 0.5
    self_weight: Fraction = 0.7
    given_route: Literal["raised", "one_hot"] = "raised"
    warm_start: bool = True
    realignment: Literal["discriminant", "regression", "off"] = "discriminant"
    realignment_regularization: NonNegative = 1e-4
    realignment_residual: bool = True
    drift_compensation: bool = True
    shrinkage: Share = 0.01
    pseudo_queries: Count = 32


def comm(
    model: Model, adapter: Adapter, options: CommOptions, train_label_space: LabelSpace
) -> Method:
    """Returns our reading of COMM.

    Of each modality `m` it keeps the trained adapter `Θ_m` and the anchor, the mean of
    its snapshots. While the k-th task of `m` is learnt,

        P̄_m = ((k - 1) anchor_m + Θ_m) / k                          within a modality
        P(x) = sum_m w_m(q(x)) P̄_m                                  across modalities
        loss = CE(s z · u_c) + λ (1 - cos(z, z under anchor_m)),

    where the relevance `w` is a discriminant analysis of the frozen query `q(x)` from
    the Gaussians of all queries so far. After the task, the Gaussians of the adapted
    features give the re-alignment of the joint space to the class texts.
    """
    num_modalities = len(model.modalities)

    def init(key: Key, model: Model) -> tuple[Params, Memory]:
        params = init_groups(key, model, adapter, PER_MODALITY_GIVEN)
        classes, width = model.num_classes, model.spec.embedding
        memory = {
            "anchor": jax.tree.map(jnp.zeros_like, params),
            "snapshots": jnp.zeros(num_modalities, jnp.int32),
            "active": jnp.zeros(num_modalities, bool),
            "queries": gaussians.init(classes, num_modalities, width),
            "router": {
                "direction": jnp.zeros((classes, width)),
                "offset": jnp.full(classes, losses.MASKED, jnp.float32),
                "temperature": jnp.ones(()),
            },
            "features": gaussians.init(classes, num_modalities, width),
            "drift": drift.init(classes, width),
            "realignment": realign.identity(classes, width, model.logit_scale),
        }
        return params, memory

    def features(context: Context, batch: Batch, stacks: PyTree) -> Array:
        members = np.asarray(model.members(model.tower_of(batch.modality)))
        weights = _blend_weights(model, options, context, batch)[:, members]
        return adapted_features(model, adapter, stacks, weights, context, batch)

    def embed(params: Params, context: Context, batch: Batch) -> Float[Array, "b d"]:
        stacks = _used(model, options, params, context.memory)
        return features(context, batch, stacks)

    plain = aligned(model, init, embed, train_label_space)

    def loss(
        params: Params, context: Context, batch: Batch, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        del key
        z = embed(params, context, batch)
        value, metrics = alignment(model, z, context, batch, train_label_space)
        if options.self_regularization is None:
            return value, metrics
        # the first task of a modality has no anchor, and is spared the second forward
        own = model.modalities.index(batch.modality)
        has_anchor = context.memory["snapshots"][own] > 0
        stacks = _anchored(model, params, context.memory)
        reference = jax.lax.cond(
            has_anchor,
            lambda: features(context, batch, stacks),
            lambda: jnp.zeros_like(z),
        )
        distance = losses.cosine_distance(z, reference, batch.weight)
        distance = jnp.where(has_anchor, distance, 0.0)
        return value + options.self_regularization * distance, metrics | {
            "self_regularization": distance
        }

    def predict(params: Params, context: Context, batch: Batch) -> Prediction:
        z = embed(params, context, batch)
        logits = realign.apply(context.memory["realignment"], z, context.classes.text)
        return Prediction(logits, _scores(model, context, batch.query))

    def trainable(params: Params, context: Context) -> PyTree:
        return _by_slot(model, params, context.memory["active"].astype(jnp.float32))

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del params, key
        updated = gaussians.update(
            context.memory["queries"],
            batch.query,
            batch.label,
            batch.weight,
            context.classes.modality,
        )
        return context.memory | {"queries": updated}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        memory, classes = context.memory, context.classes
        active = relevance.modalities_of(
            classes.of_task, classes.modality, num_modalities
        )
        if options.warm_start:
            params = _warm_start(model, options, params, context, active)
        router = _fit_router(model, options, context, active, key)
        return params, memory | {"active": active, "router": router}

    def observe(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del key
        memory, classes = context.memory, context.classes
        z = embed(params, context, batch)
        updated: dict[str, Any] = {
            "features": gaussians.update(
                memory["features"], z, batch.label, batch.weight, classes.modality
            )
        }
        if options.drift_compensation:
            own = model.modalities.index(batch.modality)
            stacks = _anchored(model, params, memory)
            # the first task of a modality moves nothing that is stored
            before = jax.lax.cond(
                memory["snapshots"][own] > 0,
                lambda: features(context, batch, stacks),
                lambda: z,
            )
            followers = (classes.modality == own) & ~classes.of_task
            updated["drift"] = drift.update(
                memory["drift"],
                memory["features"],
                before,
                z,
                batch.weight,
                followers,
                options.shrinkage,
            )
        return memory | updated

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        del key
        memory = context.memory
        moved = drift.move_means(memory["features"], memory["drift"])
        memory = memory | {
            "features": moved,
            "drift": jax.tree.map(jnp.zeros_like, memory["drift"]),
        }
        context = context._replace(memory=memory)
        return params, memory | {
            "anchor": _used(model, options, params, memory),
            "snapshots": memory["snapshots"] + memory["active"],
            "active": jnp.zeros_like(memory["active"]),
            "realignment": _realign(model, options, context),
        }

    return plain._replace(
        loss=loss,
        predict=predict,
        trainable=trainable,
        prepare=prepare,
        begin_task=begin_task,
        observe=observe,
        end_task=end_task,
        uses_hint=True,
        observes=options.realignment != "off",
    )


def _by_slot(model: Model, stacks: PyTree, values: Float[Array, " m"]) -> PyTree:
    """Returns `values` of each slot, shaped to broadcast over the stacks' leaves."""

    def spread(leaf: Array, tower: str) -> Array:
        rows = values[np.asarray(model.members(tower))]
        return rows.reshape(-1, *[1] * (leaf.ndim - 1))

    return {
        tower: jax.tree.map(lambda leaf, tower=tower: spread(leaf, tower), stack)
        for tower, stack in stacks.items()
    }


def _used(model: Model, options: CommOptions, params: Params, memory: Memory) -> PyTree:
    """Returns the adapters that are used: anchors, with the active ones mixed in."""
    active = memory["active"].astype(jnp.float32)
    snapshots = memory["snapshots"].astype(jnp.float32)
    if options.aggregation == "latest":
        share = active
    else:
        share = active / jnp.maximum(snapshots + active, 1)
    # a modality never met has no anchor yet
    share = jnp.where(snapshots > 0, share, 1.0)
    share = _by_slot(model, params, share)

    def mix(anchor: Array, new: Array, s: Array) -> Array:
        # exact at both ends, where the sum would round
        between = anchor + s * (new - anchor)
        return jnp.where(s == 0, anchor, jnp.where(s == 1, new, between))

    return jax.tree.map(mix, memory["anchor"], params, share)


def _anchored(model: Model, params: Params, memory: Memory) -> PyTree:
    """Returns the adapters as they were before the task."""
    known = _by_slot(model, params, (memory["snapshots"] > 0).astype(jnp.float32))
    anchored = jax.tree.map(
        lambda anchor, new, k: jnp.where(k > 0, anchor, new),
        memory["anchor"],
        params,
        known,
    )
    return jax.lax.stop_gradient(anchored)


def _known(memory: Memory) -> Bool[Array, " m"]:
    return (memory["snapshots"] > 0) | memory["active"]


def _same_tower(model: Model) -> np.ndarray:
    towers = np.asarray(model.towers)
    return towers[:, None] == towers[None, :]


def _scores(
    model: Model, context: Context, query: Float[Array, "b d"]
) -> Float[Array, "b m"]:
    router, classes = context.memory["router"], context.classes
    return relevance.modality_scores(
        query,
        router["direction"],
        router["offset"],
        classes.modality,
        classes.seen,
        len(model.modalities),
    )


def _blend_weights(
    model: Model, options: CommOptions, context: Context, batch: Batch
) -> Float[Array, "b m"]:
    """Returns the weight of each modality's adapter, among those of the same tower."""
    own_tower = _same_tower(model)[model.modalities.index(batch.modality)]
    if own_tower.sum() == 1:
        return jnp.broadcast_to(own_tower, (len(batch.label), len(own_tower))) * 1.0
    allowed = _known(context.memory) & own_tower
    # before any modality of this tower was met, its untrained adapters serve
    allowed = jnp.where(allowed.any(), allowed, own_tower)
    scores = losses.mask_logits(_scores(model, context, batch.query), allowed)
    own = scores.argmax(-1)
    # soft weights are trained as they are used when no modality is given
    if not context.train or options.blend != "soft":
        given = (batch.hint[:, None] == jnp.arange(scores.shape[1])) & allowed
        raised = jnp.where(given, scores.max(-1, keepdims=True), scores)
        own = jnp.where(given.any(-1), given.argmax(-1), own)
        if options.given_route == "one_hot":
            alone = given | ~given.any(-1, keepdims=True)
            raised = losses.mask_logits(scores, alone)
        scores = raised
    temperature = context.memory["router"]["temperature"]
    if options.blend == "none":
        return jax.nn.one_hot(own, scores.shape[1])
    if options.blend == "residual":
        return relevance.residual_relevance(
            scores, own, allowed, temperature, options.residual_share
        )
    return relevance.relevance(scores, allowed, temperature)


def _warm_start(
    model: Model,
    options: CommOptions,
    params: Params,
    context: Context,
    active: Bool[Array, " m"],
) -> Params:
    """Starts each new modality at the blend of those that its queries resemble.

    The router of the tasks before scores the new classes' mean queries; the mean of
    its weights blends the anchors. A modality without a relative keeps its draw.
    """
    memory, classes = context.memory, context.classes
    before = memory["snapshots"] > 0
    allowed = before & _same_tower(model)
    scores = _scores(model, context, memory["queries"].mean)
    temperature = memory["router"]["temperature"]
    stacked = {}
    for tower, stack in params.items():
        members = np.asarray(model.members(tower))
        means = []
        for m in members:
            rows = classes.of_task & (classes.modality == m)
            weights = relevance.relevance(scores, allowed[m], temperature)
            share = rows / jnp.maximum(rows.sum(), 1)
            means.append(share @ weights[:, members])
        mixing = jnp.stack(means)
        new = active[members] & ~before[members] & (mixing.sum(-1) > 0.5)
        blended = relevance.blend(mixing, memory["anchor"][tower])
        stacked[tower] = jax.tree.map(
            lambda old, warm, new=new: jnp.where(
                new.reshape(-1, *[1] * (old.ndim - 1)), warm, old
            ),
            stack,
            blended,
        )
    return stacked


def _fit_router(
    model: Model,
    options: CommOptions,
    context: Context,
    active: Bool[Array, " m"],
    key: Key,
) -> PyTree:
    """Fits relevance to all queries so far, by their Gaussians alone.

    The temperature is calibrated on draws from the Gaussians, and only when a modality
    is new: with every change of it the blends of all old modalities change.
    """
    memory, classes = context.memory, context.classes
    stats, num_modalities = memory["queries"], len(model.modalities)
    prior = relevance.balanced_prior(classes.seen, classes.modality, num_modalities)
    direction, offset = relevance.discriminant(
        stats, classes.seen, prior, options.shrinkage
    )
    label = jnp.repeat(jnp.arange(model.num_classes), options.pseudo_queries)
    drawn, weight = gaussians.sample(
        key, stats, label, classes.modality, options.shrinkage
    )
    scores = relevance.modality_scores(
        drawn, direction, offset, classes.modality, classes.seen, num_modalities
    )
    own = classes.modality[label]
    known = (memory["snapshots"] > 0) | active
    allowed = known & jnp.asarray(_same_tower(model))[own]
    # a modality alone in its tower has weight 1 at every temperature
    weight = weight * (allowed.sum(-1) > 1)
    temperature, _ = relevance.calibrate_temperature(
        scores, own, allowed, weight, options.self_weight
    )
    is_new = jnp.any(active & (memory["snapshots"] == 0))
    old = memory["router"]["temperature"]
    return {
        "direction": direction,
        "offset": offset,
        "temperature": jnp.where(is_new, temperature, old),
    }


def _realign(
    model: Model, options: CommOptions, context: Context
) -> realign.Realignment:
    if options.realignment == "off":
        return context.memory["realignment"]
    stats, classes = context.memory["features"], context.classes
    prior = (classes.seen & (stats.count > 0)).astype(jnp.float32)
    covariance = gaussians.covariance(stats, options.shrinkage)
    strength = options.realignment_regularization
    if options.realignment == "regression":
        return realign.regression(
            stats.mean, covariance, classes.text, prior, strength, model.logit_scale
        )
    return realign.discriminant(
        stats.mean,
        covariance,
        classes.text,
        prior,
        strength,
        options.realignment_residual,
    )
