"""Agreement of predictions and likeness of spaces: by hand and by definition."""

import itertools
import math

import numpy as np
import pytest

from mmcl_jax.analysis import paired_tests


@pytest.mark.parametrize(("first", "second"), [(5, 1), (0, 9), (3, 3), (0, 0), (40, 9)])
def test_mcnemar_is_a_binomial_test(first: int, second: int):
    right = np.array([True] * first + [False] * second + [True] * 7)
    other = np.array([False] * first + [True] * second + [True] * 7)
    found = paired_tests.mcnemar(right, other)
    assert found[:2] == (first, second)
    fewer, total = min(first, second), first + second
    tail = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
    # both tails; where they meet, they are everything
    expected = min(1.0, 2 * tail)
    assert found.p_value == pytest.approx(expected, rel=1e-12)


def test_mcnemar_by_hand_and_at_its_ends():
    right = np.arange(9) < 8
    # 2 (C(9, 0) + C(9, 1)) / 2^9
    found = paired_tests.mcnemar(right, ~right)
    assert found.p_value == pytest.approx(20 / 512, rel=1e-12)
    many = paired_tests.mcnemar(np.ones(500, bool), np.zeros(500, bool))
    assert many.p_value == pytest.approx(2.0**-499, rel=1e-12, abs=0)


def test_kappa_by_hand():
    # 20 both yes, 5 and 10 apart, 15 both no: p_o = .7, p_e = .5
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert paired_tests.cohen_kappa(first, second) == pytest.approx(0.4)
    assert paired_tests.share_equal(first, second) == pytest.approx(0.7)
    assert paired_tests.cohen_kappa(first, first) == 1
    assert np.isnan(paired_tests.cohen_kappa(first[:3], first[:3]))
    assert np.isnan(paired_tests.cohen_kappa(first[:0], first[:0]))
    independent = np.tile([0, 1, 2], 300), np.repeat([0, 1, 2], 300)
    assert paired_tests.cohen_kappa(*independent) == pytest.approx(0, abs=1e-12)


def test_the_paired_interval_is_that_of_draws_of_samples():
    rng = np.random.default_rng(1)
    one, other = rng.random(60) < 0.5, rng.random(60) < 0.7
    found = paired_tests.paired_difference([one], [other])
    change = other.astype(float) - one
    drawn = change[rng.integers(60, size=(40_000, 60))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.first, found.second) == (one.mean(), other.mean())
    assert found.difference == pytest.approx(change.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_pairing_takes_away_what_both_have_in_common():
    hard = np.arange(100) < 50  # half of the samples, which both have wrong
    better = ~hard | (np.arange(100) < 4)
    found = paired_tests.paired_difference([~hard], [better])
    # of one Bernoulli difference of 4 %, not of two accuracies of 50 %
    assert found.high - found.low < 0.1
    assert found.low > 0


def test_tasks_count_alike_whatever_their_size():
    small, large = np.ones(2, bool), np.ones(200, bool)
    found = paired_tests.paired_difference([small, large], [~small, large])
    assert found == (1.0, 0.5, -0.5, -0.5, -0.5)
    assert np.isnan(paired_tests.paired_difference([], []).low)
    assert np.isnan(paired_tests.paired_difference([small[:0]], [small[:0]]).low)


def test_hsic_is_the_mean_over_all_fours_of_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    # Song et al. 2012, the U-statistic that their equation (5) is short for
    terms = [
        k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q]
        for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert paired_tests.hsic(k, l) == pytest.approx(np.mean(terms))
    with pytest.raises(ValueError, match="3 samples"):
        paired_tests.hsic(k[:3, :3], l[:3, :3])


@pytest.mark.parametrize("debiased", [True, False])
def test_cka_sees_neither_rotation_nor_scale_nor_place(debiased: bool):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), rng.normal(size=(30, 5))
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    plain = paired_tests.linear_cka(x, y, debiased)
    assert paired_tests.linear_cka(x, x, debiased) == pytest.approx(1)
    assert paired_tests.linear_cka(x, 3 * x @ turn + 7, debiased) == pytest.approx(1)
    assert paired_tests.linear_cka(2 * x @ turn - 1, y, debiased) == pytest.approx(
        plain
    )
    assert paired_tests.linear_cka(y, x, debiased) == pytest.approx(plain)
    order = rng.permutation(30)
    assert paired_tests.linear_cka(x[order], y[order], debiased) == pytest.approx(plain)
    # another linear map is another space
    stretched = x * np.array([9, 1, 1, 1, 1, 1, 1, 1])
    assert paired_tests.linear_cka(x, stretched, debiased) < 0.9


def test_cka_by_hand():
    # centred already: cov(x, y)^2 / (var x var y) in one dimension
    x, y = np.array([[-1.0], [0], [0], [1]]), np.array([[-1.0], [1], [-1], [1]])
    assert paired_tests.linear_cka(x, y, debiased=False) == pytest.approx(4 / (2 * 4))
    # off the diagonal K has -1 at the ends of x alone, and L the signs of y
    k = -np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    l = np.array(  # noqa: E741
        [[0, -1, 1, -1], [-1, 0, -1, 1], [1, -1, 0, -1], [-1, 1, -1, 0]]
    )
    # tr(KL) = 2, sums -2 and -4, rows (-1 0 0 -1) and (-1 -1 -1 -1), over 4 (4 - 3)
    assert paired_tests.hsic(k, l) == pytest.approx((2 + 8 / 6 - 2 * 2 / 2) / 4)
    own = (2 + 4 / 6 - 2 * 2 / 2) / 4, (12 + 16 / 6 - 2 * 4 / 2) / 4
    expected = (2 + 8 / 6 - 2) / 4 / np.sqrt(own[0] * own[1])
    assert paired_tests.linear_cka(x, y) == pytest.approx(expected)


def test_the_debiased_cka_of_independent_spaces_is_about_zero():
    rng = np.random.default_rng(0)
    found = [
        [
            paired_tests.linear_cka(*rng.normal(size=(2, 40, 200)), debiased)
            for _ in range(20)
        ]
        for debiased in (True, False)
    ]
    assert abs(np.mean(found[0])) < 0.02
    assert np.mean(found[1]) > 0.7
    assert np.isnan(paired_tests.linear_cka(np.ones((5, 2)), np.ones((5, 2))))


def test_each_sample_is_of_one_kind():
    before, after = (
        np.array(list(bits), bool) for bits in ([1, 1, 0, 0], [1, 0, 1, 0])
    )
    found = paired_tests.flips(before, after)
    kinds = ("right", "forgotten", "recovered", "wrong")
    for sample, kind in enumerate(kinds):
        assert np.flatnonzero(getattr(found, kind)).tolist() == [sample]


def test_displacement_of_what_stays_and_of_nothing():
    x = np.array([1.0, -2.0])
    assert paired_tests.displacement(x, x)[1:] == (0.0, 0.0, 1.0)
    assert paired_tests.displacement(x, -2 * x)[2:] == pytest.approx((3.0, -1.0))
    moved = paired_tests.displacement(0 * x, x)
    assert moved.change == pytest.approx(np.sqrt(5))
    assert np.isnan(moved.relative) and np.isnan(moved.cosine)
    masks = paired_tests.displacement(np.array([True, False]), np.array([True, True]))
    assert masks.change == 1
