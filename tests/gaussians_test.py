"""Streaming Gaussian statistics against NumPy on all samples at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mmcl_jax.ops import gaussians

update = jax.jit(gaussians.update)
covariance = jax.jit(gaussians.covariance)
group_covariances = jax.jit(gaussians.group_covariances)
cholesky_with_jitter = jax.jit(gaussians.cholesky_with_jitter)
densities = jax.jit(gaussians.densities)
log_density = jax.jit(gaussians.log_density)
sample = jax.jit(gaussians.sample, static_argnames="normalize")

CLASSES, DIM, GROUPS = 5, 4, 3
GROUP = np.array([0, 0, 1, 2, 2])


def samples(seed=0, number=60, dtype=np.float64):
    """Labelled samples; class 3 has one sample, class 4 none."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, number)
    label[0] = 3
    centre = rng.normal(size=(CLASSES, DIM))
    x = centre[label] + rng.normal(size=(number, DIM)) @ rng.normal(size=(DIM, DIM))
    return x.astype(dtype), label


def in_numpy(x, label):
    """Count, mean and scatter by definition, in two passes."""
    count, mean = np.zeros(CLASSES), np.zeros((CLASSES, DIM))
    scatter = np.zeros((GROUPS, DIM, DIM))
    for c in np.unique(label):
        rows = x[label == c]
        count[c], mean[c] = len(rows), rows.mean(0)
        scatter[GROUP[c]] += (rows - mean[c]).T @ (rows - mean[c])
    return count, mean, scatter


def fit(x, label, weight=None, start=None):
    stats = start or gaussians.init(CLASSES, GROUPS, DIM, x.dtype)
    weight = np.ones(len(x), x.dtype) if weight is None else weight
    x, label, weight = jnp.asarray(x), jnp.asarray(label), jnp.asarray(weight)
    return update(stats, x, label, weight, jnp.asarray(GROUP))


def assert_same(a, b, rtol=1e-6, atol=1e-9):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol)


def test_two_batches_by_hand():
    stats = gaussians.init(1, 1, 2)
    expected = (
        ([3], [[3, 5]], [[[8, 14], [14, 26]]]),
        ([5], [[3, 3.4]], [[[10, 16], [16, 47.2]]]),
    )
    batches = [[1.0, 2], [3, 4], [5, 9]], [[2.0, 0], [4, 2]]
    for x, known in zip(map(jnp.array, batches), expected, strict=True):
        stats = update(stats, x, jnp.zeros(len(x), int), jnp.ones(len(x)), 0)
        assert_same(stats, known)
    np.testing.assert_allclose(covariance(stats, 0.0), [[2.5, 4], [4, 11.8]], rtol=1e-6)


