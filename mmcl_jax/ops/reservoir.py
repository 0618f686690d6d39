"""A fixed number of samples of a stream, each kept with the same probability.

Each sample draws a number, and the samples with the largest numbers stay. So the buffer
does not depend on how the stream is cut into batches, needs no counter, and an empty
slot is one with a negative number.

References:
    J. S. Vitter, "Random Sampling with a Reservoir", 1985: the same distribution.
    P. S. Efraimidis, P. G. Spirakis, "Weighted random sampling with a reservoir", 2006:
    this form, with equal weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.types import Key, PyTree

_EMPTY = -1.0


class Reservoir(NamedTuple):
    """The samples that are kept.

    Attributes:
        rows: Tree of arrays with the k slots on the leading axis; empty ones are zero.
        priority: Uniform draw of each sample; -1 in empty slots.
    """

    rows: PyTree
    priority: Float[Array, " k"]


def row_bytes(shapes: PyTree) -> int:
    """Returns the bytes of a slot, with a `ShapeDtypeStruct` for each column.

    >>> row_bytes({"label": jax.ShapeDtypeStruct((), jnp.int32)})
    8
    """
    priority = jax.ShapeDtypeStruct((), jnp.float32)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((shapes, priority)))


def init(capacity: int, shapes: PyTree) -> Reservoir:
    """Returns empty slots for rows of the given shapes."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), shapes)
    return Reservoir(rows, jnp.full(capacity, _EMPTY, jnp.float32))


def add(
    reservoir: Reservoir,
    rows: PyTree,
    weight: Float[Array, " b"],
    id: Int[Array, " b"],
    key: Key,
) -> Reservoir:
    """Offers a batch; of n samples in all, each is kept with probability `min(1, k/n)`.

    Args:
        reservoir: Reservoir of k slots.
        rows: Tree like `reservoir.rows`, to whose dtypes it is cast.
        weight: Weights; rows of weight 0 are not offered.
        id: Id of each sample, unique among those offered under this key.
        key: Random key; it decides together with `id`, not with a row's place.
    """
    # keyed by id, so that a sample draws the same number in any batch or resumed run
    draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(id)
    offered = jnp.where(weight > 0, draw, _EMPTY)
    # top_k is stable: of equal priorities the stored slot wins over padding
    priority, kept = jax.lax.top_k(
        jnp.concatenate([reservoir.priority, offered]), len(reservoir.priority)
    )
    joined = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new.astype(old.dtype)])[kept],
        reservoir.rows,
        rows,
    )
    return Reservoir(joined, priority)


def remove(reservoir: Reservoir, dropped: Bool[Array, " k"]) -> Reservoir:
    """Returns a reservoir without some of its samples, whose slots become empty."""
    priority = jnp.where(dropped, _EMPTY, reservoir.priority)
    # the slots stay in the order of their numbers
    priority, order = jax.lax.top_k(priority, len(priority))

    def of_column(values: Array) -> Array:
        empty = (priority < 0).reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(empty, jnp.zeros_like(values), values[order])

    return Reservoir(jax.tree.map(of_column, reservoir.rows), priority)


def draw(
    reservoir: Reservoir, key: Key, number: int
) -> tuple[PyTree, Float[Array, " n"]]:
    """Draws samples without replacement.

    Returns:
        `min(number, k)` rows, and their weights: 0 for those from empty slots.
    """
    size = min(number, len(reservoir.priority))
    lots = jax.random.uniform(key, reservoir.priority.shape)
    lots, chosen = jax.lax.top_k(jnp.where(reservoir.priority >= 0, lots, _EMPTY), size)
    return jax.tree.map(lambda x: x[chosen], reservoir.rows), (lots >= 0) * 1.0
