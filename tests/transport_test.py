"""Gaussians that follow a drift: exact for a linear one, unmoved without any."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.ops import gaussians, transport

update = jax.jit(transport.update)
solve = jax.jit(transport.solve)
transported = jax.jit(transport.transported)


def _moves(before: np.ndarray, after: np.ndarray, batch: int = 7) -> transport.Moves:
    moves = transport.init(before.shape[1])
    for start in range(0, len(before), batch):
        rows = slice(start, start + batch)
        weight = jnp.ones(len(before[rows]))
        moves = update(
            moves, jnp.asarray(before[rows]), jnp.asarray(after[rows]), weight
        )
    return moves


def _rows(seed: int = 0, count: int = 60, width: int = 3):
    rng = np.random.default_rng(seed)
    before = (rng.normal(size=(count, width)) + 5).astype(np.float32)
    matrix = 0.3 * rng.normal(size=(width, width))
    after = before + 0.5 + (before - 5) @ matrix
    return before, after.astype(np.float32), matrix


def test_moments_are_those_of_all_rows_at_once() -> None:
    before, after, _ = _rows()
    moves, moved = _moves(before, after), after - before
    x, d = before - before.mean(0), moved - moved.mean(0)
    expected = (len(x), before.mean(0), moved.mean(0), x.T @ x, x.T @ d, (d**2).sum())
    for got, value in zip(moves, expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-3)
    # padding changes nothing, whatever it holds
    nothing = jnp.full((4, 3), 1e6)
    same = update(moves, nothing, -nothing, jnp.zeros(4))
    for got, value in zip(same, moves, strict=True):
        np.testing.assert_array_equal(got, value)


def test_statistics_of_other_classes_follow_a_linear_drift() -> None:
    before, after, matrix = _rows()
    found = solve(_moves(before, after))
    rng = np.random.default_rng(1)
    other = (rng.normal(size=(40, 3)) * 2 + 4).astype(np.float32)
    label = jnp.asarray(np.arange(40) % 2)
    moved = (other + 0.5 + (other - 5) @ matrix).astype(np.float32)
    stored, expected = (
        gaussians.update(
            gaussians.init(4, 2, 3), jnp.asarray(x), label, jnp.ones(40), 1
        )
        for x in (other, moved)
    )
    got = transported(stored, found, 1, jnp.array([True, True, True, False]))
    np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got.scatter, expected.scatter, rtol=2e-3, atol=0.5)
    assert not np.asarray(got.mean[2:]).any()  # classes without samples
    still = transported(stored, found, 0, jnp.zeros(4, bool))
    np.testing.assert_array_equal(still.mean, stored.mean)


def test_without_drift_nothing_moves() -> None:
    before, _, _ = _rows()
    for rows in (before, before[:0]):
        found = solve(_moves(rows, rows))
        np.testing.assert_array_equal(found.matrix, 0)
        np.testing.assert_array_equal(found.shift, 0)


def test_drift_that_does_not_depend_on_the_feature_is_a_mere_shift() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(size=(20, 16)).astype(np.float32)
    after = before + 1 + 0.2 * rng.normal(size=before.shape).astype(np.float32)
    found = solve(_moves(before, after))
    assert float(found.ridge) > 1  # there is nothing to be learnt
    np.testing.assert_allclose(found.shift, (after - before).mean(0), rtol=1e-4)
    assert np.abs(np.asarray(found.matrix)).max() < 0.1
