"""Arithmetic on trees of arrays: means, interpolation and penalties of parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmcl_jax.ops.losses import Scalar
from mmcl_jax.types import PyTree


def copy(tree: PyTree) -> PyTree:
    """Returns the tree in new buffers, which may be donated apart from the old ones."""
    return jax.tree.map(jnp.copy, tree)


def select(condition: Array, then: PyTree, otherwise: PyTree) -> PyTree:
    """Returns one of two trees by a traced condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, otherwise)


def interpolate(start: PyTree, end: PyTree, share: Scalar) -> PyTree:
    """Returns `(1 - share) start + share end`, exact at both ends.

    >>> float(interpolate(1.0, 3.0, 0.25))
    1.5

    References:
        M. Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR
        2022.
    """
    share = jnp.asarray(share)
    between = jax.tree.map(lambda a, b: a + share * (b - a), start, end)
    # `a + 1 (b - a)` is rounded, and need not be b
    return select(share == 1, end, between)


def running_mean(mean: PyTree, new: PyTree, number: Array | int) -> PyTree:
    """Returns the mean of `number` trees and one more, `m + (x - m) / (number + 1)`.

    >>> mean = running_mean(1.0, 2.0, 1)
    >>> round(running_mean(mean, 4.0, 2), 4)
    2.3333
    """
    return jax.tree.map(lambda m, x: m + (x - m) / (number + 1), mean, new)


def quadratic_penalty(
    tree: PyTree, centre: PyTree, importance: PyTree
) -> Float[Array, ""]:
    """Returns `1/2 sum_i F_i (θ_i - θ*_i)²` over all entries of all leaves.

    Args:
        tree: Parameters θ.
        centre: Anchor θ* of the same structure; no gradient flows into it.
        importance: Weights F of the same structure, at least 0; no gradient either.

    >>> tree, centre = jnp.array([1.0, -1.0]), jnp.array([0.0, 1.0])
    >>> float(3 * quadratic_penalty(tree, centre, jnp.array([2.0, 0.5])))
    6.0
    """
    centre, importance = jax.lax.stop_gradient((centre, importance))
    terms = jax.tree.map(
        lambda x, c, f: jnp.sum(f * jnp.square(x - c)), tree, centre, importance
    )
    return 0.5 * sum(jax.tree.leaves(terms), jnp.zeros(()))


def tangent(
    value: Float[Array, ""], gradient: PyTree, tree: PyTree
) -> Float[Array, ""]:
    """Returns `value`, with `gradient` as its gradient with respect to the tree.

    >>> slope = jax.grad(lambda x: tangent(jnp.zeros(()), jnp.array([1.0, 3.0]), x))
    >>> slope(jnp.ones(2)).tolist()
    [1.0, 3.0]
    """
    # each term is 0, but its derivative with respect to x is g
    terms = jax.tree.map(
        lambda g, x: jnp.sum(g * (x - jax.lax.stop_gradient(x))), gradient, tree
    )
    return value + sum(jax.tree.leaves(terms), jnp.zeros(()))


def pasted(old: PyTree, new: PyTree) -> PyTree:
    """Returns `new` with the entries of `old` in front along every axis.

    What does not fit is left out.

    Args:
        old: Tree of arrays.
        new: Tree of the same structure, whose arrays have as many axes.

    >>> pasted({"a": jnp.ones(2)}, {"a": jnp.zeros(4)})["a"].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """

    def of_leaf(old: Array, new: Array) -> Array:
        front = tuple(map(slice, map(min, old.shape, new.shape)))
        return new.at[front].set(old[front])

    return jax.tree.map(of_leaf, old, new)


def nbytes(tree: PyTree) -> int:
    """Returns the total size of the arrays of `tree` in bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Returns whether every entry of every leaf is finite.

    >>> bool(all_finite({"a": jnp.ones(2), "b": jnp.array(jnp.nan)}))
    False
    """
    leaves = jax.tree.leaves(tree)
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool).all()
