"""Layers of a transformer, and what they store for the backward pass.

By default, automatic differentiation stores every intermediate array of an activation,
a layer norm and a softmax, each at least as large as the tokens. In a narrow tower,
writing and reading them costs more than the matrix products. Here an activation and a
layer norm store their inputs, and attention its inputs and probabilities; the rest is
recomputed within the loop that needs it. Without a gradient nothing changes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.types import PyTree

# Blocks are the body of a scan, across which XLA cannot undo the recomputation by
# sharing common subexpressions; so the barriers that would prevent it are not needed.
_storing_inputs = functools.partial(jax.checkpoint, prevent_cse=False)


@_storing_inputs
def quick_gelu(x: Array) -> Array:
    """Returns `x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


@_storing_inputs
def gelu(x: Array) -> Array:
    """Returns the exact GELU, by the error function."""
    return jax.nn.gelu(x, approximate=False)


@_storing_inputs
def gelu_tanh(x: Array) -> Array:
    """Returns the tanh approximation of the GELU, the activation of SigLIP."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": quick_gelu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}


@functools.partial(_storing_inputs, static_argnums=2)
def layer_norm(x: Array, norm: PyTree, epsilon: float) -> Array:
    """Returns the layer norm over the last axis, with statistics in float32."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
    normal = (x32 - mean) * jax.lax.rsqrt(variance + epsilon)
    return (normal * norm["scale"] + norm["bias"]).astype(x.dtype)


@jax.custom_vjp
def attend(
    q: Float[Array, "b n h k"],
    k: Float[Array, "b m h k"],
    v: Float[Array, "b m h k"],
    mask: Bool[Array, "*rows m"] | None,
) -> Float[Array, "b n h k"]:
    """Returns the attention of queries over keys, with the softmax in float32.

    With `P = softmax(s q kᵀ)`, the output `P v` and its gradient g, the gradients are

        dv = Pᵀ g,  dS = s P ⊙ (dP - rowsum(P ⊙ dP)) where dP = g vᵀ,
        dq = dS k,  dk = dSᵀ q.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: Keys that each query sees, at least one; `[n m]` for all samples, or
            `[b 1 1 m]` for all queries of a sample; None: all.

    References:
        Dao et al., FlashAttention, 2022, appendix B.2.
    """
    return _attend_storing(q, k, v, mask)[0]


def _attend_storing(q: Array, k: Array, v: Array, mask: Array | None):
    scores = jnp.einsum("bnhk,bmhk->bhnm", q, k).astype(jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if mask is not None:
        # the lowest finite number, since a row of -inf would become NaN
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    attention = jax.nn.softmax(scores, -1).astype(q.dtype)
    mixed = jnp.einsum("bhnm,bmhk->bnhk", attention, v)
    return mixed, (q, k, v, attention)


def _attend_backward(stored: tuple[Array, ...], gradient: Array):
    q, k, v, attention = stored
    of_values = jnp.einsum("bhnm,bnhk->bmhk", attention, gradient)
    of_attention = jnp.einsum("bnhk,bmhk->bhnm", gradient, v).astype(jnp.float32)
    # masked scores need no mask here: their probability, and so their gradient, is 0
    share = attention.astype(jnp.float32)
    mean = (share * of_attention).sum(-1, keepdims=True)
    of_scores = share * (of_attention - mean) * q.shape[-1] ** -0.5
    of_scores = of_scores.astype(q.dtype)
    of_queries = jnp.einsum("bhnm,bmhk->bnhk", of_scores, k)
    of_keys = jnp.einsum("bhnm,bnhk->bmhk", of_scores, q)
    return of_queries, of_keys, of_values, None


attend.defvjp(_attend_storing, _attend_backward)
