"""Stored class means that follow the drift of their features."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.ops.gaussians import Gaussians, covariance

# see gaussians.py: second moments do not survive shortened multiplication
_einsum = partial(jnp.einsum, precision="highest")


class Drift(NamedTuple):
    """How far features have moved near each class mean.

    Attributes:
        total: Sum of kernel-weighted displacements.
        weight: Sum of the kernel weights.
    """

    total: Float[Array, "C d"]
    weight: Float[Array, " C"]


def init(num_classes: int, dim: int) -> Drift:
    """Returns the drift before any batch: zeros."""
    return Drift(jnp.zeros((num_classes, dim)), jnp.zeros(num_classes))


def update(
    drift: Drift,
    stats: Gaussians,
    before: Float[Array, "b d"],
    after: Float[Array, "b d"],
    weight: Float[Array, " b"],
    followers: Bool[Array, " C"],
    shrinkage: float | Float[Array, ""],
) -> Drift:
    """Adds the displacements of a batch, each to the class means nearby.

    `total_c += sum_b k_bc (after_b - before_b)` and `weight_c += sum_b k_bc` with
    `k_bc = exp(-(|before_b - mean_c|^2 - |before_b - nearest mean|^2) / 2 s^2)`, where
    `s^2` is the trace of the pooled covariance: the mean squared distance of a feature
    from its own mean.

    Deviation: the paper tunes the kernel's width and lets rows that are far from all
    means fade; here the width follows from the data and every row has a kernel of 1 at
    its nearest mean, since the samples of a new task are far from all of them.

    Args:
        drift: Displacements so far.
        stats: Stored means and scatter, from before the task.
        before: Features [b, d] from before the task.
        after: Features [b, d] of the same rows now.
        weight: Weights [b]; rows of weight 0 change nothing, whatever they hold.
        followers: Classes [C] whose means follow the drift.
        shrinkage: Shrinkage of the covariance.

    Returns:
        Drift of the same shapes.

    References:
        L. Yu et al., "Semantic Drift Compensation for Class-Incremental Learning",
        CVPR 2020, equations (7)-(9).
    """
    used = (weight > 0)[:, None]
    before, after = jnp.where(used, before, 0), jnp.where(used, after, 0)
    near = (followers & (stats.count > 0))[None, :]
    offset = before[:, None, :] - stats.mean[None, :, :]
    square = jnp.sum(jnp.square(offset), axis=-1)
    nearest = jnp.min(jnp.where(near, square, jnp.inf), axis=-1, keepdims=True)
    # without a mean nearby `nearest` is inf, which must not reach the exponential
    excess = jnp.where(near, square - nearest, 0)
    width = jnp.trace(covariance(stats, shrinkage))
    kernel = jnp.where(near, jnp.exp(-excess / (2 * width)), 0)
    kernel = kernel * jnp.where(used, weight[:, None], 0)
    return Drift(
        drift.total + _einsum("bc,bd->cd", kernel, after - before),
        drift.weight + jnp.sum(kernel, axis=0),
    )


def move_means(stats: Gaussians, drift: Drift) -> Gaussians:
    """Returns statistics whose means have moved by their mean displacement."""
    weight = drift.weight[:, None]
    shift = jnp.where(weight > 0, drift.total / jnp.where(weight > 0, weight, 1), 0)
    return stats._replace(mean=stats.mean + shift)
