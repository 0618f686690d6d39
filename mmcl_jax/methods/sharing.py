"""Which modalities share trained parameters: all those of a tower, or none.

`shared`: one group per tower. `per_modality_given`: one group per modality, chosen by
the modality where it is given and by a router where it is not. `per_modality_routed`:
the router always chooses. In training the modality is known. So every method has the
same modality information, and each can be compared in every variant.

The router is a linear discriminant over all classes seen, from the Gaussians of their
frozen queries, which never drift.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.methods import router
from mmcl_jax.methods.base import Features, Method, modalities_now
from mmcl_jax.models.adapters import Adapter
from mmcl_jax.models.model import Model
from mmcl_jax.ops import gaussians, rngs
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Params,
    Prediction,
    PyTree,
)

SHARED, PER_MODALITY_GIVEN, _ = get_args(Sharing)


def num_groups(model: Model, tower: str, sharing: Sharing) -> int:
    """Returns the number of groups of a tower."""
    return 1 if sharing == SHARED else len(model.members(tower))


def init_groups(
    key: Key, model: Model, adapter: Adapter, sharing: Sharing, slots_of_group: int = 1
) -> Params:
    """Returns a stack of adapters for each tower.

    Args:
        key: Random key; slots are drawn independently.
        model: Static facts, such as the towers and their shapes.
        adapter: Kind of adapter.
        sharing: Which modalities share a group.
        slots_of_group: Number of adapters of a group, in adjacent slots.
    """
    params = {}
    for tower in dict.fromkeys(model.towers):
        slots = num_groups(model, tower, sharing) * slots_of_group
        spec = model.spec.tower(tower)
        params[tower] = draw_slots(
            rngs.named(key, tower), slots, lambda k, spec=spec: adapter.init(k, spec)
        )
    return params


def draw_slots(key: Key, slots: int, draw: Callable[[Key], PyTree]) -> PyTree:
    """Returns draws `[s ...]`, each by a key that follows from the slot's index alone.

    So a stack that grows starts with the same values as one that is large from the
    start, which `jax.random.split` would not give.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(slots))
    return jax.vmap(draw)(keys)


def group_weights(
    model: Model, sharing: Sharing, context: Context, batch: Batch
) -> Float[Array, "b g"]:
    """Returns the one-hot choice of a group of the batch's tower for each sample.

    Args:
        model: Static facts, such as the modalities of a tower.
        sharing: Which modalities share a group.
        context: Context whose memory holds the router of `routed`.
        batch: Samples whose hint, in training, is their modality; replayed rows may be
            of several modalities that share a shape.
    """
    rows = batch.label.shape[0]
    if sharing == SHARED:
        return jnp.ones((rows, 1))
    members = np.asarray(model.members(model.tower_of(batch.modality)))
    if context.train:
        return (batch.hint[:, None] == members) * 1.0
    scores = router_scores(model, context, batch.query)[:, members]
    group = scores.argmax(-1)
    if sharing == PER_MODALITY_GIVEN:
        met = router.met(context.classes, len(model.modalities))
        given = (batch.hint[:, None] == members) & met[members]
        group = jnp.where(given.any(-1), given.argmax(-1), group)
    return jax.nn.one_hot(group, len(members))


def by_group(
    model: Model, tower: str, sharing: Sharing, modalities: Bool[Array, "*t m"]
) -> Bool[Array, "*t g"]:
    """Returns a mask of the groups of a tower that the given modalities belong to."""
    own = modalities[..., np.asarray(model.members(tower))]
    return own.any(-1, keepdims=True) if sharing == SHARED else own


def trainable_groups(
    model: Model,
    sharing: Sharing,
    context: Context,
    stacks: PyTree,
    slots_of_group: int = 1,
) -> PyTree:
    """Returns 1 for the slots of groups that the stage has samples of, else 0."""
    now = modalities_now(model, context.classes)

    def of_tower(tower: str) -> PyTree:
        groups = by_group(model, tower, sharing, now).astype(jnp.float32)
        return along_slots(stacks[tower], jnp.repeat(groups, slots_of_group))

    return {tower: of_tower(tower) for tower in stacks}


def along_slots(stack: PyTree, free: Float[Array, " s"]) -> PyTree:
    """Returns a value of each slot, shaped to broadcast over the stack's leaves."""
    return jax.tree.map(lambda x: free.reshape(-1, *[1] * (x.ndim - 1)), stack)


def router_scores(
    model: Model, context: Context, query: Float[Array, "b d"]
) -> Float[Array, "b m"]:
    """Returns log-odds of the modalities seen; `losses.MASKED` for the others."""
    return router.scores(
        context.memory["router"], query, context.classes, len(model.modalities)
    )


def routed(method: Method, model: Model, sharing: Sharing) -> Method:
    """Returns `method` with a router in its memory, unless all modalities share.

    The wrapped functions must keep the memory's entry "router", by returning
    `context.memory | {...}`, and read the hint in `group_weights` alone.
    """
    if sharing == SHARED:
        return method
    num_modalities = len(model.modalities)

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, memory = method.init(key, room)
        classes, width = room.classes, model.spec.embedding
        empty: dict[str, Any] = {
            "queries": gaussians.init(classes, num_modalities, width),
            "jitter": jnp.zeros(()),
            **router.init(classes, width),
        }
        return params, memory | {"router": empty}

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
        stats = context.memory["router"]["queries"]
        fitted = {"queries": stats} | router.fit_discriminant(
            stats, context.classes, num_modalities
        )
        context = context._replace(memory=context.memory | {"router": fitted})
        return method.begin_task(params, context, key)

    def predict(
        params: Params, context: Context, batch: Batch, features: Features
    ) -> Prediction:
        prediction = method.predict(params, context, batch, features)
        return prediction._replace(modality=router_scores(model, context, batch.query))

    def hint_matters(
        params: Params, context: Context, batch: Batch
    ) -> Bool[Array, " b"]:
        # the hint only chooses a group, so it matters where the router chooses another
        del params
        unhinted = dataclasses.replace(batch, hint=jnp.full_like(batch.hint, -1))
        given, predicted = (
            group_weights(model, sharing, context, each) for each in (batch, unhinted)
        )
        return (given != predicted).any(-1)

    return method._replace(
        init=init,
        prepare=prepare,
        begin_task=begin_task,
        predict=predict,
        uses_hint=sharing == PER_MODALITY_GIVEN,
        hint_matters=hint_matters,
    )
