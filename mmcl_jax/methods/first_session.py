"""Adapters that are tuned on the first task that they meet, and frozen from then on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.fields import Sharing
from mmcl_jax.methods.base import Features, Method, Pass, modalities_now
from mmcl_jax.methods.sharing import along_slots, by_group
from mmcl_jax.models.model import Model
from mmcl_jax.types import (
    Batch,
    Capacity,
    Context,
    Key,
    Memory,
    Metrics,
    Params,
    PyTree,
)


def with_first_session(
    head: Method, tuned: Method, model: Model, sharing: Sharing
) -> Method:
    """Returns a head on features of adapters that were tuned in their first session.

    A group of modalities that share an adapter tunes it in the first stage that has
    samples of the group; later stages skip the pass and change nothing. So features
    never drift, and what the head has accumulated stays valid.

    Published for streams of one modality. Here each modality has its own first session,
    if it has an adapter of its own, so that none is favoured.

    Args:
        head: Method that trains nothing. It gets the features of one pass through the
            tower in `observe` and `predict`.
        tuned: Method that tunes the adapters, as `sequential`: its params are those of
            `sharing.init_groups`.
        model: The frozen encoder.
        sharing: Which modalities share an adapter.

    References:
        A. Panos et al., "First Session Adaptation: A Strong Replay-Free Baseline for
        Class-Incremental Learning", ICCV 2023.
    """

    def init(key: Key, room: Capacity) -> tuple[Params, Memory]:
        params, _ = tuned.init(key, room)
        _, memory = head.init(key, room)
        return params, memory | {"tuned": jnp.zeros(len(model.modalities), bool)}

    def due(context: Context, tower: str) -> Bool[Array, " g"]:
        """Returns the groups of a tower whose first session is this stage."""
        now, before = (
            by_group(model, tower, sharing, modalities)
            for modalities in (
                modalities_now(model, context.classes),
                context.memory["tuned"],
            )
        )
        return now & ~before

    def trainable(params: Params, context: Context) -> PyTree:
        return {
            tower: along_slots(stack, due(context, tower).astype(jnp.float32))
            for tower, stack in params.items()
        }

    def inject(params: Params, context: Context, batch: Batch) -> tuple[Pass, ...]:
        (own,) = tuned.inject(params, context, batch)
        if context.phase == "train":
            own = own._replace(when=due(context, model.tower_of(batch.modality)).any())
        return (own,)

    def loss(
        params: Params, context: Context, batch: Batch, features: Features, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        first = due(context, model.tower_of(batch.modality)).any()
        told = tuned.loss(params, context, batch, features, key)
        return jax.tree.map(lambda x: jnp.where(first, x, jnp.zeros_like(x)), told)

    def end_task(params: Params, context: Context, key: Key) -> tuple[Params, Memory]:
        params, memory = head.end_task(params, context, key)
        now = modalities_now(model, context.classes)
        return params, memory | {"tuned": memory["tuned"] | now}

    return head._replace(
        init=init,
        trainable=trainable,
        inject=inject,
        loss=loss,
        end_task=end_task,
        trains=True,
        needs_inputs=True,
        uses_hint=tuned.uses_hint,
        hint_matters=tuned.hint_matters,
    )
