"""K-means on a masked set of rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.losses import MASKED
from mmcl_jax.types import Key

_ITERATIONS = 25


def fit(
    key: Key, rows: Float[Array, "n d"], used: Bool[Array, " n"], number: int
) -> Float[Array, "k d"]:
    """Returns the centres that k-means finds among the used rows.

    They are seeded by k-means++: each is a row drawn in proportion to its squared
    distance from the nearest centre so far. 25 Lloyd iterations follow. With fewer rows
    than centres, some centres are equal; without any row, all are 0.

    References:
        Arthur & Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007.
    """

    def square_distances(centres: Float[Array, "k d"]) -> Float[Array, "n k"]:
        return jnp.square(rows[:, None, :] - centres[None, :, :]).sum(-1)

    def draw(key: Key, weight: Float[Array, " n"]) -> Float[Array, " d"]:
        # keeps a valid distribution when every used row is a centre already
        chance = jnp.where(used, jnp.log(weight + 1e-12), MASKED)
        return jnp.where(used.any(), rows[jax.random.categorical(key, chance)], 0.0)

    keys = jax.random.split(key, number)
    first = draw(keys[0], jnp.ones(len(rows)))
    centres = jnp.broadcast_to(first, (number, rows.shape[1]))
    for i in range(1, number):
        # centres not drawn yet equal the first one, which changes no minimum
        centres = centres.at[i].set(draw(keys[i], square_distances(centres).min(-1)))

    def move(_: Int[Array, ""], centres: Float[Array, "k d"]) -> Float[Array, "k d"]:
        own = square_distances(centres).argmin(-1)
        member = jax.nn.one_hot(own, number) * used[:, None]
        count = member.sum(0)[:, None]
        mean = member.T @ rows / jnp.maximum(count, 1)
        # an empty cluster keeps its centre
        return jnp.where(count > 0, mean, centres)

    return jax.lax.fori_loop(0, _ITERATIONS, move, centres)
