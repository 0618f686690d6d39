"""Statistics over runs: NumPy and SciPy. A run is one order and seed, never one task.

Missing or undefined values are NaN, and so is every result that needs them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.stats`, which takes most of a second, where it is used

from mmcl_jax.evaluation import metrics

_LEVEL = 0.95
_RESAMPLES = 10_000


class Summary(NamedTuple):
    """A summary of one measure over several runs.

    Attributes:
        mean: Mean over runs.
        deviation: Sample standard deviation (`n - 1`); NaN for a single run.
        low: Lower end of the 95 % bootstrap interval of the mean; NaN for a single run.
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
    return Summary(mean, deviation, *bootstrap_interval(array), tuple(array.tolist()))


def bootstrap_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the mean.

    It lies between the 2.5th and the 97.5th percentile of the means of 10,000 draws of
    n values out of n, with replacement and a fixed seed. For few runs it is too narrow,
    which is why the values of fewer than five are shown beside it.

    References:
        B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> bootstrap_interval([0.0, 1.0])
    (0.0, 1.0)
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2 or np.isnan(array).any():
        return float("nan"), float("nan")
    low, high = scipy.stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(low), float(high)


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


def mean_ranks(values: dict[str, dict[tuple, float]]) -> tuple[dict[str, float], int]:
    """Returns the mean rank of each method over the runs that all of them have.

    Within a run, rank 1 is that of the largest value, and ties share their mean rank.

    Args:
        values: Values of each method, by what identifies a run's order and seed.

    Returns:
        Mean ranks (NaN without common runs), and the number of common runs.

    >>> mean_ranks({"a": {(0,): 0.5}, "b": {(0,): 0.9}, "c": {(0,): 0.5}})
    ({'a': 2.5, 'b': 1.0, 'c': 2.5}, 1)
    """
    common = [
        key
        for key in next(iter(values.values()), {})
        if all(not np.isnan(of.get(key, np.nan)) for of in values.values())
    ]
    if not common:
        return dict.fromkeys(values, float("nan")), 0
    falling = [[-of[key] for of in values.values()] for key in common]
    means = scipy.stats.rankdata(falling, axis=1).mean(axis=0).tolist()
    return dict(zip(values, means, strict=True)), len(common)
