"""Who shares what is trained: all modalities of a tower, or each has its own group.

`shared`: one group a tower. `per_modality_given`: one group a modality, chosen by the
modality where it is given and by a router where it is not. `per_modality_routed`: the
router chooses always. In training the modality is known. So no method is starved of
modality information, and each can be compared in every variant.

The router is a linear discriminant over all classes met, from the Gaussians of their
frozen queries, which never drift.
"""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax import gaussians, losses, relevance
from mmcl_jax.methods.base import Method
from mmcl_jax.models import Model
from mmcl_jax.options import Sharing
from mmcl_jax.types import Batch, Classes, Context, Key, Memory, Params, Prediction

SHARED, PER_MODALITY_GIVEN, PER_MODALITY_ROUTED = get_args(Sharing)

# of the router's covariance
_SHRINKAGE = 0.01


def num_groups(model: Model, tower: str, sharing: Sharing) -> int:
    """Returns the groups of a tower."""
    return 1 if sharing == SHARED else len(model.members(tower))


def group_weights(
    model: Model, sharing: Sharing, context: Context, batch: Batch
) -> Float[Array, "b g"]:
    """Returns the one-hot choice of a group of the batch's tower for each sample.

    Args:
        model: which modalities the tower has.
        sharing: who shares.
        context: its memory holds the router of `routed`.
        batch: its modality is read in training only.
    """
    rows = batch.label.shape[0]
    if sharing == SHARED:
        return jnp.ones((rows, 1))
    own = model.modalities.index(batch.modality)
    members = np.asarray(model.members(model.tower_of(batch.modality)))
    if context.train:
        return jnp.broadcast_to((members == own) * 1.0, (rows, len(members)))
    scores = router_scores(model, context, batch.query)[:, members]
    group = scores.argmax(-1)
    if sharing == PER_MODALITY_GIVEN:
        met = modalities_met(context.classes, len(model.modalities))
        given = (batch.hint[:, None] == members) & met[members]
        group = jnp.where(given.any(-1), given.argmax(-1), group)
    return jax.nn.one_hot(group, len(members))


def modalities_met(classes: Classes, num_modalities: int) -> Bool[Array, " m"]:
    """Returns which modalities have a seen class."""
    return relevance.modalities_of(classes.seen, classes.modality, num_modalities)


def router_scores(
    model: Model, context: Context, query: Float[Array, "b d"]
) -> Float[Array, "b m"]:
    """Returns log-odds of the modalities met; `losses.MASKED` for the others."""
    router, classes = context.memory["router"], context.classes
    return relevance.modality_scores(
        query,
        router["direction"],
        router["offset"],
        classes.modality,
        classes.seen,
        len(model.modalities),
    )


def routed(method: Method, model: Model, sharing: Sharing) -> Method:
    """Returns `method` with the router in its memory, as `sharing` needs it.

    The wrapped functions must hand on the memory's entry "router" as they find it, by
    returning `context.memory | {...}`.
    """
    if sharing == SHARED:
        return method
    num_modalities = len(model.modalities)

    def init(key: Key, model: Model) -> tuple[Params, Memory]:
        params, memory = method.init(key, model)
        classes, width = model.num_classes, model.spec.embedding
        router: dict[str, Any] = {
            "queries": gaussians.init(classes, num_modalities, width),
            "direction": jnp.zeros((classes, width)),
            "offset": jnp.full(classes, losses.MASKED, jnp.float32),
        }
        return params, memory | {"router": router}

    def prepare(params: Params, context: Context, batch: Batch, key: Key) -> Memory:
        memory = method.prepare(params, context, batch, key)
        queries = gaussians.update(
            memory["router"]["queries"],
            batch.query,
            batch.label,
            batch.weight,
            context.classes.modality,
        )
        return memory | {"router": memory["router"] | {"queries": queries}}

    def begin_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        router, classes = context.memory["router"], context.classes
        prior = relevance.balanced_prior(classes.seen, classes.modality, num_modalities)
        direction, offset = relevance.discriminant(
            router["queries"], classes.seen, prior, _SHRINKAGE
        )
        fitted = router | {"direction": direction, "offset": offset}
        context = context._replace(memory=context.memory | {"router": fitted})
        return method.begin_task(params, context, key)

    def predict(params: Params, context: Context, batch: Batch) -> Prediction:
        prediction = method.predict(params, context, batch)
        return prediction._replace(modality=router_scores(model, context, batch.query))

    return method._replace(
        init=init,
        prepare=prepare,
        begin_task=begin_task,
        predict=predict,
        uses_hint=sharing == PER_MODALITY_GIVEN,
    )
