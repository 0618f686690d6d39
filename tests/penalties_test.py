"""What distillation, penalties and averaging add to sequential tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.methods.ewc import Options as EwcOptions
from mmcl_jax.methods.ewc import make as ewc
from mmcl_jax.methods.wrappers import with_averaging, with_interpolation
from mmcl_jax.methods.zscl import Options as ZsclOptions
from mmcl_jax.methods.zscl import make as zscl
from mmcl_jax.ops import losses
from tests import by_hand
from tests.tuned import CASES, KEY, ROWS, SHARED, STAGES, Stream, tuned, with_options


def test_lwf_distils_what_the_adapters_before_said(encoder):
    stream = Stream(encoder, CASES["lwf"][0], SHARED)
    stream.learn([0])
    stream.begin(1)
    batch = stream.batch(1)
    before = stream.logits(1)
    stream.move(0.5)
    after = stream.logits(1)
    old = jnp.arange(2 * STAGES) < 2
    expected = losses.distillation(before, after, 2.0, old, batch.weight)
    (value, metrics), _ = stream.gradient(1)
    np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-2)
    np.testing.assert_allclose(value, metrics["alignment"] + expected, rtol=1e-5)


def test_zscl_distils_the_frozen_encoder_in_both_directions(encoder):
    stream = Stream(encoder, CASES["zscl"][0], SHARED)
    stream.learn([0])
    stream.begin(1)
    at, batch = stream.context(1), stream.batch(1)
    student = np.asarray(stream.logits(1))[:, :2]
    teacher = 10 * np.asarray(batch.query @ at.classes.text[:2].T)

    def divergence(p, q):
        p, q = (np.exp(x / 2) for x in (p, q))
        p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
        return 4 * np.mean(np.sum(p * np.log(p / q), -1))

    expected = divergence(teacher, student) + divergence(teacher.T, student.T)
    metrics = stream.gradient(1)[0][1]
    np.testing.assert_allclose(metrics["distillation"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    "kind",
    [
        "empirical",
        *(
            pytest.param(k, marks=pytest.mark.full("methods"))
            for k in ("true", "batch")
        ),
    ],
)
def test_information_of_tasks_is_added_up_as_it_decays(encoder, kind: str):
    options = EwcOptions(fisher=kind, decay=0.5)
    stream = Stream(encoder, with_options(ewc, options), SHARED)
    alone = Stream(encoder, with_options(ewc, options), SHARED)
    stream.learn([0], by=0.0)
    first = stream.memory["fisher"]
    stream.learn([1], by=0.0)
    alone.learn([1], by=0.0)
    jax.tree.map(
        lambda both, a, b: np.testing.assert_allclose(
            both, 0.5 * a + b, rtol=1e-4, atol=1e-8
        ),
        stream.memory["fisher"],
        first,
        alone.memory["fisher"],
    )


def test_the_square_of_a_mean_is_less_than_the_mean_of_squares(encoder):
    sums = {}
    for kind in ("empirical", "batch"):
        stream = Stream(encoder, with_options(ewc, EwcOptions(fisher=kind)), SHARED)
        stream.learn([0], by=0.0)
        sums[kind] = sum(x.sum() for x in jax.tree.leaves(stream.memory["fisher"]))
    assert 0 < sums["batch"] < sums["empirical"]


def test_information_is_the_mean_over_samples_of_squared_gradients(encoder):
    stream = Stream(encoder, with_options(ewc, EwcOptions(fisher="empirical")), SHARED)
    stream.begin(0)
    batch, at = stream.batch(0), stream.context(0)
    plain = by_hand.loss(tuned(stream.model, SHARED), stream.model)
    squares = []
    for row in range(ROWS):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], batch)
        gradient = jax.grad(plain, has_aux=True)(stream.params, at, alone, KEY)[0]
        squares.append(jax.tree.map(jnp.square, gradient))
    expected = jax.tree.map(lambda *rows: sum(rows) / ROWS, *squares)
    stream.end(0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-9),
        stream.memory["fisher"],
        expected,
    )


def _averaged(interval: int, share: float | None = None):
    def build(model, sharing):
        method = tuned(model, sharing)
        if share is not None:
            method = with_interpolation(method, share)
        return with_averaging(method, interval)

    return build


@pytest.mark.parametrize(
    ("interval", "steps", "expected"),
    [
        (1, (2.0, 4.0), 7 / 3),
        (2, (9.0, 2.0, 9.0, 4.0), 7 / 3),
        # the last step counts, between two that are due as well
        (2, (9.0, 2.0, 4.0), 7 / 3),
        (10, (3.0,), 2.0),
        (10, (), 1.0),
    ],
)
def test_mean_of_start_and_steps_is_left_behind(encoder, interval, steps, expected):
    stream = Stream(encoder, _averaged(interval), SHARED)
    stream.params = jax.tree.map(jnp.ones_like, stream.params)
    stream.begin(0)
    for value in steps:
        stream.step(0, value)
    stream.end(0)
    for leaf in jax.tree.leaves(stream.params):
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)


def test_the_mean_is_what_is_interpolated_within(encoder):
    stream = Stream(encoder, _averaged(1, 0.75), SHARED)
    stream.params = jax.tree.map(jnp.ones_like, stream.params)
    stream.begin(0)
    stream.step(0, 4.0)  # the mean is 2.5
    stream.end(0)
    for leaf in jax.tree.leaves(stream.params):
        np.testing.assert_allclose(leaf, 0.25 + 0.75 * 2.5, rtol=1e-6)


def test_zscl_without_its_parts_is_sequential(encoder):
    options = ZsclOptions(weight=0.0, averaging_interval=None)
    stream, plain = Stream(encoder, with_options(zscl, options)), Stream(encoder, tuned)
    for each in (stream, plain):
        each.learn([0])
        each.begin(1)
    left, right = stream.gradient(1), plain.gradient(1)
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert stream.memory.keys() == plain.memory.keys()
