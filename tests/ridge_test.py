"""Ridge regression: the same weights from any batches, in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.ops import least_squares

update, solve_with_jitter = jax.jit(least_squares.update), jax.jit(least_squares.solve)
recursive_update = jax.jit(least_squares.recursive_update)

FIRST = np.array([[1.0, 0], [1, 1]]), np.eye(2)
SECOND = np.array([[0.0, 1], [2, 1]]), np.eye(2)
JOINT = [[0.052632, 0.315789], [0.210526, 0.263158]]


def solve(stats, regularization):
    return solve_with_jitter(stats, regularization)[0]


def add(stats, x, y, weight=None):
    weight = np.ones(len(x), x.dtype) if weight is None else weight
    return update(stats, jnp.asarray(x), jnp.asarray(y), jnp.asarray(weight))


def problem(number=40, dim=6, classes=5):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, dim))
    y = np.eye(classes)[rng.integers(0, classes, number)]
    expected = np.linalg.solve(x.T @ x + 0.3 * np.eye(dim), x.T @ y)
    return x, y, expected


def test_by_hand():
    with jax.enable_x64(True):
        stats = add(least_squares.init(2, 2, jnp.float64), *FIRST)
        np.testing.assert_allclose(solve(stats, 1.0), [[0.4, 0.2], [-0.2, 0.4]])
        stats = add(stats, *SECOND)
        np.testing.assert_allclose(solve(stats, 1.0), JOINT, atol=1e-6)
        assert stats.count == 4


def test_recursion_by_hand_uses_the_new_inverse():
    with jax.enable_x64(True):
        state = least_squares.recursive_init(2, 2, 1.0, jnp.float64)
        for x, y in (FIRST, SECOND):
            before = state
            state = recursive_update(
                *state, jnp.asarray(x), jnp.asarray(y), jnp.ones(2)
            )
        np.testing.assert_allclose(state[1], JOINT, atol=1e-6)
        # What the classic mistake would give.
        inverse, weights = map(np.asarray, before)
        x, y = SECOND
        mistaken = weights + inverse @ x.T @ (y - x @ weights)
        np.testing.assert_allclose(mistaken, [[-0.2, 0.4], [0.4, 0.2]], atol=1e-12)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("seed", range(2))
def test_any_order_and_any_batch_size(seed, batch):
    with jax.enable_x64(True):
        x, y, expected = problem()
        order = np.random.default_rng(seed).permutation(len(x))
        stats = least_squares.init(6, 5, jnp.float64)
        state = least_squares.recursive_init(6, 5, 0.3, jnp.float64)
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            stats = add(stats, x[rows], y[rows])
            state = recursive_update(
                *state, jnp.asarray(x[rows]), jnp.asarray(y[rows]), jnp.ones(len(rows))
            )
        np.testing.assert_allclose(solve(stats, 0.3), expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(state[1], expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(state[0], state[0].T)


def test_classes_that_come_later_change_nothing():
    with jax.enable_x64(True):
        x, y, expected = problem()
        old = y.argmax(1) < 3
        early = add(least_squares.init(6, 5, jnp.float64), x[old], y[old])
        assert np.all(np.asarray(solve(early, 0.3))[:, 3:] == 0)
        narrow = add(least_squares.init(6, 3, jnp.float64), x[old], y[old, :3])
        np.testing.assert_allclose(
            solve(early, 0.3)[:, :3], solve(narrow, 0.3), rtol=1e-12
        )
        late = add(early, x[~old], y[~old])
        np.testing.assert_allclose(solve(late, 0.3), expected, rtol=1e-8, atol=1e-10)


def test_weights_count_samples_and_zero_weight_may_hold_nan():
    with jax.enable_x64(True):
        x, y, _ = problem()
        times = np.random.default_rng(2).integers(0, 3, len(x))
        repeated = np.repeat(x, times, axis=0), np.repeat(y, times, axis=0)
        expected = solve(add(least_squares.init(6, 5, jnp.float64), *repeated), 0.3)
        x[times == 0] = np.nan
        y[times == 0] = np.nan
        weight = times.astype(float)
        stats = add(least_squares.init(6, 5, jnp.float64), x, y, weight)
        np.testing.assert_allclose(solve(stats, 0.3), expected, rtol=1e-9)
        state = least_squares.recursive_init(6, 5, 0.3, jnp.float64)
        state = recursive_update(
            *state, jnp.asarray(x), jnp.asarray(y), jnp.asarray(weight)
        )
        np.testing.assert_allclose(state[1], expected, rtol=1e-8)


def test_padding_changes_no_bit():
    x, y, _ = problem()
    stats = add(least_squares.init(6, 5), x.astype(np.float32), y.astype(np.float32))
    state = least_squares.recursive_init(6, 5, 1.0)
    nothing = np.full((3, 6), np.nan, np.float32), np.zeros((3, 5), np.float32)
    zero = np.zeros(3, np.float32)
    after = add(stats, *nothing, zero)
    jax.tree.map(np.testing.assert_array_equal, stats, after)
    after = recursive_update(*state, *(jnp.asarray(a) for a in (*nothing, zero)))
    jax.tree.map(np.testing.assert_array_equal, state, after)


def test_too_little_regularization_stays_finite():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 50)).astype(np.float32)
    stats = add(least_squares.init(50, 5), x, np.eye(5, dtype=np.float32))
    weights, jitter = solve_with_jitter(stats, 0.0)
    assert jitter > 0
    np.testing.assert_allclose(x @ np.asarray(weights), np.eye(5), atol=1e-2)


def test_recursion_needs_regularization():
    with pytest.raises(ValueError, match="above 0"):
        least_squares.recursive_init(2, 2, 0.0)
