"""Closed-form re-alignment against its definition and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.ops import realignment, relevance

linear_discriminant = jax.jit(relevance.linear_discriminant)
apply, regression = jax.jit(realignment.apply), jax.jit(realignment.regression)
discriminant = jax.jit(realignment.discriminant, static_argnames="residual")


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def problem(classes=6, dim=10, unseen=(4,), seed=0):
    """Means, covariance, text in a cone, and a prior that is 0 for unseen classes."""
    rng = np.random.default_rng(seed)
    mean = 0.5 * unit(rng.normal(size=(classes, dim))) + 0.5 * unit(np.ones(dim))
    root = rng.normal(size=(dim, dim)) * 0.1
    text = unit(rng.normal(size=(classes, dim)) + 2 * rng.normal(size=dim))
    prior = rng.uniform(0.5, 1.5, classes)
    prior[list(unseen)] = 0
    covariance = root @ root.T + 0.01 * np.eye(dim)
    return mean, covariance, text, prior / prior.sum()


def features(mean, covariance, number=4, seed=1):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(number, *mean.shape)) @ np.linalg.cholesky(covariance).T
    return (mean + noise).reshape(-1, mean.shape[1])


def log_posterior(z, mean, covariance, prior):
    """Log of the class probabilities by the definition, from Gaussian distances."""
    difference = z[:, None] - mean
    white = np.linalg.solve(covariance, difference[..., None])[..., 0]
    logits = np.log(prior) - np.sum(difference * white, -1) / 2
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))


def log_softmax(logits):
    logits = np.asarray(logits) - np.max(logits, -1, keepdims=True)
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))


def arrays(*values):
    return tuple(jnp.asarray(value) for value in values)


@pytest.mark.parametrize(
    "regularization, matrix, moved",
    [
        (1.0, [[0.5, 0.5], [0, 1]], [0.5, 0.5]),
        (1e-8, [[0, 1], [0, 1]], [0, 1]),
        (1e8, [[1, 0], [0, 1]], [1, 0]),
    ],
)
def test_regression_of_one_class_by_hand(regularization, matrix, moved):
    with jax.enable_x64(True):
        mean, text = np.array([[1.0, 0]]), np.array([[0.0, 1]])
        found = regression(
            *arrays(mean, np.zeros((2, 2)), text, np.ones(1)), regularization
        )
        np.testing.assert_allclose(found.matrix, matrix, atol=1e-6)
        np.testing.assert_allclose(mean @ np.asarray(found.matrix), [moved], atol=1e-6)


@pytest.mark.parametrize("regularization", [1e-3, 1.0, 100.0])
def test_regression_of_aligned_classes_changes_nothing(regularization):
    with jax.enable_x64(True):
        _, _, text, prior = problem()
        nothing = np.zeros((10, 10))
        found = regression(*arrays(text, nothing, text, prior), regularization)
        np.testing.assert_allclose(found.matrix, np.eye(10), atol=1e-9)


def test_regression_minimises_its_loss_over_samples():
    with jax.enable_x64(True):
        mean, covariance, text, prior = problem()
        found = regression(*arrays(mean, covariance, text, prior), 0.05)
        # Two points a dimension have exactly the wanted mean and covariance.
        spread = np.sqrt(10) * np.linalg.cholesky(covariance).T
        spread = np.concatenate([spread, -spread])
        z, target, weight = [], [], []
        for c in np.flatnonzero(prior):
            z.append(mean[c] + spread)
            target.append(np.tile(text[c], (20, 1)))
            weight.append(np.full(20, prior[c] / 20))
        z.append(np.eye(10))
        target.append(np.eye(10))
        weight.append(np.full(10, 0.05))
        root = np.sqrt(np.concatenate(weight))[:, None]
        z, target = np.concatenate(z) * root, np.concatenate(target) * root
        expected, *_ = np.linalg.lstsq(z, target)
        np.testing.assert_allclose(found.matrix, expected, rtol=1e-8, atol=1e-9)
        scaled = regression(*arrays(mean, covariance, text, 7 * prior), 0.05)
        np.testing.assert_allclose(scaled.matrix, expected, rtol=1e-8, atol=1e-9)


def test_regression_gives_scaled_cosines():
    mean, covariance, text, prior = problem()
    arguments = (a.astype(np.float32) for a in (mean, covariance, text, prior))
    found = regression(*arrays(*arguments), 0.05, 50.0)
    z = features(mean, covariance)
    logits = apply(found, jnp.asarray(z, jnp.float32), jnp.asarray(text, jnp.float32))
    expected = 50 * unit(z @ np.asarray(found.matrix)) @ text.T
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("unseen", [(), (4,), (0, 1, 2)])
def test_discriminant_is_the_posterior_of_the_classes_met(unseen):
    with jax.enable_x64(True):
        mean, covariance, text, prior = problem(unseen=unseen)
        found = discriminant(*arrays(mean, covariance, text, prior), 1e-10)
        z = features(mean, covariance)
        used = prior > 0
        logits = apply(found, *arrays(z, text))
        expected = log_posterior(z, mean[used], covariance, prior[used])
        np.testing.assert_allclose(
            log_softmax(np.asarray(logits)[:, used]), expected, atol=1e-5
        )
        assert np.all(np.asarray(found.residual) == 0)
        # Beyond the softmax: equal to the head, whose common constant is documented.
        A, b, _ = linear_discriminant(*arrays(mean, covariance, prior))
        head = z @ np.asarray(A).T + np.asarray(b)
        np.testing.assert_allclose(logits[:, used], head[:, used], atol=1e-5)


def test_discriminant_is_the_ridge_solution_of_its_definition():
    with jax.enable_x64(True):
        mean, covariance, text, prior = problem(classes=25, unseen=(3, 9))
        found = discriminant(
            *arrays(mean, covariance, text, prior), 0.02, residual=False
        )
        A, _, _ = linear_discriminant(*arrays(mean, covariance, prior))
        used = prior > 0
        U, A = text[used], np.asarray(A)[used]
        ridge = 0.02 * np.linalg.eigvalsh(U.T @ U).mean()
        rows = np.concatenate([U, np.sqrt(ridge) * np.eye(10)])
        targets = np.concatenate([A, np.zeros((10, 10))])
        expected = np.linalg.lstsq(rows, targets)[0].T
        np.testing.assert_allclose(found.matrix, expected, rtol=1e-8, atol=1e-8)


def test_residual_restores_the_posterior_of_more_classes_than_dimensions():
    with jax.enable_x64(True):
        mean, covariance, text, prior = problem(classes=25, unseen=(3, 9))
        used, z = prior > 0, features(mean, covariance)
        expected = log_posterior(z, mean[used], covariance, prior[used])
        errors = {}
        for residual in (False, True):
            found = discriminant(
                *arrays(mean, covariance, text, prior), 0.02, residual=residual
            )
            logits = np.asarray(apply(found, *arrays(z, text)))
            errors[residual] = np.abs(log_softmax(logits[:, used]) - expected).max()
        assert errors[True] < 1e-8
        assert errors[False] > 0.1
        assert np.all(np.asarray(found.residual)[:, ~used] == 0)


def test_unseen_slots_take_no_part_whatever_they_hold():
    mean, covariance, text, prior = problem()
    arguments = [a.astype(np.float32) for a in (mean, covariance, text, prior)]
    for solve in (regression, discriminant):
        plain = solve(*arrays(*arguments), 1e-4)
        changed = [a.copy() for a in arguments]
        changed[0][4], changed[2][4] = np.nan, np.nan
        jax.tree.map(
            np.testing.assert_array_equal, plain, solve(*arrays(*changed), 1e-4)
        )


def test_an_unseen_class_has_a_logit_through_its_text():
    with jax.enable_x64(True):
        mean, covariance, text, prior = problem()
        text[4] = text[2]
        found = discriminant(*arrays(mean, covariance, text, prior), 1e-4)
        bias = np.asarray(found.bias)
        np.testing.assert_allclose(bias[4], bias[prior > 0].mean(), rtol=1e-10)
        z = features(mean, covariance)
        logits = np.asarray(apply(found, *arrays(z, text))) - bias
        np.testing.assert_allclose(logits[:, 4], logits[:, 2], rtol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
@pytest.mark.parametrize("regularization", [0.0, 1e-4])
def test_equal_texts_do_no_harm(noise, regularization):
    mean, covariance, text, prior = problem(unseen=())
    rng = np.random.default_rng(0)
    text[1] = unit(text[0] + noise * rng.normal(size=10))
    mean32, covariance32, text32, prior32 = (
        jnp.asarray(a, jnp.float32) for a in (mean, covariance, text, prior)
    )
    found = discriminant(mean32, covariance32, text32, prior32, regularization)
    z = features(mean, covariance)
    logits = np.asarray(apply(found, jnp.asarray(z, jnp.float32), text32))
    A, b, _ = linear_discriminant(mean32, covariance32, prior32)
    head = z @ np.asarray(A).T + np.asarray(b)
    assert np.abs(logits).max() < 3 * np.abs(head).max()
    if regularization and noise < 1e-4:
        others = logits[:, 2:] - head[:, 2:]
        np.testing.assert_allclose(others, 0, atol=0.02 * np.abs(head).max())
        twins = (head[:, 0] - b[0] + head[:, 1] - b[1]) / 2
        np.testing.assert_allclose(
            logits[:, 0] - b[0], twins, atol=0.02 * np.abs(head).max()
        )


def test_float32_agrees_with_float64():
    problem64 = problem(classes=200, dim=128)
    z = features(*problem64[:2], number=1)
    logits = {}
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            values = arrays(*(a.astype(dtype) for a in problem64))
            found = discriminant(*values)
            matrix, bias = (np.asarray(a, np.float64) for a in found[:2])
            logits[dtype] = z @ matrix @ problem64[2].T + bias
    scale = np.ptp(logits[np.float64], axis=1).mean()
    np.testing.assert_allclose(*logits.values(), atol=1e-4 * scale)


@pytest.mark.parametrize("solve", [regression, discriminant])
def test_without_classes_it_is_the_identity(solve):
    mean, covariance, text, prior = arrays(
        *(a.astype(np.float32) for a in problem(unseen=()))
    )
    off = realignment.identity(6, 10)
    found = solve(mean, covariance, text, 0 * prior, 1e-4)
    jax.tree.map(np.testing.assert_array_equal, found, off)
    of_some = solve(mean, covariance, text, prior, 1e-4)
    types = jax.tree.map(jax.typeof, (off, found, of_some))
    assert types[0] == types[1] == types[2]


def test_identity_gives_the_encoders_logits():
    rng = np.random.default_rng(0)
    z, text = unit(rng.normal(size=(3, 8))), unit(rng.normal(size=(5, 8)))
    found = apply(
        realignment.identity(5, 8, scale=20.0),
        jnp.asarray(z, jnp.bfloat16),
        jnp.asarray(text, jnp.float32),
    )
    np.testing.assert_allclose(found, 20 * z @ text.T, atol=0.2)
