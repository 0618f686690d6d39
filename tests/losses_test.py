"""Losses against closed forms, and what masks and weights must not let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from mmcl_jax.ops import losses

cross_entropy = jax.jit(losses.cross_entropy)
cosine_distance = jax.jit(losses.cosine_distance)
distillation = jax.jit(losses.distillation, static_argnames="form")

EVERY = jnp.ones(3, bool)
ONE = jnp.ones(1)
TEACHER = jnp.array([[2.0, 0.0, 0.0]])


def random_batch(seed=0, batch=6, classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, classes)).astype(np.float32)
    label = rng.integers(0, classes, batch)
    weight = rng.uniform(0.5, 2, batch).astype(np.float32)
    return logits, label, weight


def test_cross_entropy_of_uniform_logits_is_log_of_the_number():
    loss = cross_entropy(
        jnp.zeros((2, 4)), jnp.array([0, 3]), jnp.ones(2), jnp.ones(4, bool)
    )
    np.testing.assert_allclose(loss, 1.386294, atol=1e-6)


def test_cross_entropy_is_the_one_of_the_allowed_columns():
    logits, label, weight = random_batch()
    label = np.where(label == 4, 0, label)
    allowed = np.array([True, True, True, True, False])
    log_p = log_softmax(logits[:, :4], axis=1)
    rows = -log_p[np.arange(6), label]
    loss = cross_entropy(
        jnp.asarray(logits),
        jnp.asarray(label),
        jnp.asarray(weight),
        jnp.asarray(allowed),
    )
    np.testing.assert_allclose(loss, np.average(rows, weights=weight), rtol=1e-5)


def test_masked_classes_get_exactly_no_gradient_and_may_hold_nan():
    logits, _, weight = random_batch()
    logits[:, 3] = np.nan
    allowed = jnp.array([True, True, False, False, True])
    gradient = jax.grad(cross_entropy)(
        jnp.asarray(logits),
        jnp.array([0, 1, 4, 0, 1, 4]),
        jnp.asarray(weight),
        allowed,
    )
    assert np.all(np.asarray(gradient)[:, 2:4] == 0)
    assert np.all(np.asarray(gradient)[:, [0, 1, 4]] != 0)


def test_nothing_allowed_gives_neither_nan_nor_gradient():
    loss, gradient = jax.value_and_grad(cross_entropy)(
        jnp.ones((1, 3)), jnp.array([1]), ONE, jnp.zeros(3, bool)
    )
    assert loss == 0
    assert np.all(gradient == 0)


@pytest.mark.parametrize("label", [2, -1, 7])
def test_a_row_whose_label_cannot_win_counts_for_nothing(label):
    allowed = jnp.array([True, True, False])
    logits = jnp.array([[0.3, -0.2, 0.1], [1.0, 2.0, 3.0]])
    both = cross_entropy(logits, jnp.array([0, label]), jnp.ones(2), allowed)
    alone = cross_entropy(logits[:1], jnp.array([0]), ONE, allowed)
    np.testing.assert_allclose(both, alone, rtol=1e-6)


def with_padding(array, fill):
    return jnp.concatenate([array, jnp.full_like(array[:2], fill)])


@pytest.mark.parametrize("fill", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("name", ["cross_entropy", "cosine_distance", "distillation"])
def test_rows_of_weight_zero_change_neither_loss_nor_gradient(name, fill):
    logits, label, weight = (jnp.asarray(a) for a in random_batch())
    other = jnp.asarray(random_batch(seed=1)[0])
    every = jnp.ones(5, bool)

    def loss(x, padded):
        fit = (lambda a: with_padding(a, fill)) if padded else (lambda a: a)
        w = jnp.concatenate([weight, jnp.zeros(2)]) if padded else weight
        y = jnp.concatenate([label, jnp.array([-1, 0])]) if padded else label
        if name == "cross_entropy":
            return cross_entropy(fit(x), y, w, every)
        if name == "cosine_distance":
            return cosine_distance(fit(x), fit(other), w)
        return distillation(fit(other), fit(x), 2.0, every, w)

    plain = jax.value_and_grad(lambda x: loss(x, False))(logits)
    padded = jax.value_and_grad(lambda x: loss(x, True))(logits)
    np.testing.assert_allclose(padded[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(padded[1], plain[1], rtol=1e-5, atol=1e-7)


def test_padding_itself_gets_a_gradient_of_zero():
    logits = jnp.array([[1.0, 2.0, 3.0], [np.nan, np.nan, np.nan]])
    gradient = jax.grad(cross_entropy)(
        logits, jnp.array([0, 0]), jnp.array([1.0, 0.0]), EVERY
    )
    assert np.all(np.asarray(gradient)[1] == 0)


def test_weighted_mean_of_hits_keeps_fractional_weights():
    hits, weight = jnp.array([True, False, True]), jnp.array([0.5, 0.75, 0.0])
    np.testing.assert_allclose(losses.weighted_mean(hits, weight), 0.4, rtol=1e-6)


def test_weighted_mean_of_nothing_is_zero():
    assert losses.weighted_mean(jnp.array([jnp.nan, 1.0]), jnp.zeros(2)) == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_mask_logits_is_finite_in_short_formats(dtype):
    masked = losses.mask_logits(
        jnp.zeros((2, 3), dtype), jnp.array([True, False, True])
    )
    assert masked.dtype == dtype
    assert jnp.all(jnp.isfinite(masked))
    probability = jax.nn.softmax(masked, axis=-1)
    assert jnp.all(probability[:, 1] == 0)


def test_losses_of_bfloat16_are_summed_in_float32():
    logits = jnp.zeros((2, 4), jnp.bfloat16)
    loss = cross_entropy(logits, jnp.zeros(2, int), jnp.ones(2), jnp.ones(4, bool))
    assert loss.dtype == jnp.float32


def test_cosine_distance_in_closed_form():
    z = jnp.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    reference = jnp.array([[6.0, 8.0], [-2.0, 0.0], [1.0, 0.0]])
    weight = jnp.array([1.0, 3.0, 0.0])
    loss = cosine_distance(z, reference, weight)
    np.testing.assert_allclose(loss, (0 * 1 + 2 * 3) / 4, atol=1e-6)
    gradient = jax.grad(cosine_distance, argnums=1)(z, reference, weight)
    assert np.all(gradient == 0)


def test_cosine_distance_of_zero_vectors_has_a_finite_gradient():
    gradient = jax.grad(cosine_distance)(jnp.zeros((1, 4)), jnp.ones((1, 4)), ONE)
    assert jnp.all(jnp.isfinite(gradient))


def distill(student, teacher=TEACHER, temperature=2.0, allowed=EVERY, form="kl"):
    return distillation(teacher, student, temperature, allowed, ONE, form)


def test_distillation_of_identical_models():
    loss, gradient = jax.value_and_grad(distill)(TEACHER)
    assert loss == 0
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    value, gradient = jax.value_and_grad(distill)(TEACHER, form="cross_entropy")
    np.testing.assert_allclose(value, 3.901311, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_distillation_value_and_gradient():
    student = jnp.array([[0.0, 2.0, 0.0]])
    loss, gradient = jax.value_and_grad(distill)(student)
    np.testing.assert_allclose(loss, 1.456701, atol=1e-5)
    np.testing.assert_allclose(gradient, [[-0.72835, 0.72835, 0.0]], atol=1e-5)
    np.testing.assert_allclose(distill(student + 5.0), loss, atol=1e-5)
    of_teacher = jax.grad(lambda t: distill(student, teacher=t))(TEACHER)
    assert np.all(of_teacher == 0)


def test_distillation_sees_the_allowed_classes_only():
    rng = np.random.default_rng(3)
    teacher, student = rng.normal(size=(2, 1, 4)).astype(np.float32)
    allowed = np.array([True, False, True, True])
    p, q = (softmax(a[0, allowed] / 3) for a in (teacher, student))
    expected = 9 * np.sum(p * np.log(p / q))
    arguments = jnp.asarray(student), jnp.asarray(teacher), 3.0, jnp.asarray(allowed)
    loss, gradient = jax.value_and_grad(distill)(*arguments)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert gradient[0, 1] == 0
    assert distill(*arguments[:3], jnp.zeros(4, bool)) == 0


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        logits = jnp.array([[2.0, 0.0, 0.0]], jnp.float64)
        loss = cross_entropy(logits, jnp.array([1]), jnp.ones(1), EVERY)
        assert loss.dtype == jnp.float64
        np.testing.assert_allclose(loss, np.log(np.e**2 + 2), rtol=1e-14)
