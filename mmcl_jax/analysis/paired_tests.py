"""How two sets of predictions of the same samples differ: NumPy and SciPy.

Undefined values are NaN, such as the kappa of two constants.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.stats`, which takes most of a second, where it is used
from jaxtyping import Bool, Float, Int

_LEVEL = 0.95
_RESAMPLES = 10_000


def share_equal(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    """Returns the share of samples with equal predictions; NaN without samples.

    >>> share_equal(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    0.75
    """
    return float(np.mean(first == second)) if len(first) else float("nan")


def cohen_kappa(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    """Returns the agreement of two predictors beyond chance.

    `(p_o - p_e) / (1 - p_e)`, where `p_o` is the share of samples with equal
    predictions, and `p_e = sum_k p_first(k) p_second(k)` its expectation if both drew
    classes independently, each by its own frequencies. NaN where `p_e` is 1, or without
    samples. SciPy has no such function.

    Args:
        first: Class of each sample as one predictor has it.
        second: Class of each sample as the other has it.

    References:
        J. Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.

    >>> cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    0.5
    """
    if not len(first):
        return float("nan")
    names, index = np.unique(np.concatenate([first, second]), return_inverse=True)
    shares = [
        np.bincount(part, minlength=len(names)) / len(first)
        for part in (index[: len(first)], index[len(first) :])
    ]
    chance = float(shares[0] @ shares[1])
    if len(names) == 1:
        return float("nan")
    return (share_equal(first, second) - chance) / (1 - chance)


class McNemar(NamedTuple):
    """Whether one of two predictors is right more often.

    Attributes:
        only_first: Number of samples that only the first predicts correctly.
        only_second: Number of samples that only the second predicts correctly.
        p_value: Exact two-sided p-value; 1 if both numbers are 0.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(
    first_right: Bool[np.ndarray, " n"], second_right: Bool[np.ndarray, " n"]
) -> McNemar:
    """Returns McNemar's exact test on samples that only one predictor has right.

    If both are right equally often, each of these `n` samples is the first one's with
    probability 1/2, so `p = min(1, 2 P[Binomial(n, 1/2) <= min(n_first, n_second)])`.

    References:
        Q. McNemar, "Note on the sampling error of the difference between correlated
        proportions or percentages", 1947. T. G. Dietterich, "Approximate Statistical
        Tests for Comparing Supervised Classification Learning Algorithms", 1998.

    >>> first, second = np.array([1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 1, 1], bool)
    >>> mcnemar(first, second)
    McNemar(only_first=3, only_second=1, p_value=0.625)
    """
    only_first = int(np.sum(first_right & ~second_right))
    only_second = int(np.sum(second_right & ~first_right))
    if not (total := only_first + only_second):
        return McNemar(0, 0, 1.0)
    p_value = scipy.stats.binomtest(only_first, total).pvalue
    return McNemar(only_first, only_second, float(p_value))


class Difference(NamedTuple):
    """How much more often one of two predictors is right.

    Attributes:
        first: Accuracy of the first, as a mean over tasks.
        second: Accuracy of the second.
        difference: Difference `second - first`.
        low: Lower end of its 95 % interval; NaN without samples.
        high: Upper end of the interval.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float


def paired_difference(
    first_right: Sequence[Bool[np.ndarray, " n"]],
    second_right: Sequence[Bool[np.ndarray, " n"]],
) -> Difference:
    """Returns the difference of mean accuracies over tasks, on the same samples.

    The interval is the paired percentile bootstrap over samples: each of 10,000 draws,
    with a fixed seed, takes samples with both predictions, as many from each task as it
    has. The interval covers other test samples, but no other seeds, orders or tasks.

    Of a sample only `d = second - first` in -1, 0, 1 counts, so the counts of a draw of
    n samples are multinomial with the shares of these three: they are drawn directly.
    `scipy.stats.bootstrap` would draw every sample, 10,000 times.

    Args:
        first_right: Whether each sample is predicted correctly, one array per task.
        second_right: The same for the other predictor, in the same order.

    References:
        B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    >>> right, wrong = np.ones(5, bool), np.zeros(5, bool)
    >>> paired_difference([wrong], [right])
    Difference(first=0.0, second=1.0, difference=1.0, low=1.0, high=1.0)
    """
    if not first_right or not all(len(rows) for rows in first_right):
        return Difference(*[float("nan")] * 5)
    rng = np.random.default_rng(0)
    drawn = np.zeros(_RESAMPLES)
    for one, other in zip(first_right, second_right, strict=True):
        change = other.astype(np.int8) - one
        shares = np.array([np.mean(change == value) for value in (-1, 0, 1)])
        counts = rng.multinomial(len(change), shares, size=_RESAMPLES)
        drawn += (counts[:, 2] - counts[:, 0]) / len(change)
    first, second = (
        float(np.mean([np.mean(rows) for rows in part]))
        for part in (first_right, second_right)
    )
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(drawn / len(first_right), [tail, 1 - tail])
    return Difference(first, second, second - first, float(low), float(high))


class Flips(NamedTuple):
    """How samples have changed between two predictions, the earlier one first.

    Attributes:
        forgotten: Samples that were right and no longer are.
        recovered: Samples that are right and were not.
        right: Samples that are right both times.
        wrong: Samples that are wrong both times.
    """

    forgotten: Bool[np.ndarray, " n"]
    recovered: Bool[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    wrong: Bool[np.ndarray, " n"]


def flips(
    before_right: Bool[np.ndarray, " n"], after_right: Bool[np.ndarray, " n"]
) -> Flips:
    """Returns how each sample has changed; it is of exactly one kind.

    >>> flips(np.array([True, True, False]), np.array([True, False, False])).forgotten
    array([False,  True, False])
    """
    return Flips(
        before_right & ~after_right,
        ~before_right & after_right,
        before_right & after_right,
        ~before_right & ~after_right,
    )


class Displacement(NamedTuple):
    """How far an array has moved; NaN where it is not defined.

    Attributes:
        norm: L2 norm of the array before.
        change: L2 norm of the difference.
        relative: Quotient `change / norm`; NaN if `norm` is 0.
        cosine: Cosine between before and after; NaN if one of them is 0.
    """

    norm: float
    change: float
    relative: float
    cosine: float


def displacement(before: np.ndarray, after: np.ndarray) -> Displacement:
    """Returns how far `after` is from `before`, which has the same shape.

    >>> displacement(np.array([3.0, 4.0]), np.array([3.0, 0.0]))
    Displacement(norm=5.0, change=4.0, relative=0.8, cosine=0.6)
    """
    # integers and masks are compared as real numbers
    first, second = (np.asarray(x, np.float64).ravel() for x in (before, after))
    norm, other = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    change = float(np.linalg.norm(second - first))
    undefined = float("nan")
    if np.array_equal(first, second):
        cosine = 1.0 if norm else undefined  # without the rounding
    else:
        cosine = float(first @ second) / (norm * other) if norm * other else undefined
    return Displacement(norm, change, change / norm if norm else undefined, cosine)


def hsic(k: Float[np.ndarray, "n n"], l: Float[np.ndarray, "n n"]) -> float:  # noqa: E741
    """Returns the unbiased estimate of the Hilbert-Schmidt independence criterion.

    With the diagonals of the Gram matrices K and L set to 0,

        (tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'K L1 / (n - 2)) / (n (n - 3)).

    Args:
        k: Gram matrix of the samples in one space.
        l: Gram matrix of the same samples in the other space.

    Raises:
        ValueError: There are fewer than four samples.

    References:
        L. Song et al., "Feature Selection via Dependence Maximization", JMLR 2012,
        equation (5).
    """
    n = len(k)
    if n < 4:
        raise ValueError(f"{n} samples; the estimate needs at least 4")
    k, l = (x * (1 - np.eye(n)) for x in (k, l))  # noqa: E741
    total = np.sum(k * l) + k.sum() * l.sum() / ((n - 1) * (n - 2))
    return float(total - 2 * k.sum(0) @ l.sum(0) / (n - 2)) / (n * (n - 3))


def linear_cka(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"], debiased: bool = True
) -> float:
    """Returns the similarity of two representations of the same samples: linear CKA.

    `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with `K = X X'` and `L = Y Y'`. It is 1
    for spaces that differ by a rotation and a scale. With the unbiased `hsic` it is
    about 0 for independent ones, and may fall below; the biased form (Gram matrices of
    centred features) grows with the ratio of dimensions to samples.

    Args:
        x: Features, one row per sample.
        y: Features of the same samples in another space, of any width.
        debiased: Whether to use the unbiased estimate of HSIC.

    Returns:
        CKA; NaN if the samples of a space lie at one point, or too close together for
        its estimate to be above 0.

    References:
        S. Kornblith et al., "Similarity of Neural Network Representations Revisited",
        ICML 2019. T. Nguyen, M. Raghu, S. Kornblith, "Do Wide and Deep Networks Learn
        the Same Things?", ICLR 2021, equation (3) (the unbiased estimate).
    """
    # neither form depends on the mean, but without it the sums have smaller rounding
    # errors
    x, y = (np.asarray(z, np.float64) - np.mean(z, 0, np.float64) for z in (x, y))
    grams = x @ x.T, y @ y.T
    estimate = hsic if debiased else lambda k, l: float(np.sum(k * l))  # noqa: E741
    own = [estimate(gram, gram) for gram in grams]
    if min(own) <= 0:
        return float("nan")
    # two roots, since the product of two small numbers may underflow to 0
    return estimate(*grams) / (np.sqrt(own[0]) * np.sqrt(own[1]))