def test_one_batch_equals_the_definition():
    with jax.enable_x64(True):
        x, label = samples()
        assert_same(fit(x, label), in_numpy(x, label), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("batch", [1, 12])
def test_any_order_and_any_batch_size(seed, batch):
    with jax.enable_x64(True):
        x, label = samples(seed)
        order = np.random.default_rng(seed).permutation(len(x))
        stats = None
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            stats = fit(x[rows], label[rows], start=stats)
        assert_same(stats, in_numpy(x, label), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fill", [np.nan, np.inf, 3.0])
def test_rows_of_weight_zero_change_nothing(fill):
    x, label = samples(dtype=np.float32)
    before = fit(x, label)
    after = fit(
        np.full((4, DIM), fill, np.float32),
        np.array([0, 4, -1, 99]),
        np.array([0, 0, 0, 1], np.float32),  # the last one has an impossible label
        before,
    )
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_count_samples():
    with jax.enable_x64(True):
        x, label = samples()
        times = np.random.default_rng(1).integers(0, 4, len(x))
        weighted = fit(x, label, times.astype(x.dtype))
        repeated = in_numpy(np.repeat(x, times, axis=0), np.repeat(label, times))
        assert_same(weighted, repeated, rtol=1e-10, atol=1e-10)


def test_one_group_for_a_batch_may_be_traced():
    x, label = samples(dtype=np.float32)
    stats = gaussians.init(CLASSES, GROUPS, DIM)
    arguments = jnp.asarray(x), jnp.asarray(label), jnp.ones(len(x))
    stats = update(stats, *arguments, jnp.asarray(1))
    total = in_numpy(x.astype(np.float64), label)[2].sum(0)
    np.testing.assert_allclose(stats.scatter[1], total, rtol=1e-3)
    assert np.all(np.asarray(stats.scatter)[[0, 2]] == 0)


def test_float32_survives_a_mean_far_from_zero():
    x, label = samples(number=4000)
    x = x + 100
    stats = None
    for start in range(0, 4000, 100):
        rows = slice(start, start + 100)
        stats = fit(x[rows].astype(np.float32), label[rows], start=stats)
    expected = in_numpy(x, label)[2]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(stats.scatter, expected, atol=1e-4 * scale)


def test_moments_of_drawn_samples():
    rng = np.random.default_rng(0)
    number = 100_000
    root = np.array([[2.0, 0, 0], [1, 1, 0], [-1, 0.5, 0.7]])
    mean, truth = np.array([1.0, -2, 3]), root @ root.T
    x = (mean + rng.normal(size=(number, 3)) @ root.T).astype(np.float32)
    stats = update(
        gaussians.init(1, 1, 3),
        jnp.asarray(x),
        jnp.zeros(number, int),
        jnp.ones(number),
        0,
    )
    variance = np.diagonal(truth)
    error = np.abs(stats.mean[0] - mean)
    assert np.all(error < 5 * np.sqrt(variance / number))
    error = np.abs(covariance(stats, 0.0) - truth)
    assert np.all(
        error < 5 * np.sqrt((truth**2 + np.outer(variance, variance)) / number)
    )

    label = jnp.zeros(number, int)
    drawn, weight, jitter = sample(
        jax.random.key(0), stats, label, 0, 0.0, normalize=False
    )
    assert np.all(weight == 1)
    assert jitter == 0
    np.testing.assert_allclose(np.mean(drawn, 0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(np.asarray(drawn).T), truth, atol=0.15)


def test_covariances_are_unbiased_pooled_and_of_a_group():
    with jax.enable_x64(True):
        x, label = samples()
        count, _, scatter = in_numpy(x, label)
        stats = fit(x, label)
        freedom = np.maximum(count - 1, 0)
        pooled = scatter.sum(0) / freedom.sum()
        np.testing.assert_allclose(covariance(stats, 0.0), pooled, rtol=1e-10)
        single = group_covariances(stats, 0.0, jnp.asarray(GROUP))
        np.testing.assert_allclose(single[1], scatter[1] / freedom[2], rtol=1e-10)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.5, 1.0])
def test_shrinkage_keeps_the_trace(shrinkage):
    stats = fit(*samples(dtype=np.float32))
    raw = covariance(stats, 0.0)
    shrunk = covariance(stats, shrinkage)
    np.testing.assert_allclose(np.trace(shrunk), np.trace(raw), rtol=1e-5)
    if shrinkage == 1:
        isotropic = np.trace(raw) / DIM * np.eye(DIM)
        np.testing.assert_allclose(shrunk, isotropic, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("times", [0, 1, 50])
def test_without_any_spread_the_covariance_is_a_scaled_identity(times):
    rng = np.random.default_rng(0)
    x = np.tile(rng.normal(size=(1, DIM)), (times, 1)).astype(np.float32)
    stats = fit(x, np.zeros(times, int))
    for shrinkage in (0.0, 0.1):
        isotropic = np.eye(DIM) / DIM
        np.testing.assert_allclose(covariance(stats, shrinkage), isotropic, rtol=1e-6)


def test_cholesky_of_fewer_samples_than_dimensions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 64)).astype(np.float32)
    singular = jnp.asarray(x.T @ x)
    factor, jitter = cholesky_with_jitter(singular)
    assert jitter > 0
    restored = np.asarray(factor) @ np.asarray(factor).T
    np.testing.assert_allclose(restored, singular + jitter * np.eye(64), atol=1e-4)


def test_cholesky_adds_nothing_where_nothing_is_needed():
    matrix = jnp.array([[4.0, 2.0], [2.0, 3.0]])
    factor, jitter = cholesky_with_jitter(matrix)
    assert jitter == 0
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-6)


def test_cholesky_escalates_by_matrix_and_gives_up_on_nan():
    barely = np.diag([1.0, 1.0, -4e-4])  # needs 1e-3 of the mean diagonal
    matrices = jnp.asarray(
        np.stack([np.eye(3), barely, np.zeros((3, 3)), np.full((3, 3), np.nan)]),
        jnp.float32,
    )
    factors, jitters = jax.vmap(cholesky_with_jitter)(matrices)
    np.testing.assert_allclose(jitters[:3], [0, 1e-3 * 1.9996 / 3, 1e-6], rtol=1e-4)
    assert np.all(np.isfinite(factors[:3]))
    assert np.all(np.isnan(np.diagonal(factors[3])))


def test_log_density_is_scipys():
    with jax.enable_x64(True):
        x, label = samples()
        stats = fit(x, label)
        query = np.random.default_rng(5).normal(size=(9, DIM))
        group = jnp.asarray(GROUP)
        solved, jitter = densities(stats, group, 0.1)
        assert jitter == 0
        density = log_density(solved, jnp.asarray(query))
        matrices = group_covariances(stats, 0.1, group)
        for c in range(4):
            expected = multivariate_normal(stats.mean[c], matrices[GROUP[c]])
            np.testing.assert_allclose(density[:, c], expected.logpdf(query), rtol=1e-9)
        assert np.all(density[:, 4] < -1e8)
        assert np.all(np.isfinite(density))


def test_drawn_features_have_unit_norm_and_empty_classes_no_weight():
    stats = fit(*samples(dtype=np.float32))
    label = jnp.array([0, 4, 2, 3])
    drawn, weight, jitter = sample(
        jax.random.key(1), stats, label, jnp.asarray(GROUP), 0.1
    )
    assert jitter == 0
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(weight, [1, 0, 1, 1])


def test_structure_is_the_same_after_an_update():
    before = gaussians.init(CLASSES, GROUPS, DIM)
    after = update(
        before,
        jnp.ones((2, DIM), jnp.bfloat16),
        jnp.array([0, 1]),
        jnp.ones(2),
        jnp.asarray(GROUP),
    )
    assert jax.tree.map(jax.typeof, before) == jax.tree.map(jax.typeof, after)
