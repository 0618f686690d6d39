"""Accuracies beside chance, against published values."""

import numpy as np
import pytest

from mmcl_jax.evaluation.guessing import ALONE, BETTER, NO_BETTER, WORSE, judge


def _judge(right: int, total: int, classes: int = 2):
    """Returns the verdict on samples of equally large classes."""
    label = np.arange(total) % classes
    wrong = (label + 1) % classes
    return judge(label, np.where(np.arange(total) < right, label, wrong), classes)


@pytest.mark.parametrize(
    ("right", "low", "high"),
    # tables of Clopper and Pearson for ten samples
    [(0, 0.0, 0.3085), (1, 0.0025, 0.4450), (8, 0.4439, 0.9748), (10, 0.6915, 1.0)],
)
def test_intervals_are_exact(right: int, low: float, high: float) -> None:
    found = _judge(right, 10)
    assert found.accuracy == right / 10
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(
    ("right", "verdict"), [(1, WORSE), (2, NO_BETTER), (8, NO_BETTER), (9, BETTER)]
)
def test_verdicts_on_ten_samples_of_two_classes(right: int, verdict: str) -> None:
    found = _judge(right, 10)
    assert found.chance == pytest.approx(0.5)
    assert found.verdict == verdict


def test_more_samples_tell_smaller_differences() -> None:
    assert _judge(15, 100, 10).verdict == NO_BETTER
    assert _judge(150, 1000, 10).verdict == BETTER


def test_the_most_frequent_class_alone_is_a_guess() -> None:
    label = np.repeat([0, 1, 2], [90, 5, 5])
    found = judge(label, np.zeros_like(label), 3)
    assert (found.accuracy, found.chance) == (0.9, 0.9)
    assert found.verdict == NO_BETTER
    # half of the small classes are found, and all of the large one
    chosen = label.copy()
    chosen[-2:] = chosen[90:93] = 0
    found = judge(label, chosen, 3)
    assert found.chance == pytest.approx(0.9 * 0.95 + 0.05 * 0.02 + 0.05 * 0.03)
    assert found.verdict == BETTER


def test_chance_is_the_mean_of_guesses() -> None:
    rng = np.random.default_rng(0)
    label, chosen = (
        np.repeat([0, 1, 2], [10, 20, 70]),
        rng.choice(3, 100, p=[0.5, 0.3, 0.2]),
    )
    guesses = [(label == rng.permutation(chosen)).mean() for _ in range(4000)]
    assert judge(label, chosen, 3).chance == pytest.approx(np.mean(guesses), abs=4e-3)


def test_one_class_tells_nothing() -> None:
    label = np.zeros(5, int)
    assert judge(label, label, 1).verdict == ALONE
