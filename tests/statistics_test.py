"""Statistics over runs, against hand numbers, exact distributions and NumPy."""

import itertools

import numpy as np
import pytest
import scipy.stats

from mmcl_jax.analysis.statistics import (
    distinguished,
    groups_of,
    holm,
    mean_ranks,
    paired_difference,
    summary,
    t_interval,
    t_test,
)

NAN = float("nan")


def test_summary_by_hand() -> None:
    found = summary([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3)
    assert found.deviation == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert found.values == (0.1, 0.2, 0.6)
    assert found.low <= found.mean <= found.high


def test_summary_of_one_run_and_of_what_is_not_defined() -> None:
    single = summary([0.5])
    assert (single.mean, single.values) == (0.5, (0.5,))
    assert np.isnan([single.deviation, single.low, single.high]).all()
    undefined = summary([0.5, NAN])
    assert np.isnan(undefined[:4]).all()


def test_t_interval_by_hand() -> None:
    # t of 2 degrees of freedom is 4.302653, of 1 it is 12.706205
    half = 4.302653 * np.sqrt(0.07) / np.sqrt(3)
    assert t_interval([0.1, 0.2, 0.6]) == pytest.approx((0.3 - half, 0.3 + half))
    assert t_interval([0.0, 1.0]) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), 1e-4)
    assert t_interval([2.0, 2.0]) == (2.0, 2.0)
    assert np.isnan(t_interval([2.0])).all() and np.isnan(t_test([2.0]))
    assert (t_test([0.0, 0.0]), t_test([1.0, 1.0])) == (1, 0)


def test_three_normal_runs_are_covered_as_often_as_is_said() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    ends = np.array([t_interval(draw) for draw in draws])
    covered = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert covered == pytest.approx(0.95, abs=0.012)
    p_values = np.array([t_test(draw) for draw in draws[:2000]])
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_holm_by_hand() -> None:
    # 4 * .005, 3 * .01, 2 * .03, and the last not below it
    assert holm([0.01, 0.03, 0.04, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_differences_are_between_runs_of_one_order_and_seed() -> None:
    first = {("a", 0): 0.5, ("a", 1): 0.7, ("b", 0): 0.9}
    second = {("a", 1): 0.6, ("a", 0): 0.2, ("c", 0): 0.0}
    found = paired_difference(first, second)
    assert found
    assert found.values == pytest.approx((0.3, 0.1))
    assert found.mean == pytest.approx(0.2)
    assert paired_difference(first, {("c", 0): 1.0}) is None


def test_a_constant_gain_is_sure_whatever_the_orders_do() -> None:
    base = {(i,): value for i, value in enumerate([0.1, 0.9, 0.5])}
    found = paired_difference({key: v + 0.25 for key, v in base.items()}, base)
    assert found
    assert found[:4] == pytest.approx((0.25, 0, 0.25, 0.25), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], [1, 3, 2]),
        ([1.0, 1.0, 1.0], [2, 2, 2]),
        ([0.5, 0.9, 0.5, 0.1], [2.5, 1, 2.5, 4]),
    ],
)
def test_ranks_of_one_run_by_hand(values: list[float], expected: list[float]) -> None:
    found, count = mean_ranks({str(i): {(0,): x} for i, x in enumerate(values)})
    assert (list(found.values()), count) == (expected, 1)


def test_mean_ranks_are_over_runs_that_all_have() -> None:
    values = {
        "a": {(0,): 0.9, (1,): 0.5, (2,): 0.1, (3,): 1.0},
        "b": {(0,): 0.8, (1,): 0.5, (2,): 0.3},
        "c": {(0,): 0.7, (1,): 0.6, (2,): 0.2, (3,): NAN},
    }
    found, count = mean_ranks(values)
    assert count == 3
    # 1 2.5 3, 2 2.5 1, 3 1 2
    assert found == pytest.approx({"a": 6.5 / 3, "b": 5.5 / 3, "c": 2})
    found, count = mean_ranks({"a": {(0,): 1.0}, "b": {}})
    assert count == 0
    assert np.isnan(list(found.values())).all()


def test_differences_that_are_equal_but_for_rounding_are_certain() -> None:
    assert t_test([0.1, 0.1 + 1e-16, 0.1 - 1e-16]) == 0.0
    assert t_test([0.0, 0.0]) == 1.0
    assert t_test([0.1, 0.1 + 1e-6, 0.1 - 1e-6]) == pytest.approx(0, abs=1e-8)


def test_pairs_are_told_apart_by_holm_over_all_of_them() -> None:
    """As SciPy's paired t test of each pair, times three, two and one."""
    runs = range(6)
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 6))
    values = {
        name: {(i,): float(mean + noise[k, i]) for i in runs}
        for k, (name, mean) in enumerate({"a": 0.9, "b": 0.88, "c": 0.7}.items())
    }
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    p = {
        pair: scipy.stats.ttest_rel(*([*values[n].values()] for n in pair)).pvalue
        for pair in pairs
    }
    ordered = sorted(pairs, key=lambda pair: p[pair])
    adjusted = np.maximum.accumulate([(3 - i) * p[o] for i, o in enumerate(ordered)])
    expected = {
        frozenset(o) for o, q in zip(ordered, adjusted, strict=True) if q < 0.05
    }
    assert distinguished(values) == expected >= {frozenset("ac"), frozenset("bc")}
    # a run that one of them lacks does not count
    values["c"] |= {(9,): 0.0}
    assert distinguished(values) == expected
    assert distinguished({name: {(0,): 1.0} for name in "ab"}) == set()


@pytest.mark.parametrize("seed", range(20))
def test_groups_hold_all_pairs_that_do_not_differ_and_no_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = "abcdefg"
    pairs = [frozenset(p) for p in itertools.combinations(names, 2)]
    different = {pair for pair in pairs if rng.random() < 0.5}
    groups = [set(group) for group in groups_of(names, different)]
    assert set.union(*groups) == set(names)
    for pair in pairs:
        assert (pair in different) != any(pair <= group for group in groups)
    assert not any(a < b or a is not b and a == b for a in groups for b in groups)


def test_groups_by_hand() -> None:
    assert groups_of("abc", []) == [("a", "b", "c")]
    every = [frozenset(p) for p in itertools.combinations("abc", 2)]
    assert groups_of("abc", every) == [("a",), ("b",), ("c",)]
    assert groups_of("abc", [frozenset("ab")]) == [("a", "c"), ("b", "c")]
