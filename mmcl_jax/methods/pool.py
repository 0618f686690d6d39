"""The slots of a pool that a sample uses, chosen by its frozen query, row by row.

Slots that a row may not use are masked. A row that may use none gets the first slots,
as they were drawn: its prediction is finite, as if they had been trained too little.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.losses import mask_logits, unit_norm, weighted_mean


def cosines(
    query: Float[Array, "b d"], keys: Float[Array, "s d"]
) -> Float[Array, "b s"]:
    """Returns the cosine of each query with each key.

    >>> keys = jnp.array([[3.0, 0], [0, 2], [-1, 0]])
    >>> cosines(jnp.array([[1.0, 0]]), keys).tolist()
    [[1.0, 0.0, -1.0]]
    """
    return unit_norm(query) @ unit_norm(keys).T


def top_k(
    scores: Float[Array, "b s"], visible: Bool[Array, "b s"], number: int
) -> Int[Array, "b k"]:
    """Returns the `number` visible slots with the largest scores, best first."""
    return jax.lax.top_k(mask_logits(scores, visible), number)[1]


def majority(
    chosen: Int[Array, "b k"], weight: Float[Array, " b"], slots: int
) -> Int[Array, "b k"]:
    """Returns for every row the k slots that most rows of the batch have chosen.

    A prediction then depends on the rest of the batch.
    """
    votes = (jax.nn.one_hot(chosen, slots) * weight[:, None, None]).sum((0, 1))
    return jnp.broadcast_to(jax.lax.top_k(votes, chosen.shape[1])[1], chosen.shape)


def key_distance(
    scores: Float[Array, "b s"], chosen: Int[Array, "b k"], weight: Float[Array, " b"]
) -> Float[Array, ""]:
    """Returns `mean_b sum_k -cos(q_b, key_k)` over the chosen slots.

    Minimised, it pulls the keys towards the queries that chose them.
    """
    own = jnp.take_along_axis(scores, chosen, axis=1)
    return weighted_mean(-own.sum(axis=1), weight)


def soft_attention(
    query: Float[Array, "b d"],
    attention: Float[Array, "s l d"],
    keys: Float[Array, "s l d"],
    visible: Bool[Array, "b s"],
) -> Float[Array, "b l s"]:
    """Returns weights `cos(q ⊙ A_s, K_s)` of components, by layer; 0 if not visible.

    They may be negative, and do not sum to 1.

    References:
        Smith et al., CODA-Prompt, 2023, equation (5).
    """
    # |q ⊙ A|² = q² · A², so that nothing of the size [b s l d] is made
    dot = jnp.einsum("bd,sld->bls", query, attention * unit_norm(keys))
    square = jnp.einsum("bd,sld->bls", query**2, attention**2)
    return jnp.where(
        visible[:, None, :], dot * jax.lax.rsqrt(jnp.maximum(square, 1e-12)), 0.0
    )


def nearest(
    query: Float[Array, "b d"],
    centres: Float[Array, "s k d"],
    visible: Bool[Array, "b s"],
    order: int = 2,
) -> Int[Array, " b"]:
    """Returns the visible slot that holds the nearest centre.

    Args:
        query: Frozen queries [b, d].
        centres: The k centres of each slot [s, k, d].
        visible: Mask of the slots that a row may use [b, s].
        order: Order of the norm, 1 or 2.
    """

    def to_slot(own: Float[Array, "k d"]) -> Float[Array, " b"]:
        distance = jnp.abs(query[:, None, :] - own[None, :, :]) ** order
        return distance.sum(-1).min(-1)

    # slot by slot, so that no array [b, s, k, d] is formed
    distances = jax.lax.map(to_slot, centres).T
    return mask_logits(-distances, visible).argmax(-1)


def most_likely(
    log_density: Float[Array, "b s"], visible: Bool[Array, "b s"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Returns the visible slot of the largest density, and the log of that density.

    A row that may use none has a density of (almost) 0.
    """
    masked = mask_logits(log_density, visible)
    return masked.argmax(-1), masked.max(-1)


def residual_weight(log_density: Float[Array, " b"], width: int) -> Float[Array, " b"]:
    """Returns `sigmoid(log p / d - 1)`: how familiar a sample is.

    References:
        Tang et al., Mind the Interference (DIKI), 2024, section 3.3.
    """
    return jax.nn.sigmoid(log_density / width - 1)
