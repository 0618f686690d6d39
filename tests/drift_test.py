import jax.numpy as jnp
import numpy as np

from mmcl_jax.ops import drift, gaussians


def two_classes() -> gaussians.Gaussians:
    return gaussians.Gaussians(
        count=jnp.array([4.0, 4.0, 0.0]),
        mean=jnp.array([[0.0, 0.0], [10.0, 0.0], [0.0, 0.0]]),
        scatter=jnp.eye(2)[None] * 3.0,
    )


FOLLOWERS = jnp.array([True, True, True])


def test_each_mean_follows_the_rows_that_it_was_near():
    before = jnp.array([[0.1, 0.0], [-0.1, 0.0], [10.0, 0.5]])
    moved_by = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, -2.0]])
    seen = drift.update(
        drift.init(3, 2),
        two_classes(),
        before,
        before + moved_by,
        jnp.ones(3),
        FOLLOWERS,
        0.0,
    )
    mean = drift.move_means(two_classes(), seen).mean
    # the classes are ten apart and their spread is one, so the kernels are 1 and 0
    np.testing.assert_allclose(mean[0], [2.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(mean[1], [10.0, -2.0], atol=1e-5)


def test_a_common_shift_moves_all_followers_by_it():
    rng = np.random.default_rng(0)
    before = jnp.asarray(rng.normal(5, 3, (64, 2)), jnp.float32)
    shift = jnp.array([0.3, -0.7])
    seen = drift.init(3, 2)
    for part in (slice(0, 10), slice(10, 64)):
        rows = before[part]
        seen = drift.update(
            seen,
            two_classes(),
            rows,
            rows + shift,
            jnp.ones(len(rows)),
            jnp.array([True, False, True]),
            0.1,
        )
    moved = drift.move_means(two_classes(), seen).mean - two_classes().mean
    np.testing.assert_allclose(moved[0], shift, atol=1e-5)
    np.testing.assert_array_equal(moved[1:], 0)


def test_rows_of_weight_zero_change_nothing_even_nan():
    before = jnp.array([[0.1, 0.0], [jnp.nan, jnp.nan]])
    after = jnp.array([[1.1, 0.0], [jnp.nan, 1.0]])
    args = (two_classes(), before, after, jnp.array([1.0, 0.0]), FOLLOWERS, 0.0)
    with_nan = drift.update(drift.init(3, 2), *args)
    args = (two_classes(), before[:1], after[:1], jnp.ones(1), FOLLOWERS, 0.0)
    without = drift.update(drift.init(3, 2), *args)
    np.testing.assert_array_equal(with_nan.total, without.total)
    np.testing.assert_array_equal(with_nan.weight, without.weight)


def test_without_a_follower_the_statistics_stay():
    rows = jnp.ones((2, 2))
    seen = drift.update(
        drift.init(3, 2),
        two_classes(),
        rows,
        rows + 1,
        jnp.ones(2),
        jnp.zeros(3, bool),
        0.0,
    )
    moved = drift.move_means(two_classes(), seen)
    np.testing.assert_array_equal(moved.mean, two_classes().mean)
