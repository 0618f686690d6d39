"""COMM, as we read it: aggregation within and across modalities, and re-alignment.

The paper's text was not at hand: each uncertain part is an option, described in
`CommOptions`, and nothing here claims the paper's numbers.

References:
    Jin & Kim, Continual Learning for Multiple Modalities, arXiv 2503.08064, 2025.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmcl_jax.methods import router as routers
from mmcl_jax.methods.adapted import adapted_features, init_groups
from mmcl_jax.methods.base import (
    LabelSpace,
    Method,
    aligned,
    alignment,
    label_space,
    text_logits,
)
from mmcl_jax.methods.class_context import CLASS_CONTEXT, init_context, with_names
from mmcl_jax.methods.comm.aggregation import anchored_adapters, by_slot, used_adapters
from mmcl_jax.methods.comm.options import CommOptions
from mmcl_jax.methods.comm.realignment import (
    covariance_group,
    group_of,
    num_groups,
    realigned,
)
from mmcl_jax.methods.comm.relevance import (
    fit_router,
    relevance_weights,
    router_loss,
    scores,
    warm_start,
)
from mmcl_jax.methods.sharing import PER_MODALITY_GIVEN
from mmcl_jax.methods.stage_slots import modalities_now
from mmcl_jax.models import Model
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.ops import drift, gaussians, losses, realignment
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

# of the softened probabilities in `distillation`
_TEMPERATURE = 2.0


def comm(
    model: Model,
    adapter: Adapter,
    options: CommOptions,
    train_label_space: LabelSpace,
    class_context: int | None = None,
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

    With `class_context` learnt vectors in front of class names, these are a part of
    `Θ_m`, so that `u_c` of a class of `m` follows from `P̄_m`.
    """
    num_modalities = len(model.modalities)
    joint = options.relevance == "joint"

    def init(key: Key, model: Model) -> tuple[Params, Memory]:
        adapters = init_groups(key, model, adapter, PER_MODALITY_GIVEN)
        if class_context is not None:
            vectors = init_context(model, class_context, num_modalities)
            adapters[CLASS_CONTEXT] = vectors
        classes, width = model.num_classes, model.spec.embedding
        covariances = 1 if options.covariance == "tied" else num_groups(model, options)
        router = routers.init(options.relevance, classes, num_modalities, width)
        calibration = {
            "temperature": jnp.ones(()),
            "jitter": jnp.zeros(()),
            "mean_relevance": jnp.eye(num_modalities),
        }
        memory = {
            "anchor": jax.tree.map(jnp.zeros_like, adapters),
            "snapshots": jnp.zeros(num_modalities, jnp.int32),
            "active": jnp.zeros(num_modalities, bool),
            "support": jnp.zeros((num_modalities, num_modalities), bool),
            "stage": jnp.zeros(classes, jnp.int32),
            "queries": gaussians.init(classes, num_modalities, width),
            "router": calibration if joint else calibration | router,
            "features": gaussians.init(classes, covariances, width),
            "drift": drift.init(classes, width),
            "realignment": realignment.identity(classes, width, model.logit_scale),
            "shift": jnp.zeros((num_modalities, width)),
        }
        return {"adapters": adapters} | ({"router": router} if joint else {}), memory

    def used(params: Params, memory: Memory) -> PyTree:
        rate = options.aggregation_rate
        return used_adapters(
            model, options.aggregation, rate, params["adapters"], memory
        )

    def named(stacks: PyTree, context: Context) -> Context:
        if class_context is None:
            return context
        return with_names(model, stacks[CLASS_CONTEXT], context)

    def features(weights: Array, context: Context, batch: Batch, stacks: PyTree):
        members = np.asarray(model.members(model.tower_of(batch.modality)))
        return adapted_features(
            model, adapter, stacks, weights[:, members], context, batch
        )

    def embed(params: Params, context: Context, batch: Batch) -> Float[Array, "b d"]:
        weights = relevance_weights(model, options, params, context, batch)
        return features(weights, context, batch, used(params, context.memory))

    plain = aligned(model, init, embed, train_label_space)

    def regularization(
        params: Params, context: Context, batch: Batch, weights: Array, z: Array
    ) -> Float[Array, ""]:
        stacks = anchored_adapters(model, params["adapters"], context.memory)
        if options.self_regularization_form == "parameters":
            active = context.memory["active"].astype(jnp.float32)
            share = by_slot(model, stacks, active)
            moved = jax.tree.map(
                lambda new, old, s: jnp.sum(s * jnp.square(new - old)),
                used(params, context.memory),
                stacks,
                share,
            )
            distance = jax.tree.reduce(jnp.add, moved)
            # a batch of nothing but padding moves nothing
            return jnp.where(jnp.any(batch.weight > 0), distance, 0.0)
        own = model.modalities.index(batch.modality)
        has_anchor = context.memory["snapshots"][own] > 0
        # the first task of a modality has no anchor, and is spared the second forward
        reference = jax.lax.cond(
            has_anchor,
            lambda: features(weights, context, batch, stacks),
            lambda: jnp.zeros_like(z),
        )
        if options.self_regularization_form == "cosine":
            distance = losses.cosine_distance(z, reference, batch.weight)
        else:
            teacher, student = (
                text_logits(x, named(each, context).classes, model.logit_scale)
                for x, each in (
                    (reference, stacks),
                    (z, used(params, context.memory)),
                )
            )
            allowed = label_space(context.classes, batch.hint, "modality_seen")
            distance = losses.distillation(
                teacher, student, _TEMPERATURE, allowed, batch.weight
            )
        return jnp.where(has_anchor, distance, 0.0)

    def loss(
        params: Params, context: Context, batch: Batch, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        weights = relevance_weights(model, options, params, context, batch)
        stacks = used(params, context.memory)
        z = features(weights, context, batch, stacks)
        value, metrics = alignment(
            model, z, named(stacks, context), batch, train_label_space
        )
        if joint:
            term = router_loss(model, options, params, context, batch, key)
            value, metrics = value + term, metrics | {"relevance": term}
        if options.self_regularization is None:
            return value, metrics
        distance = regularization(params, context, batch, weights, z)
        return value + options.self_regularization * distance, metrics | {
            "self_regularization": distance
        }

    def predict(params: Params, context: Context, batch: Batch) -> Prediction:
        memory = context.memory
        weights = relevance_weights(model, options, params, context, batch)
        stacks = used(params, memory)
        z = features(weights, context, batch, stacks)
        if options.realignment == "mean_shift":
            share = weights / weights.sum(-1, keepdims=True)
            z = losses.unit_norm(z + share @ memory["shift"])
        classes = named(stacks, context).classes
        if options.realignment == "off":
            logits = text_logits(z, classes, model.logit_scale)
        else:
            logits = realignment.apply(memory["realignment"], z, classes.text)
        return Prediction(logits, scores(model, options, params, context, batch.query))

    def trainable(params: Params, context: Context) -> PyTree:
        active = context.memory["active"].astype(jnp.float32)
        mask = {"adapters": by_slot(model, params["adapters"], active)}
        if joint:
            mask["router"] = jax.tree.map(jnp.ones_like, params["router"])
        return mask

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
        active = modalities_now(model, classes)
        if options.warm_start:
            params = warm_start(model, options, params, context, active)
        known = (memory["snapshots"] > 0) | active
        memory = memory | {
            "active": active,
            "support": jnp.where(active[:, None], known[None, :], memory["support"]),
            "stage": jnp.where(classes.of_task, context.task, memory["stage"]),
        }
        context = context._replace(memory=memory)
        return params, memory | {
            "router": fit_router(model, options, params, context, key)
        }

    def observe(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        del key
        memory, classes = context.memory, context.classes
        weights = relevance_weights(model, options, params, context, batch)
        z = features(weights, context, batch, used(params, memory))
        group = covariance_group(options, group_of(options, memory, context))
        updated: dict[str, Any] = {
            "features": gaussians.update(
                memory["features"], z, batch.label, batch.weight, group
            )
        }
        if options.drift_compensation:
            own = model.modalities.index(batch.modality)
            stacks = anchored_adapters(model, params["adapters"], memory)
            # the first task of a modality moves nothing that is stored
            before = jax.lax.cond(
                memory["snapshots"][own] > 0,
                lambda: features(weights, context, batch, stacks),
                lambda: z,
            )
            updated["drift"] = drift.update(
                memory["drift"],
                memory["features"],
                before,
                z,
                batch.weight,
                (classes.modality == own) & ~classes.of_task,
                options.shrinkage,
            )
        return memory | updated

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        memory = context.memory
        memory = memory | {
            "features": drift.move_means(memory["features"], memory["drift"]),
            "drift": jax.tree.map(jnp.zeros_like, memory["drift"]),
        }
        anchor = used(params, memory)
        context = named(anchor, context._replace(memory=memory))
        if joint:
            # what was trained since then has scores of another size
            fitted = fit_router(model, options, params, context, key)
            memory = memory | {"router": fitted}
        return params, memory | {
            "anchor": anchor,
            "snapshots": memory["snapshots"] + memory["active"],
            "active": jnp.zeros_like(memory["active"]),
            **realigned(model, options, context, key),
        }

    return plain._replace(
        loss=loss,
        predict=predict,
        trainable=trainable,
        prepare=prepare,
        begin_task=begin_task,
        observe=observe,
        end_task=end_task,
        # equal weights of all that were met know nothing of the sample
        uses_hint=(options.blend, options.mix_support) != ("uniform", "seen_now"),
        observes=options.realignment != "off",
    )
