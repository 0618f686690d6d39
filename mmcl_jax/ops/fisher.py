"""The diagonal of the Fisher information, from the gradients of single samples."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmcl_jax.types import Params, PyTree

# gradients of single samples that are in memory at a time
_CHUNK = 8


def squared_gradients(
    loss: Callable[[Params, PyTree], Float[Array, ""]],
    params: Params,
    rows: PyTree,
    weight: Float[Array, " b"],
) -> Params:
    """Returns `sum_i w_i (∂ loss(θ, row_i) / ∂θ)²`, entry by entry.

    With `loss = -log p(y_i | x_i)` this is the empirical Fisher information if y_i is
    the given label, and an unbiased estimate of the true one if y_i is drawn from
    `p(. | x_i)`. The square of a batch's mean gradient is neither: it is smaller.

    Args:
        loss: Loss of one row.
        params: Parameters θ.
        rows: Tree of arrays with the rows on the leading axis.
        weight: Weight of each row; rows of weight 0 must have a finite gradient.

    References:
        F. Kunstner, L. Balles, P. Hennig, "Limitations of the Empirical Fisher
        Approximation for Natural Gradient Descent", NeurIPS 2019.
    """
    # divides the batch, so that no rows have to be padded
    chunk = math.gcd(weight.shape[0], _CHUNK)
    chunked = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), (rows, weight))
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))

    def add(total: Params, part: tuple) -> tuple[Params, None]:
        some, w = part
        squares = jax.tree.map(
            lambda t, g: t + jnp.tensordot(w, jnp.square(g), 1),
            total,
            gradients(params, some),
        )
        return squares, None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), chunked)[0]
