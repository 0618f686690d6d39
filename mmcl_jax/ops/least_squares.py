"""Ridge regression from streaming sums, in one solve or recursively.

Nothing is approximated: after any number of batches, in any order, the weights are
those of a fit to all samples at once. That makes a linear head on frozen features a
baseline that forgets nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mmcl_jax.ops.gaussians import cholesky_with_jitter
from mmcl_jax.ops.losses import Scalar


class Ridge(NamedTuple):
    """Sufficient statistics of a linear regression.

    Attributes:
        gram: Gram matrix `sum_i w_i x_i x_i^T`.
        cross: Products `sum_i w_i x_i y_i^T`; zero columns for classes not seen.
        count: Total weight `sum_i w_i`.
    """

    gram: Float[Array, "d d"]
    cross: Float[Array, "d C"]
    count: Float[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]


def init(dim: int, num_classes: int, dtype: DTypeLike = jnp.float32) -> Ridge:
    """Returns empty statistics.

    Args:
        dim: Width d of the features.
        num_classes: Targets C of the whole stream; fixed, so nothing has to grow.
        dtype: Data type of all arrays.
    """
    return Ridge(
        gram=jnp.zeros((dim, dim), dtype),
        cross=jnp.zeros((dim, num_classes), dtype),
        count=jnp.zeros((), dtype),
    )


def update(
    stats: Ridge,
    x: Float[Array, "b d"],
    y: Float[Array, "b C"],
    weight: Float[Array, " b"],
) -> Ridge:
    """Adds a batch: `gram += X^T D X`, `cross += X^T D Y` with `D = diag(weight)`.

    Args:
        stats: Statistics so far.
        x: Features [b, d].
        y: Targets [b, C], one-hot for classes.
        weight: Weights [b]; rows of weight 0 change nothing, whatever they hold.

    Returns:
        Statistics of the same shapes and dtypes.
    """
    x, y = _weighted_rows(x, y, weight, stats.gram.dtype)
    return Ridge(
        gram=stats.gram + _matmul(x.T, x),
        cross=stats.cross + _matmul(x.T, y),
        count=stats.count + jnp.sum(jnp.where(weight > 0, weight, 0), dtype=x.dtype),
    )


def solve(
    stats: Ridge, regularization: Scalar
) -> tuple[Float[Array, "d C"], Float[Array, ""]]:
    """Ridge solution `W = (gram + r I)^-1 cross` with `r = regularization`.

    Args:
        stats: Statistics of all samples.
        regularization: Ridge r, at least 0, in units of the Gram matrix. Where it is
            too small for the precision, the smallest sufficient jitter is added.

    Returns:
        W [d, C], with predictions `x W` and zero columns for classes not seen; and the
        jitter, see `gaussians.cholesky_with_jitter`.

    >>> stats = init(2, 2)
    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> W, _ = solve(update(stats, x, jnp.eye(2), jnp.ones(2)), 1.0)
    >>> (10 * W).round(4).tolist()
    [[4.0, 2.0], [-2.0, 4.0]]

    References:
        M. D. McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for
        Continual Learning", NeurIPS 2023, equation (9).
    """
    identity = jnp.eye(stats.gram.shape[0], dtype=stats.gram.dtype)
    factor, jitter = cholesky_with_jitter(stats.gram + regularization * identity)
    return cho_solve((factor, True), stats.cross), jitter


def squared_error(weights: Float[Array, "d C"], stats: Ridge) -> Float[Array, ""]:
    """Returns the mean of `|x W - y|^2` over samples and one-hot targets.

    Args:
        weights: W [d, C].
        stats: Statistics of the samples.
    """
    fit = _matmul(stats.gram, weights) - 2 * stats.cross
    total = jnp.sum(weights * fit) + stats.count
    return total / jnp.maximum(stats.count * weights.shape[1], 1)


def chosen(
    fitted: Ridge, held_out: Ridge, candidates: Float[Array, " n"]
) -> Float[Array, ""]:
    """Returns the ridge whose fit has the least squared error on held-out samples.

    Of equally good ones it is the first. A ridge too small for the precision is not
    chosen: below the rounding error of the Gram matrix, either the equations cannot be
    solved, or the error is one of rounding, and another order of sums gives another.

    Args:
        fitted: Statistics of the samples that are fitted, with one-hot targets.
        held_out: Statistics of those that the error is measured on.
        candidates: Ridges [n] in units of the Gram matrix.

    References:
        M. D. McDonnell et al., RanPAC, 2023, section 4.1.
    """
    identity = jnp.eye(fitted.gram.shape[0], dtype=fitted.gram.dtype)

    def error(ridge: Float[Array, ""]) -> Float[Array, ""]:
        factor = jnp.linalg.cholesky(fitted.gram + ridge * identity)
        return squared_error(cho_solve((factor, True), fitted.cross), held_out)

    # one after another, which bounds the memory of wide features
    errors = jax.lax.map(error, candidates)
    noise = jnp.finfo(fitted.gram.dtype).eps * jnp.trace(fitted.gram)
    sound = jnp.isfinite(errors) & (candidates > noise)
    return candidates[jnp.where(sound, errors, jnp.inf).argmin()]


def recursive_init(
    dim: int,
    num_classes: int,
    regularization: float,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "d d"], Float[Array, "d C"]]:
    """Returns the start of `recursive_update`: `R = I / regularization` and `W = 0`.

    Args:
        dim: Width d of the features.
        num_classes: Targets C of the whole stream.
        regularization: Ridge r, above 0; it is fixed from here on.
        dtype: Data type of both arrays.

    Returns:
        R [d, d] and W [d, C].

    Raises:
        ValueError: `regularization` is not above 0.
    """
    if not regularization > 0:
        raise ValueError(f"regularization={regularization}; expected above 0")
    inverse = jnp.eye(dim, dtype=dtype) / regularization
    return inverse, jnp.zeros((dim, num_classes), dtype)


def recursive_update(
    inverse: Float[Array, "d d"],
    weights: Float[Array, "d C"],
    x: Float[Array, "b d"],
    y: Float[Array, "b C"],
    weight: Float[Array, " b"],
) -> tuple[Float[Array, "d d"], Float[Array, "d C"]]:
    """Recursive least squares: the ridge solution without the sums.

    `R' = R - R X^T (I + X R X^T)^-1 X R` and `W' = W + R' X^T (Y - X W)`, with the new
    inverse R' in the second equation; the old one gives other weights.

    Args:
        inverse: Inverse R = `(gram + r I)^-1` [d, d] of the samples so far.
        weights: Solution W [d, C] of the samples so far.
        x: Features [b, d].
        y: Targets [b, C].
        weight: Weights [b]; rows of weight 0 change nothing, whatever they hold.

    Returns:
        R' and W'.

    References:
        Y. Xu et al., "Advancing Cross-domain Discriminability in Continual Learning of
        Vision-Language Models" (RAIL), NeurIPS 2024, primal form.
        H. Zhuang et al., "ACIL: Analytic Class-Incremental Learning with Absolute
        Memorization and Privacy Protection", NeurIPS 2022.
    """
    x, y = _weighted_rows(x, y, weight, inverse.dtype)
    projected = _matmul(x, inverse)
    inner = jnp.eye(x.shape[0], dtype=x.dtype) + _matmul(projected, x.T)
    gain = cho_solve(cho_factor(inner, lower=True), projected)
    inverse = inverse - _matmul(projected.T, gain)
    # rounding would make R a little less symmetric with every update
    inverse = (inverse + inverse.T) / 2
    error = y - _matmul(x, weights)
    return inverse, weights + _matmul(inverse, _matmul(x.T, error))


def _weighted_rows(x, y, weight, dtype):
    """Returns rows times the root of their weight, which weights every product."""
    # padding may hold NaN, which a weight of 0 would not remove
    used = (weight > 0)[:, None]
    root = jnp.sqrt(jnp.where(weight > 0, weight, 0)).astype(dtype)[:, None]
    x = jnp.where(used, x, 0).astype(dtype) * root
    return x, jnp.where(used, y, 0).astype(dtype) * root


def _matmul(a, b):
    # sums of squares do not survive the shortened float32 of accelerators
    return jnp.matmul(a, b, precision="highest")
