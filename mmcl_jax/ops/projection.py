"""Updates that leave a linear map as it is on what it has seen."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmcl_jax.ops.losses import Scalar
from mmcl_jax.types import PyTree


def span(moment: Float[Array, "d d"], threshold: Scalar) -> Float[Array, "d d"]:
    """Returns the projector `P = U Uᵀ` on the strong directions of a second moment.

    Args:
        moment: uncentred second moment `E x xᵀ`, symmetric.
        threshold: eigenvectors U of eigenvalues above it count; 0: all that are not
            lost in rounding.

    Returns:
        A symmetric, idempotent matrix; zeros for a moment of nothing.

    >>> span(jnp.diag(jnp.array([0.5, 0.0])), 0.1).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    values, vectors = jnp.linalg.eigh(moment)
    rounding = len(moment) * jnp.finfo(moment.dtype).eps * jnp.max(jnp.abs(values))
    kept = vectors * (values > jnp.maximum(threshold, rounding))
    return jnp.matmul(kept, kept.T, precision="highest")


def spans(moments: PyTree, thresholds: PyTree) -> PyTree:
    """Returns `span` of every matrix in a tree of stacks `[g d d]`.

    Args:
        moments: the stacks.
        thresholds: one for each stack.

    Returns:
        A tree of stacks of projectors.
    """
    stacks, structure = jax.tree.flatten(moments)
    limits = [
        jnp.full(len(stack), threshold)
        for stack, threshold in zip(stacks, jax.tree.leaves(thresholds), strict=True)
    ]
    # one after another: on CPUs each batched decomposition waits inside the pool of
    # threads that it needs, and two at a time can wait for ever
    projectors = jax.lax.map(
        lambda part: span(*part), (jnp.concatenate(stacks), jnp.concatenate(limits))
    )
    ends = np.cumsum([len(stack) for stack in stacks])[:-1]
    return structure.unflatten(jnp.split(projectors, ends))


def outside(
    update: Float[Array, "o i"],
    outputs: Float[Array, "o o"],
    inputs: Float[Array, "i i"],
) -> Float[Array, "o i"]:
    """Returns `G - P' G P`, the part of an update that old pairs do not see.

    For x in the span of P and y in that of P', `yᵀ (G - P' G P) x = 0`.

    Args:
        update: G, of a map that takes x to `A x`.
        outputs: projector P'.
        inputs: projector P.

    References:
        X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS 2025: the
        dual-sided null-space projection of gradients.
    """
    seen = jnp.matmul(outputs, update, precision="highest")
    return update - jnp.matmul(seen, inputs, precision="highest")
