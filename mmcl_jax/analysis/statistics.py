"""Statistics over runs: NumPy and SciPy. A run is one order and seed, never one task.

Missing or undefined values are NaN, and so is every result that needs them.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.stats`, which takes most of a second, where it is used

from mmcl_jax.evaluation import metrics

_LEVEL, _CLEAR = 0.95, 0.05
# relative to the largest value
_ROUNDING = 1e-12

# of each method, by what identifies the order and seed of a run
Values = dict[str, dict[tuple, float]]


class Summary(NamedTuple):
    """A summary of one measure over several runs.

    Attributes:
        mean: Mean over runs.
        deviation: Sample standard deviation (`n - 1`); NaN for a single run.
        low: Lower end of the 95 % t interval of the mean; NaN for a single run.
        high: Upper end of the interval.
        values: Value of each run, in the given order.
    """

    mean: float
    deviation: float
    low: float
    high: float
    values: tuple[float, ...]


def summary(values: Sequence[float]) -> Summary:
    """Returns mean, deviation and interval over runs.

    >>> summary([70.0, 72.0, 74.0])[:2]
    (72.0, 2.0)
    """
    array = np.array(values, np.float64)
    mean, deviation = metrics.mean_and_deviation(array)
    return Summary(mean, deviation, *t_interval(array), tuple(array.tolist()))


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the mean by Student's t distribution.

    `mean ± t(n - 1) s / sqrt(n)`, with s the sample deviation. It covers the true mean
    of normal values in 95 % of cases even if there are few, where the percentile
    bootstrap is much too narrow: of three values it lies within their range, which
    covers the mean in three cases of four.

    References:
        Student, "The probable error of a mean", Biometrika, 1908.

    >>> [round(end, 4) for end in t_interval([70.0, 72.0, 74.0])]
    [67.0317, 76.9683]
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2 or np.isnan(array).any():
        return float("nan"), float("nan")
    error = array.std(ddof=1) / np.sqrt(len(array))
    half = scipy.stats.t.ppf((1 + _LEVEL) / 2, len(array) - 1) * error
    return float(array.mean() - half), float(array.mean() + half)


def t_test(values: Sequence[float] | np.ndarray) -> float:
    """Returns the two-sided p-value of Student's t test that the mean is 0.

    NaN for fewer than two values. Values that are equal but for rounding are certain: 1
    if they are 0, else 0.

    >>> round(t_test([1.0, 2.0, 3.0]), 4)
    0.0742
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2 or np.isnan(array).any():
        return float("nan")
    if array.std() <= _ROUNDING * np.abs(array).max():
        return float(not array.any())
    return float(scipy.stats.ttest_1samp(array, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that hold for all tests of a table together.

    The smallest of n is multiplied by n, the next by n - 1, and so on, and none is
    smaller than one before it. Where those below a level are rejected, the probability
    of even one false rejection is at most that level. NaN stays, and does not count.

    References:
        S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    [0.03, 0.06, 0.06, nan]
    """
    array = np.asarray(p_values, np.float64)
    order = [i for i in np.argsort(array) if not np.isnan(array[i])]
    adjusted, highest = array.copy(), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * array[i]))
        adjusted[i] = highest
    return [float(p) for p in adjusted]


def paired_difference(
    first: dict[tuple, float], second: dict[tuple, float]
) -> Summary | None:
    """Returns the differences `first - second` of runs that share order and seed.

    Effects of order and seed that both runs share cancel, so a difference may be clear
    even if the intervals of the two means overlap.

    Args:
        first: Value of each run, by what identifies its order and seed.
        second: Values of the method that it is compared to.

    Returns:
        Their summary; None if no run has a partner.

    >>> paired_difference({(0,): 3.0, (1,): 5.0}, {(0,): 1.0, (1,): 2.0}).values
    (2.0, 3.0)
    """
    common = [key for key in first if key in second]
    if not common:
        return None
    return summary([first[key] - second[key] for key in common])


def mean_ranks(values: Values) -> tuple[dict[str, float], int]:
    """Returns the mean rank of each method over the runs that all of them have.

    Args:
        values: Values of each method, by what identifies a run's order and seed.

    Returns:
        Mean ranks (NaN without common runs), and the number of common runs.

    >>> mean_ranks({"a": {(0,): 0.5}, "b": {(0,): 0.9}, "c": {(0,): 0.5}})
    ({'a': 2.5, 'b': 1.0, 'c': 2.5}, 1)
    """
    found = ranks(values)
    count = len(next(iter(found.values()), ()))
    if not count:
        return dict.fromkeys(values, float("nan")), 0
    return {name: float(np.mean(of)) for name, of in found.items()}, count


def ranks(values: Values) -> dict[str, tuple[float, ...]]:
    """Returns the ranks of each method, one for each run that all of them have.

    Within a run, rank 1 is that of the largest value, and ties share their mean rank.

    >>> ranks({"a": {(0,): 0.5, (1,): 0.8}, "b": {(0,): 0.9, (1,): 0.8}})
    {'a': (2.0, 1.5), 'b': (1.0, 1.5)}
    """
    falling = [[-of[key] for of in values.values()] for key in common_runs(values)]
    if not falling:
        return dict.fromkeys(values, ())
    by_method = scipy.stats.rankdata(falling, axis=1).T.tolist()
    return {name: tuple(of) for name, of in zip(values, by_method, strict=True)}


def common_runs(values: Values) -> list[tuple]:
    """Returns what identifies the runs that all methods have a value of."""
    return [
        key
        for key in next(iter(values.values()), {})
        if all(not np.isnan(of.get(key, np.nan)) for of in values.values())
    ]


def distinguished(values: Values) -> set[frozenset[str]]:
    """Returns the pairs of methods that tests tell apart.

    A pair is one if its paired t test, over the runs that all methods have, has
    p < 0.05 after Holm's correction over all pairs. What two methods do against each
    other does not depend on which others there are, as it would in a test of mean
    ranks, but for the number of pairs that are corrected for.

    References:
        A. Benavoli, G. Corani, F. Mangili, "Should we really use post-hoc tests based
        on mean-ranks?", Journal of Machine Learning Research, 2016.

    >>> runs = {(0,): 0.0, (1,): 0.1, (2,): 0.2}
    >>> better = {key: value + 0.5 for key, value in runs.items()}
    >>> [sorted(pair) for pair in distinguished({"a": runs, "b": better})]
    [['a', 'b']]
    """
    common, pairs = common_runs(values), list(itertools.combinations(values, 2))
    found = [t_test([values[a][k] - values[b][k] for k in common]) for a, b in pairs]
    return {
        frozenset(pair)
        for pair, p in zip(pairs, holm(found), strict=True)
        if p < _CLEAR
    }


def groups_of(
    names: Sequence[str], different: Iterable[frozenset[str]]
) -> list[tuple[str, ...]]:
    """Returns the largest groups of methods none of which differ from each other.

    Two methods share a group if and only if they are no pair of `different`. A group
    that holds a pair is split in two, each without one of them, until none is left;
    a group inside another one is dropped.

    Args:
        names: Methods, in the order in which groups list them.
        different: Pairs of methods that differ.

    Returns:
        Groups, in the order of their members; a method that differs from all others is
        alone in one.

    References:
        H.-P. Piepho, "An algorithm for a letter-based representation of all-pairwise
        comparisons", Journal of Computational and Graphical Statistics, 2004.

    >>> groups_of("abc", [frozenset("ac")])
    [('a', 'b'), ('b', 'c')]
    """
    groups = {frozenset(names)}
    for pair in different:
        whole = {group for group in groups if pair <= group}
        parts = {group - {one} for group in whole for one in pair}
        rest = groups - whole
        groups = rest | {p for p in parts if not any(p <= other for other in rest)}
    places = [[i for i, n in enumerate(names) if n in group] for group in groups]
    return [tuple(names[i] for i in of) for of in sorted(places)]
