"""Projected updates: what old pairs of input and output see of them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmcl_jax.ops import projection

GRADIENT = jnp.arange(1.0, 10.0).reshape(3, 3)


def test_by_hand():
    outputs, inputs = jnp.diag(jnp.array([1.0, 1, 0])), jnp.diag(jnp.array([1.0, 0, 0]))
    expected = [[0, 2, 3], [0, 5, 6], [7, 8, 9]]
    np.testing.assert_allclose(projection.outside(GRADIENT, outputs, inputs), expected)
    nothing = jnp.zeros((3, 3))
    np.testing.assert_array_equal(
        projection.outside(GRADIENT, outputs, nothing), GRADIENT
    )


@pytest.mark.parametrize("rank", [0, 1, 3, 8])
def test_projector_is_symmetric_idempotent_and_of_the_rank(rank: int):
    x = np.random.default_rng(rank).normal(size=(rank, 8)).astype(np.float32)
    projector = projection.span(jnp.asarray(x.T @ x), 0.0)
    np.testing.assert_allclose(projector, projector.T, atol=1e-6)
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-5)
    np.testing.assert_allclose(np.trace(projector), rank, atol=1e-4)
    np.testing.assert_allclose(x @ projector, x, atol=1e-4)


def test_threshold_leaves_weak_directions_out():
    moment = jnp.diag(jnp.array([0.6, 0.3, 0.05]))
    np.testing.assert_allclose(
        projection.span(moment, 0.1), np.diag([1, 1, 0]), atol=1e-6
    )


def test_stacks_of_a_tree_have_thresholds_of_their_own():
    stack = jnp.stack([jnp.diag(jnp.array([0.9, 0.05])), jnp.zeros((2, 2))])
    trees = {"a": stack, "b": stack[:1]}
    spans = projection.spans(trees, {"a": 0.1, "b": 0.01})
    np.testing.assert_allclose(spans["a"][0], np.diag([1, 0]), atol=1e-6)
    np.testing.assert_allclose(spans["b"][0], np.eye(2), atol=1e-6)
    assert np.all(np.asarray(spans["a"][1]) == 0)


def _moved(optimizer: optax.GradientTransformation, project: str) -> float:
    """How far a map's outputs for old inputs move over steps on new ones."""
    rng = np.random.default_rng(0)
    old, new, target = (rng.normal(size=(n, 6)) for n in (2, 5, 5))
    inputs = projection.span(jnp.asarray(old.T @ old), 0.0)
    outputs = jnp.eye(6)
    matrix = jnp.eye(6)
    state = optimizer.init(matrix)
    for _ in range(20):
        gradient = (new @ matrix.T - target).T @ new
        if project == "gradient":
            gradient = projection.outside(gradient, outputs, inputs)
        updates, state = optimizer.update(gradient, state, matrix)
        if project == "update":
            updates = projection.outside(updates, outputs, inputs)
        matrix = matrix + updates
    assert np.abs(new @ matrix.T - new).max() > 1e-2
    return float(np.abs(old @ matrix.T - old).max())


def test_old_inputs_see_nothing_of_a_projected_update():
    assert _moved(optax.sgd(1e-2), "update") < 1e-5
    assert _moved(optax.adamw(1e-2), "update") < 1e-5
    assert _moved(optax.sgd(1e-2), "gradient") < 1e-5


def test_adam_and_decay_undo_a_projected_gradient():
    assert _moved(optax.adamw(1e-2), "gradient") > 1e-2
    assert _moved(optax.sgd(1e-2), "nothing") > 1e-2
