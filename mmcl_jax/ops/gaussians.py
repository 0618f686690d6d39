"""Streaming Gaussian statistics: a mean per class, a scatter per group of classes.

A group ties the covariance of its classes: usually there is one group per modality or
per task; `class_group = arange(C)` gives each class its own covariance. The memory is
fixed for the whole stream.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from mmcl_jax.ops.losses import MASKED, Scalar, unit_norm
from mmcl_jax.types import Key

# Accelerators multiply float32 in shortened formats unless told otherwise; second
# moments do not survive that.
_einsum = partial(jnp.einsum, precision="highest")


class Gaussians(NamedTuple):
    """Sufficient statistics of Gaussian classes with tied covariances.

    Attributes:
        count: Sum of the weights of each class.
        mean: Mean of each class, 0 for a class without samples.
        scatter: Sum over each group's classes and their samples of
            `(x_i - mean_c)(x_i - mean_c)^T`.
    """

    count: Float[Array, " C"]  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Float[Array, "C d"]
    scatter: Float[Array, "G d d"]


ClassGroup = Int[Array, " C"] | Int[Array, ""] | int


def init(
    num_classes: int, num_groups: int, dim: int, dtype: DTypeLike = jnp.float32
) -> Gaussians:
    """Returns empty statistics.

    Args:
        num_classes: Class slots C of the whole stream.
        num_groups: Number G of groups, each with one covariance.
        dim: Width d of the features.
        dtype: Data type of all three arrays.
    """
    return Gaussians(
        jnp.zeros(num_classes, dtype),
        jnp.zeros((num_classes, dim), dtype),
        jnp.zeros((num_groups, dim, dim), dtype),
    )


def update(
    stats: Gaussians,
    features: Float[Array, "b d"],
    label: Int[Array, " b"],
    weight: Float[Array, " b"],
    class_group: ClassGroup,
) -> Gaussians:
    """Adds a batch; any order and any division into batches gives the same result.

    With `n_a`, `mean_a` stored and `n_b`, `mean_b` of the batch, for each class:
    `delta = mean_b - mean_a`, `mean = mean_a + delta n_b / n`,
    `S = S_a + S_b + delta delta^T n_a n_b / n`.

    Args:
        stats: Statistics so far.
        features: Features [b, d].
        label: Class [b]; a label outside 0..C-1 is ignored.
        weight: Weights [b]; rows of weight 0 change nothing, whatever they hold.
        class_group: Group of each class [C], or one group for the whole batch. When a
            class changes its group, only the sum over groups stays exact.

    >>> x = jnp.array([[1.0, 2], [3, 4], [5, 9]])
    >>> zero, one = jnp.zeros(3, int), jnp.ones(3)
    >>> stats = update(init(1, 1, 2), x, zero, one, 0)
    >>> stats.mean.tolist(), stats.scatter[0].tolist()
    ([[3.0, 5.0]], [[8.0, 14.0], [14.0, 26.0]])

    References:
        T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise
        Algorithm for Computing Sample Variances", 1979, equations (2.1).
    """
    dtype = stats.mean.dtype
    num_classes = stats.count.shape[0]
    class_group = jnp.broadcast_to(class_group, (num_classes,))
    weight = jnp.where(weight > 0, weight, 0).astype(dtype)
    # a label out of range has a row of zeros here, and so no weight
    member = jax.nn.one_hot(label, num_classes, dtype=dtype) * weight[:, None]
    weight = jnp.sum(member, axis=-1)
    x = jnp.where(weight[:, None] > 0, features, 0).astype(dtype)
    label = jnp.clip(label, 0, num_classes - 1)

    added = jnp.sum(member, axis=0)
    count = stats.count + added
    batch_mean = _einsum("bc,bd->cd", _divide(member, added[None, :]), x)
    delta = batch_mean - stats.mean
    # (x - mean_b) sums to zero in each class, so the cross terms with delta vanish and
    # b rows carry both the batch's scatter and the correction.
    root = jnp.sqrt(_divide(stats.count, count))[:, None]
    row = x - (batch_mean - root * delta)[label]
    scatter = _scatter(row, weight, class_group[label], stats.scatter)
    mean = stats.mean + _divide(added, count)[:, None] * delta
    return Gaussians(count, mean, scatter)


def merged(
    stats: Gaussians, added: Gaussians, group: Int[Array, ""] | int
) -> Gaussians:
    """Returns the statistics of both, as if all samples had been given to `update`.

    Args:
        stats: Statistics of all groups.
        added: Statistics of more samples of the same class slots, with one scatter.
        group: Group of `stats` that the classes of `added` belong to.
    """
    count = stats.count + added.count
    delta = added.mean - stats.mean
    mean = stats.mean + _divide(added.count, count)[:, None] * delta
    shared = _divide(stats.count * added.count, count)
    scatter = added.scatter[0] + _einsum("c,cd,ce->de", shared, delta, delta)
    return Gaussians(count, mean, stats.scatter.at[group].add(scatter))


def covariance(stats: Gaussians, shrinkage: Scalar) -> Float[Array, "d d"]:
    """Pooled, unbiased within-class covariance, shrunk towards a scaled identity.

    `S = sum_g scatter_g / sum_c (count_c - 1)` and
    `(1 - shrinkage) S + shrinkage (tr S / d) I`, which has the trace of S.

    Args:
        stats: Statistics, all of whose groups are pooled.
        shrinkage: Shrinkage between 0 and 1; 1 gives an isotropic covariance.

    Returns:
        Symmetric matrix [d, d]; `I / d` while the spread is unknown (no sample, one per
        class, or copies): trace 1, the largest that unit-norm features can have.

    References:
        O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional
        covariance matrices", 2004.
    """
    freedom = jnp.sum(jnp.maximum(stats.count - 1, 0))
    return _shrink(jnp.sum(stats.scatter, axis=0), freedom, stats.mean, shrinkage)


def group_covariances(
    stats: Gaussians, shrinkage: Scalar, class_group: ClassGroup
) -> Float[Array, "G d d"]:
    """Returns the `covariance` of each group by itself: matrices [G, d, d]."""
    class_group = jnp.broadcast_to(class_group, stats.count.shape)
    freedom = jax.ops.segment_sum(
        jnp.maximum(stats.count - 1, 0), class_group, stats.scatter.shape[0]
    )
    shrink = jax.vmap(_shrink, in_axes=(0, 0, None, None))
    return shrink(stats.scatter, freedom, stats.mean, shrinkage)


def cholesky_with_jitter(
    matrix: Float[Array, "d d"],
) -> tuple[Float[Array, "d d"], Float[Array, ""]]:
    """Returns the Cholesky factor of a matrix that may be singular.

    Adds 0, then 1e-6 up to 1e-2 times the mean of the diagonal to the diagonal, until
    the factor is finite and no pivot is lost in rounding.

    Args:
        matrix: Symmetric, positive semi-definite matrix [d, d].

    Returns:
        The lower factor L, and the jitter j: `L L^T = matrix + j I`; NaN if the matrix
        is far from semi-definite.

    >>> factor, jitter = cholesky_with_jitter(jnp.ones((2, 2)))
    >>> bool(jnp.all(jnp.isfinite(factor))), round(float(jitter), 8)
    (True, 1e-06)
    """
    mean_diagonal = jnp.trace(matrix) / matrix.shape[0]
    scale = jnp.where(mean_diagonal > 0, mean_diagonal, 1)
    jitters = scale * jnp.array([0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2], matrix.dtype)
    lowest = scale * jnp.finfo(matrix.dtype).eps

    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)

    def failed(state):
        level, factor = state
        # `good` is False for NaN, and for pivots so small that the inverse is noise
        good = jnp.all(jnp.square(jnp.diagonal(factor)) > lowest)
        return ~good & (level < len(jitters) - 1)

    def escalate(state):
        level = state[0] + 1
        return level, jnp.linalg.cholesky(matrix + jitters[level] * identity)

    # a loop, since nearly every matrix is solved at the first level, without jitter
    start = jnp.asarray(-1), jnp.full_like(matrix, jnp.nan)
    level, factor = jax.lax.while_loop(failed, escalate, start)
    return factor, jitters[level]


def sample(
    key: Key,
    stats: Gaussians,
    label: Int[Array, " n"],
    class_group: ClassGroup,
    shrinkage: Scalar,
    normalize: bool = True,
) -> tuple[Float[Array, "n d"], Float[Array, " n"], Float[Array, ""]]:
    """Draws pseudo-features `mean_c + L_g eps` with `L_g L_g^T` the group's covariance.

    Args:
        key: Random key.
        stats: Statistics of all classes.
        label: Class [n] of each draw; repeat a class for more draws of it.
        class_group: Group of each class [C].
        shrinkage: Shrinkage of the covariances, between 0 and 1.
        normalize: Whether draws are scaled to unit norm, as features are.

    Returns:
        Features [n, d]; weights [n], 0 where the class has no sample, else 1; and the
        largest jitter of a covariance.
    """
    class_group = jnp.broadcast_to(class_group, stats.count.shape)
    matrices = group_covariances(stats, shrinkage, class_group)
    factors, jitters = jax.vmap(cholesky_with_jitter)(matrices)
    mean = stats.mean[label]
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    member = jax.nn.one_hot(class_group[label], len(factors), dtype=mean.dtype)

    def of_group(spread: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        factor, own = part
        return spread + own[:, None] * _einsum("ne,de->nd", noise, factor), None

    # group by group, where a gather would make factors [n, d, d]
    spread, _ = jax.lax.scan(of_group, jnp.zeros_like(mean), (factors, member.T))
    features = unit_norm(mean + spread) if normalize else mean + spread
    return features, (stats.count[label] > 0).astype(mean.dtype), jitters.max()


class Densities(NamedTuple):
    """Gaussians with a covariance each, factorised once and evaluated often.

    Attributes:
        mean: Mean of each class.
        whitening: Inverse of the lower Cholesky factor of each covariance.
        peak: Log density at the mean; `losses.MASKED` for a class without samples.
    """

    mean: Float[Array, "C d"]
    whitening: Float[Array, "C d d"]
    peak: Float[Array, " C"]


def no_densities(num_classes: int, dim: int) -> Densities:
    """Returns the densities of classes without samples."""
    return Densities(
        jnp.zeros((num_classes, dim)),
        jnp.zeros((num_classes, dim, dim)),
        # an explicit type: JAX's weak one would not survive a snapshot
        jnp.full(num_classes, MASKED, jnp.float32),
    )


def densities(
    stats: Gaussians, class_group: ClassGroup, shrinkage: Scalar
) -> tuple[Densities, Float[Array, ""]]:
    """Returns the densities of Gaussians, and the largest jitter of a covariance.

    Args:
        stats: Statistics of all classes.
        class_group: Group of each class [C].
        shrinkage: Shrinkage of the covariances, between 0 and 1.
    """
    class_group = jnp.broadcast_to(class_group, stats.count.shape)
    matrices = group_covariances(stats, shrinkage, class_group)
    factors, jitters = jax.vmap(cholesky_with_jitter)(matrices)
    identity = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    inverses = jax.vmap(lambda f: solve_triangular(f, identity, lower=True))(factors)
    # log|L^-1| = -log|S| / 2
    spread = jnp.sum(jnp.log(jnp.diagonal(inverses, axis1=-2, axis2=-1)), axis=-1)
    peak = spread - 0.5 * matrices.shape[-1] * jnp.log(2 * jnp.pi)
    peak = jnp.where(stats.count > 0, peak[class_group], MASKED)
    return Densities(stats.mean, inverses[class_group], peak), jitters.max()


def log_density(
    densities: Densities, features: Float[Array, "b d"]
) -> Float[Array, "b C"]:
    """Returns the log density of each feature under each class.

    `-(d log 2 pi + log|S_c| + (x - mean_c)^T S_c^-1 (x - mean_c)) / 2`.

    Args:
        densities: Densities of the classes.
        features: Features [b, d].

    Returns:
        Log densities [b, C]; `losses.MASKED` for classes without samples.
    """
    known = densities.peak > MASKED
    x = features.astype(densities.mean.dtype)
    offset = x[:, None, :] - densities.mean[None, :, :]
    white = _einsum("bcd,ced->bce", offset, densities.whitening)
    density = densities.peak - 0.5 * jnp.sum(jnp.square(white), axis=-1)
    return jnp.where(known, density, MASKED)


def _divide(a, b):
    """Returns `a / b`, with a finite value and gradient where b is 0."""
    return a / jnp.where(b > 0, b, 1)


def _scatter(row, weight, group, scatter):
    """Adds `weight_i row_i row_i^T` to the matrix of each row's group."""
    group = jax.nn.one_hot(group, scatter.shape[0], dtype=row.dtype)
    weighted = (group * weight[:, None])[:, :, None] * row[:, None, :]
    return scatter + _einsum("bgd,be->gde", weighted, row)


def _shrink(scatter, freedom, mean, shrinkage):
    dim = scatter.shape[-1]
    isotropic = jnp.eye(dim, dtype=scatter.dtype) / dim
    raw = _divide(scatter + scatter.T, 2 * freedom)
    trace = jnp.trace(raw)
    # Copies of one sample leave a scatter of mere rounding; its inverse is noise.
    rounding = jnp.finfo(scatter.dtype).eps * jnp.max(jnp.sum(mean**2, axis=-1))
    shrunk = (1 - shrinkage) * raw + shrinkage * trace * isotropic
    return jnp.where(trace > rounding, shrunk, isotropic)
