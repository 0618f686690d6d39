"""Stored Gaussians that follow the drift of their features.

While a task is trained, features of earlier classes move as well, and nothing of these
classes is left but their statistics. The task's own samples show where: each of them
has a feature from before and one from after. The linear map between the two, fitted by
ridge regression, is applied to the stored means and scatters.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmcl_jax.ops.gaussians import Gaussians

_matmul = partial(jnp.matmul, precision="highest")

# ridges that are tried, relative to the mean variance of a dimension
_RIDGES = tuple(float(ridge) for ridge in np.logspace(-4, 2, 25))


class Moves(NamedTuple):
    """Centred moments of features before a task and of their displacements.

    Attributes:
        count: Sum of weights.
        before: Mean feature before.
        shift: Mean displacement.
        gram: `sum (B - before)^T (B - before)`.
        cross: `sum (B - before)^T (D - shift)` with D the displacements.
        energy: `sum |D - shift|^2`.
    """

    count: Float[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    before: Float[Array, " d"]
    shift: Float[Array, " d"]
    gram: Float[Array, "d d"]
    cross: Float[Array, "d d"]
    energy: Float[Array, ""]


def init(dim: int) -> Moves:
    """Returns the moments of no sample."""
    none, row, matrix = jnp.zeros(()), jnp.zeros(dim), jnp.zeros((dim, dim))
    return Moves(none, row, row, matrix, matrix, none)


def update(
    moves: Moves,
    before: Float[Array, "b d"],
    after: Float[Array, "b d"],
    weight: Float[Array, " b"],
) -> Moves:
    """Adds a batch; any division into batches gives the same result.

    Args:
        moves: Moments so far.
        before: Features from before the task.
        after: Features of the same rows now.
        weight: Weights; rows of weight 0 change nothing, whatever they hold.
    """
    used = (weight > 0)[:, None]
    moved = jnp.where(used, after - before, 0)
    before = jnp.where(used, before, 0)
    added = weight.sum()
    count = moves.count + added
    some = jnp.where(added > 0, added, 1)
    mean, shift = weight @ before / some, weight @ moved / some
    # the two groups of rows are merged as in `gaussians.update`
    from_mean, from_shift = mean - moves.before, shift - moves.shift
    share = moves.count * added / jnp.where(count > 0, count, 1)
    x, d = before - mean, moved - shift
    weighted = weight[:, None] * x
    part = added / jnp.where(count > 0, count, 1)
    return Moves(
        count,
        moves.before + part * from_mean,
        moves.shift + part * from_shift,
        moves.gram + _matmul(weighted.T, x) + share * jnp.outer(from_mean, from_mean),
        moves.cross + _matmul(weighted.T, d) + share * jnp.outer(from_mean, from_shift),
        moves.energy
        + jnp.sum(weight[:, None] * jnp.square(d))
        + share * jnp.sum(jnp.square(from_shift)),
    )


class Transport(NamedTuple):
    """The map `x -> x + shift + (x - before) R`.

    Attributes:
        before: Mean of the features that it was fitted to.
        shift: Their mean displacement.
        matrix: R.
        ridge: The ridge that was chosen, relative to the mean variance.
    """

    before: Float[Array, " d"]
    shift: Float[Array, " d"]
    matrix: Float[Array, "d d"]
    ridge: Float[Array, ""]


def solve(moves: Moves) -> Transport:
    """Returns the ridge regression of displacements on features.

    `R = (G + r (tr G / d) I)^-1 C` with G the `gram` and C the `cross` of the moments.
    The ridge r has the least generalized cross-validation error

        |D - B R|^2 / (n - 1 - tr(G (G + r (tr G / d) I)^-1))^2,

    which follows from the moments alone.

    References:
        G. H. Golub, M. Heath, G. Wahba, "Generalized Cross-Validation as a Method for
        Choosing a Good Ridge Parameter", Technometrics, 1979, equation (1.4).
    """
    values, vectors = jnp.linalg.eigh(moves.gram)
    values = jnp.maximum(values, 0)
    turned = _matmul(vectors.T, moves.cross)
    strength, mean = jnp.sum(jnp.square(turned), axis=1), values.mean()
    mean = jnp.where(mean > 0, mean, 1)

    def error(ridge: Float[Array, ""]) -> Float[Array, ""]:
        inverse = 1 / (values + ridge * mean)
        explained = jnp.sum(strength * inverse * (2 - values * inverse))
        left = moves.count - 1 - jnp.sum(values * inverse)
        rest = jnp.maximum(moves.energy - explained, 0)
        return jnp.where(left > 0, rest / jnp.square(jnp.maximum(left, 1e-3)), jnp.inf)

    # from the strongest, which is taken among equal ones
    ridges = jnp.array(_RIDGES[::-1])
    ridge = ridges[jnp.argmin(jax.vmap(error)(ridges))]
    matrix = _matmul(vectors / (values + ridge * mean), turned)
    return Transport(moves.before, moves.shift, matrix, ridge)


def transported(
    stats: Gaussians,
    transport: Transport,
    group: Int[Array, ""] | int,
    own: Bool[Array, " C"],
) -> Gaussians:
    """Returns statistics whose classes `own` have moved with their features.

    Means become `x + shift + (x - before) R`, and the scatter S of their group becomes
    `(I + R)^T S (I + R)`.

    Args:
        stats: Statistics of all classes.
        transport: The map.
        group: Group of the classes that move.
        own: These classes; those without samples stay 0.
    """
    own = own & (stats.count > 0)
    moved = stats.mean + transport.shift
    moved = moved + _matmul(stats.mean - transport.before, transport.matrix)
    jacobian = jnp.eye(len(transport.matrix)) + transport.matrix
    scatter = _matmul(_matmul(jacobian.T, stats.scatter[group]), jacobian)
    return stats._replace(
        mean=jnp.where(own[:, None], moved, stats.mean),
        scatter=stats.scatter.at[group].set(scatter),
    )
