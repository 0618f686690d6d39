"""Linear discriminants of groups of classes, each group with a covariance of its own.

They follow in closed form from streaming Gaussian statistics. The shrinkage follows
from the same statistics, so there is nothing to tune.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.gaussians import Gaussians, cholesky_with_jitter
from mmcl_jax.ops.losses import mask_logits


class Discriminants(NamedTuple):
    """What, with the class means, gives the probabilities of classes.

    Attributes:
        centre: Mean of the class means of each group.
        precision: Inverse of the shrunk within-class covariance of each group.
        offset: Half the squared Mahalanobis distance of each class from the centre.
        jitter: Largest number added to the diagonal of a covariance to invert it.
    """

    centre: Float[Array, "G d"]
    precision: Float[Array, "G d d"]
    offset: Float[Array, " C"]
    jitter: Float[Array, ""]


def init(num_classes: int, num_groups: int, dim: int) -> Discriminants:
    """Returns the discriminants of no class."""
    return Discriminants(
        jnp.zeros((num_groups, dim)),
        jnp.zeros((num_groups, dim, dim)),
        jnp.zeros(num_classes),
        jnp.zeros(()),
    )


def oas_shrinkage(
    scatter: Float[Array, "d d"], count: Float[Array, ""], width: Float[Array, ""]
) -> Float[Array, ""]:
    """Returns the oracle approximating shrinkage of a covariance.

    With `S = scatter / n` over n samples of p dimensions,

        rho = ((1 - 2/p) tr(S^2) + tr(S)^2)
              / ((n + 1 - 2/p) (tr(S^2) - tr(S)^2 / p)),

    at most 1: the weight of `(tr S / p) I`, the rest being that of S, with the least
    expected squared error if the samples are Gaussian.

    Args:
        scatter: Sum of squared deviations.
        count: Number n of samples.
        width: Number p of dimensions that are used; the others are zero.

    >>> scatter = jnp.diag(jnp.array([150.0, 50.0]))
    >>> round(float(oas_shrinkage(scatter, jnp.array(100.0), jnp.array(2.0))), 6)
    0.08

    References:
        Y. Chen, A. Wiesel, Y. C. Eldar, A. O. Hero, "Shrinkage Algorithms for MMSE
        Covariance Estimation", IEEE Transactions on Signal Processing, 2010,
        equation (23).
    """
    covariance = scatter / jnp.maximum(count, 1)
    trace, square = jnp.trace(covariance), jnp.sum(jnp.square(covariance))
    above = (1 - 2 / width) * square + trace**2
    below = (count + 1 - 2 / width) * (square - trace**2 / width)
    # a multiple of the identity needs no shrinkage, and has no ratio
    return jnp.where(above < below, above / jnp.where(below > 0, below, 1), 1.0)


def shrunk_covariance(
    scatter: Float[Array, "d d"],
    count: Float[Array, ""],
    freedom: Float[Array, ""],
    width: Float[Array, ""],
    size: Float[Array, ""],
) -> Float[Array, "d d"]:
    """Returns a covariance under `oas_shrinkage`, the identity where it is unknown.

    Args:
        scatter: Sum of squared deviations from the class means.
        count: Number of samples.
        freedom: Number of samples less the number of their classes.
        width: Number of dimensions that are used; the others get the mean variance.
        size: Largest squared norm of a class mean, which bounds the rounding.
    """
    dim = scatter.shape[-1]
    raw = (scatter + scatter.T) / jnp.where(freedom > 0, 2 * freedom, 1)
    share = oas_shrinkage(scatter, count, width)
    level = jnp.trace(raw) / width
    used = jnp.arange(dim) < width
    isotropic = jnp.diag(jnp.where(used, share, 1.0) * level)
    # copies of one sample leave a scatter of mere rounding, whose inverse is noise
    known = (freedom > 0) & (level * width > jnp.finfo(scatter.dtype).eps * size)
    return jnp.where(known, (1 - share) * raw + isotropic, jnp.eye(dim))


def fit(
    stats: Gaussians,
    class_group: Int[Array, " C"],
    widths: Float[Array, " G"],
    renewed: Bool[Array, " G"],
    before: Discriminants,
) -> Discriminants:
    """Returns the discriminants of the groups whose statistics have changed.

    Args:
        stats: Statistics of all classes; `scatter` has a matrix for each group.
        class_group: Group of each class.
        widths: Number of dimensions that the features of each group have; others are
            zero.
        renewed: Groups to solve; the others stay bitwise as they were.
        before: Discriminants so far.
    """
    known = stats.count > 0

    def solve(group: Int[Array, ""]) -> tuple[Array, Array, Array, Array]:
        own = known & (class_group == group)
        count = jnp.where(own, stats.count, 0)
        covariance = shrunk_covariance(
            stats.scatter[group],
            count.sum(),
            jnp.sum(jnp.maximum(count - 1, 0)),
            widths[group],
            jnp.max(jnp.where(own, jnp.sum(jnp.square(stats.mean), axis=1), 0)),
        )
        factor, jitter = cholesky_with_jitter(covariance)
        precision = cho_solve((factor, True), jnp.eye(len(factor)))
        centre = own @ stats.mean / jnp.maximum(own.sum(), 1)
        away = jnp.where(own[:, None], stats.mean - centre, 0)
        white = jnp.matmul(away, precision, precision="highest")
        return centre, precision, 0.5 * jnp.sum(white * away, axis=1), jitter

    def stay(group: Int[Array, ""]) -> tuple[Array, Array, Array, Array]:
        own = jnp.where(class_group == group, before.offset, 0)
        return before.centre[group], before.precision[group], own, jnp.zeros(())

    # one after another, which bounds the memory of wide features
    centre, precision, offset, jitter = jax.lax.map(
        lambda group: jax.lax.cond(renewed[group], solve, stay, group),
        jnp.arange(len(widths)),
    )
    return Discriminants(centre, precision, offset.sum(0), jitter.max())


def log_probabilities(
    x: Float[Array, "b d"],
    stats: Gaussians,
    discriminants: Discriminants,
    group: int,
    own: Bool[Array, " C"],
) -> Float[Array, "b C"]:
    """Returns `log p(c | x)` among the classes `own` of a group, all equally frequent.

    Features are centred first: a common shift changes no probability, but its size
    would cost digits.
    """
    centre = discriminants.centre[group]
    white = jnp.matmul(x - centre, discriminants.precision[group], precision="highest")
    away = jnp.where(own[:, None], stats.mean - centre, 0)
    logits = jnp.matmul(white, away.T, precision="highest") - discriminants.offset
    return jax.nn.log_softmax(mask_logits(logits, own))
