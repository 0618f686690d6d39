"""The Fisher information of a logistic regression with one weight."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.ops import fisher

WEIGHT = jnp.log(3.0) / 2
squared_gradients = jax.jit(fisher.squared_gradients, static_argnums=0)


def negative_log_likelihood(weight, row):
    x, y = row
    logits = jnp.stack([0.0, 1.0]) * weight * x
    return -jax.nn.log_softmax(logits)[y]


def total(x, y, weight=None):
    rows = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    weight = jnp.ones(len(x)) if weight is None else jnp.asarray(weight)
    return squared_gradients(negative_log_likelihood, WEIGHT, rows, weight)


def test_true_information_by_hand():
    # logit ln 3, so p = .75 and p (1 - p) x² = .75
    of_labels = [float(total([2.0], [y])) for y in (0, 1)]
    np.testing.assert_allclose(of_labels, [2.25, 0.25], rtol=1e-5)
    np.testing.assert_allclose(np.dot([0.25, 0.75], of_labels), 0.75, rtol=1e-5)


def test_drawn_labels_give_the_true_information():
    number = 4096
    drawn = np.random.default_rng(0).binomial(1, 0.75, number)
    mean = total(np.full(number, 2.0), drawn) / number
    deviation = np.sqrt(0.25 * 0.75) * 2 / np.sqrt(number)
    assert abs(mean - 0.75) < 5 * deviation


def test_single_samples_hold_more_than_their_mean():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=6), rng.integers(0, 2, 6)
    gradients = np.array(
        [
            jax.grad(negative_log_likelihood)(WEIGHT, row)
            for row in zip(x, y, strict=True)
        ]
    )
    np.testing.assert_allclose(total(x, y), np.sum(gradients**2), rtol=1e-5)
    assert total(x, y) / 6 > gradients.mean() ** 2
    np.testing.assert_allclose(total(x[:1], y[:1]), gradients[0] ** 2, rtol=1e-5)


def test_weights_count_samples_and_chunks_do_not_matter():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=16), rng.integers(0, 2, 16)
    weight = rng.integers(0, 3, 16).astype(np.float32)
    repeated = [np.repeat(column, weight.astype(int)) for column in (x, y)]
    np.testing.assert_allclose(total(x, y, weight), total(*repeated), rtol=1e-5)
