"""The router and the blend, with numbers known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from mmcl_jax.methods import router
from mmcl_jax.methods.comm.aggregation import blend_weights
from mmcl_jax.ops import gaussians, relevance
from mmcl_jax.types import Classes

update = jax.jit(gaussians.update)
linear_discriminant = jax.jit(relevance.linear_discriminant)
discriminant = jax.jit(relevance.discriminant)
modality_scores = jax.jit(
    relevance.modality_scores, static_argnames=("num_modalities",)
)
relevances = jax.jit(relevance.relevance)
calibrate = jax.jit(relevance.calibrate_temperature)
blend = jax.jit(relevance.blend)


@pytest.mark.parametrize(
    "prior, at_second, between", [([1, 1], 0.880797, 0.5), ([3, 1], 0.711235, 0.25)]
)
def test_two_classes_by_hand(prior, at_second, between):
    mean = jnp.array([[0.0, 0.0], [2.0, 0.0]])
    A, b, _ = linear_discriminant(mean, jnp.eye(2), jnp.array(prior, jnp.float32))
    query = np.array([[2.0, 0.0], [1.0, 5.0], [1.0, -3.0]])
    probability = softmax(query @ np.asarray(A).T + np.asarray(b), axis=1)[:, 1]
    np.testing.assert_allclose(probability, [at_second, between, between], atol=1e-5)


def test_logits_are_the_log_posteriors_up_to_a_constant():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        mean, root = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
        covariance = root @ root.T + np.eye(3)
        prior = np.array([0.1, 0.2, 0.0, 0.7])
        A, b, _ = linear_discriminant(*map(jnp.asarray, (mean, covariance, prior)))
        query = rng.normal(size=(5, 3))
        difference = query[:, None] - mean[[0, 1, 3]]
        inverse = np.linalg.inv(covariance)
        square = np.einsum("bcd,de,bce->bc", difference, inverse, difference)
        expected = softmax(np.log(prior[[0, 1, 3]]) - square / 2, axis=1)
        probability = softmax(query @ np.asarray(A).T + np.asarray(b), axis=1)
        np.testing.assert_allclose(probability[:, [0, 1, 3]], expected, rtol=1e-9)
        assert np.all(probability[:, 2] == 0)


def test_discriminant_leaves_out_unseen_classes_and_those_without_samples():
    x = jnp.array([[0.0, 1], [0.2, 1], [1, 0], [1, 0.3], [5, 5], [5, 6]])
    label = jnp.array([0, 0, 1, 1, 2, 2])
    stats = update(gaussians.init(4, 1, 2), x, label, jnp.ones(6), 0)
    seen = jnp.array([True, True, False, True])
    A, b, _ = discriminant(stats, seen, jnp.full(4, 0.25), 0.1)
    assert np.all(np.asarray(A)[2:] == 0)
    assert np.all(np.asarray(b)[2:] < -1e8)
    assert np.all(np.asarray(x @ A.T + b[None]).argmax(1)[:4] == label[:4])


def test_discriminant_of_nothing_is_finite():
    stats = gaussians.init(3, 2, 4)
    A, b, _ = discriminant(stats, jnp.zeros(3, bool), jnp.zeros(3), 0.1)
    assert np.all(A == 0)
    assert np.all(np.isfinite(b))
    modality = jnp.zeros(3, int)
    seen = jnp.zeros(3, bool)
    scores = modality_scores(jnp.ones((1, 4)), A, b, modality, seen, 2)
    weights = relevances(scores, jnp.zeros(2, bool), 1.0)
    assert np.all(weights == 0)


def test_balanced_prior():
    classes = jnp.array([True, True, True, False, True, False])
    modality = jnp.array([0, 0, 0, 0, 2, 1])
    prior = relevance.balanced_prior(classes, modality, 3)
    np.testing.assert_allclose(prior, [1 / 6, 1 / 6, 1 / 6, 0, 1 / 2, 0], rtol=1e-6)
    seen = relevance.modalities_of(classes, modality, 3)
    np.testing.assert_array_equal(seen, [True, False, True])
    assert np.all(relevance.balanced_prior(jnp.zeros(6, bool), modality, 3) == 0)


def test_modality_scores_sum_up_the_seen_classes():
    rng = np.random.default_rng(0)
    query, A = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    b = rng.normal(size=5)
    seen = np.array([True, True, False, True, False])
    modality = np.array([1, 0, 1, 1, 2])
    logits = query @ A.T + b
    of_first = logits[:, 1]
    of_second = logsumexp(logits[:, [0, 3]], axis=1)
    arguments = (jnp.asarray(a, jnp.float32) for a in (query, A, b))
    scores = modality_scores(*arguments, jnp.asarray(modality), jnp.asarray(seen), 4)
    np.testing.assert_allclose(scores[:, 0], of_first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores[:, 1], of_second, rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(scores)[:, 2:] < -1e8)
    assert np.all(np.isfinite(scores))


@pytest.mark.parametrize(
    "temperature, seen, expected",
    [
        (1.0, [True, True, True], [0.665241, 0.244728, 0.090031]),
        (2.0, [True, True, True], [0.506480, 0.307196, 0.186324]),
        (1.0, [True, True, False], [0.731059, 0.268941, 0.0]),
    ],
)
def test_relevance_by_hand(temperature, seen, expected):
    scores, seen = jnp.array([[2.0, 1.0, 0.0]]), jnp.array(seen)
    weights = np.asarray(relevances(scores, seen, temperature))
    np.testing.assert_allclose(weights, [expected], atol=1e-6)
    assert np.all(weights[:, ~np.asarray(seen)] == 0)


@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e12])
def test_unseen_modalities_have_no_weight_at_any_temperature(temperature):
    scores = jnp.array([[500.0, -500.0, -1e9, 900.0]])
    seen = jnp.array([True, True, False, False])
    weights = np.asarray(relevances(scores, seen, temperature))
    assert np.all(weights[0, 2:] == 0)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_residual_relevance():
    scores = jnp.array([[2.0, 1.0, 0.0], [2.0, 1.0, 1e4]])
    own, seen = jnp.array([0, 2]), jnp.ones(3, bool)
    residual = jax.jit(relevance.residual_relevance)
    weights = residual(scores, own, seen, 1.0, 0.5)
    first = 1 / (1 + np.exp(-1))
    expected = [
        [1, 0.5 * first, 0.5 * (1 - first)],
        [0.5 * first, 0.5 * (1 - first), 1],
    ]
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    several = jnp.array([[True, True, False], [False, False, True]])
    weights = residual(scores, own, several, 1.0, 0.5)
    np.testing.assert_allclose(weights, [[1, 0.5, 0], [0, 0, 1]], rtol=1e-6)
    alone = jnp.array([True, False, False])
    weights = residual(scores[:1], own[:1], alone, 1.0, 0.5)
    np.testing.assert_array_equal(weights, [[1, 0, 0]])


def test_blend_of_a_pytree():
    rng = np.random.default_rng(0)
    prompts = {
        "key": jnp.asarray(rng.normal(size=(3, 2, 4, 5)), jnp.float32),
        "value": jnp.asarray(rng.normal(size=(3, 7)), jnp.float32),
    }
    weights = rng.dirichlet(np.ones(3), size=4).astype(np.float32)
    blended = blend(jnp.asarray(weights), prompts)
    expected = sum(
        weights[:, m, None, None, None] * np.asarray(prompts["key"])[m]
        for m in range(3)
    )
    np.testing.assert_allclose(blended["key"], expected, rtol=1e-5, atol=1e-6)
    assert blended["value"].shape == (4, 7)

    chosen = blend(jnp.eye(3)[jnp.array([2, 0])], prompts)
    np.testing.assert_array_equal(chosen["key"], prompts["key"][jnp.array([2, 0])])
    equal = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), prompts)
    same = blend(jnp.asarray(weights), equal)
    np.testing.assert_allclose(same["value"][3], prompts["value"][0], rtol=1e-6)


def scores_of(gap, rows=200, modalities=4):
    """Scores whose own modality leads by about `gap`, and is sometimes beaten."""
    rng = np.random.default_rng(0)
    own = rng.integers(0, modalities, rows)
    scores = 0.3 * gap * rng.normal(size=(rows, modalities))
    scores[np.arange(rows), own] += gap
    return jnp.asarray(scores, jnp.float32), jnp.asarray(own)


@pytest.mark.parametrize("gap", [1e-2, 1.0, 5e3])
@pytest.mark.parametrize("target", [0.5, 0.7, 0.9])
def test_calibration_reaches_its_target_at_any_scale(gap, target):
    scores, own = scores_of(gap)
    seen, weight = jnp.ones(4, bool), jnp.ones(200)
    temperature, achieved = calibrate(scores, own, seen, weight, target)
    weights = softmax(np.asarray(scores) / float(temperature), axis=1)
    mean = weights[np.arange(200), own].mean()
    np.testing.assert_allclose(mean, target, atol=1e-3)
    np.testing.assert_allclose(achieved, mean, atol=1e-5)


def test_calibration_ignores_padding_and_unseen_modalities():
    scores, own = scores_of(3.0)
    seen = jnp.ones(4, bool)
    plain = calibrate(scores, own, seen, jnp.ones(200))
    hidden = jnp.full((200, 1), relevance.MASKED)
    padded = calibrate(
        jnp.concatenate([jnp.hstack([scores, hidden]), jnp.full((5, 5), jnp.nan)]),
        jnp.concatenate([own, jnp.zeros(5, int)]),
        jnp.array([True, True, True, True, False]),
        jnp.concatenate([jnp.ones(200), jnp.zeros(5)]),
    )
    np.testing.assert_allclose(padded, plain, rtol=1e-4)
    # Seen by name, but without a sample there is no score to take the range of.
    unmeasured = calibrate(
        jnp.hstack([scores, hidden]), own, jnp.ones(5, bool), jnp.ones(200)
    )
    np.testing.assert_allclose(unmeasured, plain, rtol=1e-4)


def test_calibration_of_two_separate_sets_of_modalities():
    scores, own = scores_of(3.0)
    pair = jnp.arange(4) // 2
    allowed = pair[own][:, None] == pair[None, :]
    temperature, achieved = calibrate(scores, own, allowed, jnp.ones(200))
    lead = scores[jnp.arange(200), own] - scores[jnp.arange(200), own ^ 1]
    mean = np.mean(1 / (1 + np.exp(-np.asarray(lead) / float(temperature))))
    np.testing.assert_allclose([mean, achieved], 0.7, atol=1e-3)


def test_calibration_clamps_what_cannot_be_reached():
    weight = jnp.ones(200)
    single = calibrate(
        jnp.zeros((200, 1)), jnp.zeros(200, int), jnp.ones(1, bool), weight
    )
    np.testing.assert_allclose(single, (100, 1), rtol=1e-5)
    scores, own = scores_of(1.0)
    wrong = calibrate(-scores, own, jnp.ones(4, bool), weight)
    spread = np.ptp(np.asarray(scores), axis=1).mean()
    np.testing.assert_allclose(wrong[0], 0.01 * spread, rtol=1e-4)
    assert wrong[1] < 0.05
    nothing = calibrate(scores, own, jnp.ones(4, bool), jnp.zeros(200))
    assert np.all(np.isfinite(nothing))


def test_ten_gaussian_modalities_reach_the_bayes_rate():
    rng = np.random.default_rng(0)
    modalities, dim, train, test = 10, 8, 200, 1000
    mean = rng.normal(size=(modalities, dim))
    root = np.tril(rng.normal(size=(dim, dim))) * 0.5 + np.eye(dim)

    def draw(number):
        label = np.repeat(np.arange(modalities), number)
        return mean[label] + rng.normal(size=(len(label), dim)) @ root.T, label

    stats = gaussians.init(modalities, modalities, dim)
    index = jnp.arange(modalities)
    x, label = draw(train)
    for task in range(modalities):
        rows = label == task
        arguments = jnp.asarray(x[rows], jnp.float32), jnp.asarray(label[rows])
        stats = update(stats, *arguments, jnp.ones(train), index)
    every = jnp.ones(modalities, bool)
    prior = relevance.balanced_prior(every, index, modalities)
    A, b, _ = discriminant(stats, every, prior, 0.0)

    x, label = draw(test)
    query = jnp.asarray(x, jnp.float32)
    scores = modality_scores(query, A, b, index, every, modalities)
    routed = (np.asarray(scores).argmax(1) == label).mean()
    white = np.linalg.solve(root, (x[:, None] - mean).reshape(-1, dim).T).T
    square = np.sum(white**2, axis=1).reshape(-1, modalities)
    bayes = (square.argmin(1) == label).mean()
    assert 0.5 < bayes < 0.99
    assert abs(bayes - routed) < 0.015


@pytest.mark.parametrize(
    "classes, each", [(3, 32), (128, 32), (200, 20), (1000, 4), (5000, 1)]
)
def test_draws_of_many_classes_are_bounded_together(classes: int, each: int) -> None:
    shape = jax.ShapeDtypeStruct
    slots = Classes(
        shape((classes, 2), jnp.float32),
        shape((classes,), bool),
        shape((classes,), bool),
        shape((classes,), jnp.int32),
    )
    stats = jax.eval_shape(lambda: gaussians.init(classes, 2, 2))
    drawn, own, weight, _ = jax.eval_shape(
        lambda key, stats, slots: router.pseudo_queries(key, stats, slots),
        jax.eval_shape(lambda: jax.random.key(0)),
        stats,
        slots,
    )
    assert drawn.shape == (each * classes, 2)
    assert own.shape == weight.shape == (each * classes,)


def test_without_a_blend_the_given_modality_has_its_adapter() -> None:
    # the third is given: its score was raised to that of the first
    scores, own = jnp.array([[3.0, 1.0, 3.0]]), jnp.array([2])
    allowed = jnp.ones((1, 3), bool)
    weights = blend_weights(scores, own, allowed, "none", jnp.ones(()), 0.5)
    assert weights.tolist() == [[0, 0, 1]]
