"""Projections of updates that leave a linear map unchanged on what it has seen."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmcl_jax.ops.losses import Scalar
from mmcl_jax.types import PyTree


def span(moment: Float[Array, "d d"], threshold: Scalar) -> Float[Array, "d d"]:
    """Returns the projector `P = U Uᵀ` on the strong directions of a second moment.

    Args:
        moment: Uncentred second moment `E x xᵀ`, symmetric.
        threshold: Eigenvalue above which an eigenvector is part of U; 0 keeps all that
            are not lost in rounding.

    Returns:
        A symmetric, idempotent matrix; zeros for a moment of zeros.

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
        moments: Stacks of second moments.
        thresholds: Threshold of each stack.

    Returns:
        A tree of stacks of projectors.
    """
    stacks, structure = jax.tree.flatten(moments)
    limits = [
        jnp.full(len(stack), threshold)
        for stack, threshold in zip(stacks, jax.tree.leaves(thresholds), strict=True)
    ]
    # one after another: on CPUs a batched decomposition waits inside the thread pool
    # that it needs itself, so two at a time can deadlock
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
        update: Update G of a map that takes x to `A x`.
        outputs: Projector P' on the span of old outputs.
        inputs: Projector P on the span of old inputs.

    References:
        X. Liu et al., "Continual Multimodal Contrastive Learning", NeurIPS 2025: the
        dual-sided null-space projection of gradients.
    """
    seen = jnp.matmul(outputs, update, precision="highest")
    return update - jnp.matmul(seen, inputs, precision="highest")
