"""Means, interpolation and penalties of parameters against numbers known by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.ops import trees

# two leaves, so that a sum over leaves is a sum
THETA = {"a": jnp.array([1.0]), "b": jnp.array([-1.0])}
CENTRE = {"a": jnp.array([0.0]), "b": jnp.array([1.0])}
IMPORTANCE = {"a": jnp.array([2.0]), "b": jnp.array([0.5])}


def test_quadratic_penalty_in_the_half_form():
    value, gradient = jax.value_and_grad(
        lambda tree: 3 * trees.quadratic_penalty(tree, CENTRE, IMPORTANCE)
    )(THETA)
    np.testing.assert_allclose(value, 6.0)
    np.testing.assert_allclose(gradient["a"], [6.0])
    np.testing.assert_allclose(gradient["b"], [-3.0])
    assert trees.quadratic_penalty(CENTRE, CENTRE, IMPORTANCE) == 0


def test_no_gradient_flows_into_what_a_penalty_is_measured_with():
    gradients = jax.grad(trees.quadratic_penalty, argnums=(1, 2))(
        THETA, CENTRE, IMPORTANCE
    )
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradients))


def test_running_mean_of_one_two_four():
    mean = jnp.array(1.0)
    for number, new in enumerate([2.0, 4.0], 1):
        mean = trees.running_mean(mean, jnp.array(new), number)
    np.testing.assert_allclose(mean, 7 / 3, rtol=1e-6)


def test_interpolation_is_exact_at_both_ends():
    rng = np.random.default_rng(0)
    start, end = (
        jnp.asarray(1e3**k * rng.normal(size=100), jnp.float32) for k in (0, 1)
    )
    np.testing.assert_array_equal(trees.interpolate(start, end, 0.0), start)
    np.testing.assert_array_equal(trees.interpolate(start, end, 1.0), end)
    np.testing.assert_allclose(
        trees.interpolate(start, end, 0.25), 0.75 * start + 0.25 * end, rtol=1e-4
    )
