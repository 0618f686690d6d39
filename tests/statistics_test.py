"""Statistics over runs, against hand numbers, exact distributions and NumPy."""

import itertools

import numpy as np
import pytest

from mmcl_jax.analysis.statistics import (
    bootstrap_interval,
    mean_ranks,
    paired_difference,
    summary,
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


@pytest.mark.parametrize("values", [[0.0, 1.0], [3.0, 1.0, 2.0], [1.0, 1.0, 4.0, 9.0]])
def test_bootstrap_follows_its_exact_distribution(values: list[float]) -> None:
    # all n^n draws, each as likely as another
    means = [np.mean(draw) for draw in itertools.product(values, repeat=len(values))]
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert bootstrap_interval(values) == pytest.approx((low, high), abs=1e-12)


def test_bootstrap_of_many_runs_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=400)
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    expected = (values.mean() - half, values.mean() + half)
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.02)
    rng = np.random.default_rng(0)
    means = values[rng.integers(400, size=(10_000, 400))].mean(1)
    drawn = tuple(np.quantile(means, [0.025, 0.975]))
    assert bootstrap_interval(values) == pytest.approx(drawn, abs=1e-9)
    assert bootstrap_interval(values) == bootstrap_interval(values.tolist())
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)


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
