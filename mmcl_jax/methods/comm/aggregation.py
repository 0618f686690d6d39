"""How COMM combines adapters: snapshots within a modality, blends across modalities.

It is arithmetic on stacks of adapters `{tower: [s ...]}` with one slot per modality, so
it is the same for every kind of adapter, and for the context of class names.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mmcl_jax.models.model import Model
from mmcl_jax.ops import relevance
from mmcl_jax.types import Memory, PyTree

Aggregation = Literal["running_mean", "latest"]
Blend = Literal["soft", "residual", "none"]


def by_slot(model: Model, stacks: PyTree, values: Float[Array, " m"]) -> PyTree:
    """Returns `values` of each slot, shaped to broadcast over the stacks' leaves."""

    def spread(leaf: Array, tower: str) -> Array:
        rows = values[_members(model, tower)]
        return rows.reshape(-1, *[1] * (leaf.ndim - 1))

    return {
        tower: jax.tree.map(lambda leaf, tower=tower: spread(leaf, tower), stack)
        for tower, stack in stacks.items()
    }


def _members(model: Model, stack: str) -> np.ndarray:
    """Returns the modality of each slot of a stack.

    A stack that belongs to no tower, the context of class names, has a slot of each.
    """
    return np.asarray(model.members(stack) or range(len(model.modalities)))


def used_adapters(
    model: Model, kind: Aggregation, stacks: PyTree, memory: Memory
) -> PyTree:
    """Returns the adapters in use: anchors `A`, with the active ones mixed in.

    They are `A + share (Θ - A)` where share is `1 / k` in the k-th task of a modality
    (`running_mean` of its snapshots and the current adapter), or 1 (`latest`). A
    modality's first adapter is used as it is.

    Args:
        model: Static facts, such as the modalities of each tower.
        kind: One of the two aggregations.
        stacks: Trained adapters Θ.
        memory: Memory with `anchor`, the number `snapshots [m]`, and `active [m]`.
    """
    active = memory["active"].astype(jnp.float32)
    snapshots = memory["snapshots"].astype(jnp.float32)
    share = active
    if kind == "running_mean":
        share = active / jnp.maximum(snapshots + active, 1)
    # a modality never met has no anchor yet
    share = by_slot(model, stacks, jnp.where(snapshots > 0, share, 1.0))

    def mix(anchor: Array, new: Array, s: Array) -> Array:
        # exact at both ends, where the sum would be rounded
        between = anchor + s * (new - anchor)
        return jnp.where(s == 0, anchor, jnp.where(s == 1, new, between))

    return jax.tree.map(mix, memory["anchor"], stacks, share)


def anchored_adapters(model: Model, stacks: PyTree, memory: Memory) -> PyTree:
    """Returns the adapters as they were in use before the task, without gradient."""
    known = by_slot(model, stacks, (memory["snapshots"] > 0).astype(jnp.float32))
    anchored = jax.tree.map(
        lambda anchor, new, k: jnp.where(k > 0, anchor, new),
        memory["anchor"],
        stacks,
        known,
    )
    return jax.lax.stop_gradient(anchored)


def same_tower(model: Model) -> np.ndarray:
    """Returns which modalities share a tower, `[m m]`."""
    towers = np.asarray(model.towers)
    return towers[:, None] == towers[None, :]


def blend_weights(
    scores: Float[Array, "b m"],
    own: Array,
    allowed: Bool[Array, "b m"],
    kind: Blend,
    temperature: Float[Array, ""],
    residual_share: float,
) -> Float[Array, "b m"]:
    """Returns the weight of each modality's adapter.

    Args:
        scores: Scores of the router.
        own: Modality `[b]` whose adapter a sample would have alone.
        allowed: Mask of the modalities that may take part.
        kind: `soft`: `softmax(scores / T)`; `residual`: weight 1 for the own adapter
            and `residual_share` of the softmax over the others; `none`: `own` alone.
        temperature: Temperature T of the softmax.
        residual_share: Total weight of the others in the residual blend.
    """
    if kind == "none":
        return jax.nn.one_hot(own, scores.shape[1])
    if kind == "residual":
        return relevance.residual_relevance(
            scores, own, allowed, temperature, residual_share
        )
    return relevance.relevance(scores, allowed, temperature)


def warm_started(
    model: Model,
    stacks: PyTree,
    anchor: PyTree,
    mixing: Float[Array, "m m"],
    new: Bool[Array, " m"],
) -> PyTree:
    """Starts each new modality at the blend of those that it resembles.

    Args:
        model: Static facts, such as the modalities of each tower.
        stacks: Trained adapters.
        anchor: Adapters in use of the modalities met.
        mixing: Weights over the anchors for each modality; zeros if it resembles none.
        new: Mask of the modalities that are met for the first time.

    Returns:
        Stacks; a modality that resembles none keeps its random start.
    """
    stacked = {}
    for tower, stack in stacks.items():
        members = _members(model, tower)
        rows = mixing[members][:, members]
        start = new[members] & (rows.sum(-1) > 0.5)
        blended = relevance.blend(rows, anchor[tower])
        stacked[tower] = jax.tree.map(
            lambda old, warm, start=start: jnp.where(
                start.reshape(-1, *[1] * (old.ndim - 1)), warm, old
            ),
            stack,
            blended,
        )
    return stacked
