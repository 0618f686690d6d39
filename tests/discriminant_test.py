"""Discriminants with a covariance for each group, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from mmcl_jax.ops import discriminant, gaussians

fit = jax.jit(discriminant.fit)
log_probabilities = jax.jit(discriminant.log_probabilities, static_argnums=3)


def _oas(x: np.ndarray) -> np.ndarray:
    """Returns the covariance of centred rows, written as in the paper's abstract."""
    n, p = x.shape
    sample = x.T @ x / n
    trace, square = np.trace(sample), np.trace(sample @ sample)
    rho = ((1 - 2 / p) * square + trace**2) / (
        (n + 1 - 2 / p) * (square - trace**2 / p)
    )
    rho = min(rho, 1)
    return (1 - rho) * sample + rho * trace / p * np.eye(p)


def _classes(dimensions: int = 4, rows: int = 30, seed: int = 0):
    """Returns rows of five classes: the first three are of group 0, the others of 1."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(5), rows)
    mean = 2 * rng.normal(size=(5, dimensions)) + 30
    root = rng.normal(size=(dimensions, dimensions))
    x = mean[label] + rng.normal(size=(len(label), dimensions)) @ root
    return x.astype(np.float32), label, np.array([0, 0, 0, 1, 1])


def _stats(x: np.ndarray, label: np.ndarray, group: np.ndarray, slots: int = 6):
    padded = jnp.asarray(np.append(group, 0))
    empty = gaussians.init(slots, 2, x.shape[1])
    ones = jnp.ones(len(x))
    update = jax.jit(gaussians.update)
    return update(empty, jnp.asarray(x), jnp.asarray(label), ones, padded), padded


def test_probabilities_are_those_of_gaussians_with_the_shrunk_covariance() -> None:
    x, label, group = _classes()
    stats, groups = _stats(x, label, group)
    width = x.shape[1]
    solved = fit(
        stats,
        groups,
        jnp.full(2, float(width)),
        jnp.ones(2, bool),
        discriminant.init(6, 2, width),
    )
    assert float(solved.jitter) == 0
    for g, classes in enumerate(([0, 1, 2], [3, 4])):
        rows = np.isin(label, classes)
        means = np.stack([x[label == c].mean(0) for c in classes]).astype(np.float64)
        centred = x[rows] - means[np.searchsorted(classes, label[rows])]
        # the covariance is unbiased, its shrinkage that of the paper
        covariance = _oas(centred) * len(centred) / (len(centred) - len(classes))
        density = np.stack(
            [multivariate_normal(m, covariance).logpdf(x[:7]) for m in means], 1
        )
        own = jnp.asarray(np.isin(np.arange(6), classes))
        got = np.exp(log_probabilities(jnp.asarray(x[:7]), stats, solved, g, own))
        np.testing.assert_allclose(got[:, classes], softmax(density, 1), atol=2e-4)
        assert not got[:, ~np.asarray(own)].any()


def test_features_padded_with_zeros_have_the_same_probabilities() -> None:
    x, label, group = _classes()
    wide = np.pad(x, ((0, 0), (0, 3)))
    answers = []
    for rows in (x, wide):
        stats, groups = _stats(rows, label, group)
        empty = discriminant.init(6, 2, rows.shape[1])
        solved = fit(stats, groups, jnp.full(2, 4.0), jnp.ones(2, bool), empty)
        own = jnp.asarray(np.arange(6) < 3)
        answers.append(
            log_probabilities(jnp.asarray(rows[:9]), stats, solved, 0, own)[:, :3]
        )
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)


def test_a_group_without_news_stays_bitwise() -> None:
    x, label, group = _classes()
    stats, groups = _stats(x, label, group)
    widths, everything = jnp.full(2, 4.0), jnp.ones(2, bool)
    first = fit(stats, groups, widths, everything, discriminant.init(6, 2, 4))
    more = stats._replace(mean=stats.mean + 1, scatter=2 * stats.scatter)
    second = fit(more, groups, widths, jnp.array([True, False]), first)
    np.testing.assert_array_equal(second.precision[1], first.precision[1])
    np.testing.assert_array_equal(second.offset[3:], first.offset[3:])
    assert (second.precision[0] != first.precision[0]).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_few_samples_of_many_dimensions_are_solved_without_jitter(rows: int) -> None:
    x, label, group = _classes(dimensions=40, rows=rows)
    stats, groups = _stats(x, label, group)
    empty = discriminant.init(6, 2, 40)
    solved = fit(stats, groups, jnp.full(2, 40.0), jnp.ones(2, bool), empty)
    assert float(solved.jitter) == 0
    assert all(np.isfinite(leaf).all() for leaf in solved)
    own = jnp.asarray(np.arange(6) < 3)
    got = log_probabilities(jnp.asarray(x[:rows]), stats, solved, 0, own)
    assert (got.argmax(1) == 0).all()


def test_merged_statistics_are_those_of_all_rows() -> None:
    x, label, group = _classes()
    whole, groups = _stats(x, label, group)
    # the second half of group 1, of which one class is known already
    later = np.flatnonzero((label == 4) | ((label == 3) & (np.arange(len(x)) % 2 == 0)))
    rest = np.setdiff1d(np.arange(len(x)), later)
    first, _ = _stats(x[rest], label[rest], group)
    added = gaussians.update(
        gaussians.init(6, 1, 4),
        jnp.asarray(x[later]),
        jnp.asarray(label[later]),
        jnp.ones(len(later)),
        0,
    )
    both = gaussians.merged(first, added, 1)
    del groups
    for got, expected in zip(both, whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-2)
