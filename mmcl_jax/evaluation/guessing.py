"""Whether a classifier is better than guessing on a set of samples."""

from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.stats`, which takes most of a second, where it is used
from jaxtyping import Int

LEVEL = 0.95

BETTER = "better than guessing"
NO_BETTER = "no better than guessing"
WORSE = "worse than guessing"
ALONE = "nothing to tell apart"


class Judged(NamedTuple):
    """An accuracy beside chance.

    Attributes:
        accuracy: Share of samples that are right.
        low: Lower end of the exact 95 % interval of the accuracy.
        high: Upper end of it.
        chance: Share that guesses get right, see `judge`.
        verdict: `BETTER` if chance is below the interval, `WORSE` if it is above, else
            `NO_BETTER`; `ALONE` if there is one class.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    verdict: str


def judge(
    label: Int[np.ndarray, " n"], chosen: Int[np.ndarray, " n"], classes: int
) -> Judged:
    """Judges predictions by the exact binomial interval of their accuracy [1].

    Guesses are answers that are as frequent as those given, but do not depend on the
    sample: `chance = sum_c p_c q_c`, with `p_c` the share of samples of class c and
    `q_c` the share of answers c [2]. It is `1 / classes` where all classes have equally
    many samples, and keeps an encoder that answers the most frequent class alone from
    looking better than it is.

    Args:
        label: Classes of the samples, from 0 on; at least one sample.
        chosen: Predicted classes.
        classes: Number of classes.

    References:
        [1] C. J. Clopper, E. S. Pearson, "The Use of Confidence or Fiducial Limits
        Illustrated in the Case of the Binomial", Biometrika 1934.
        [2] J. Cohen, "A Coefficient of Agreement for Nominal Scales", Educational and
        Psychological Measurement 1960.

    >>> label = np.repeat([0, 1], 10)
    >>> judge(label, label, 2).verdict, judge(label, 0 * label, 2).verdict
    ('better than guessing', 'no better than guessing')
    """
    right, total = int((label == chosen).sum()), len(label)
    shares = (np.bincount(each, minlength=classes) / total for each in (label, chosen))
    chance = float(np.dot(*shares))
    interval = scipy.stats.binomtest(right, total).proportion_ci(LEVEL, "exact")
    low, high = float(interval.low), float(interval.high)
    verdict = BETTER if chance < low else WORSE if chance > high else NO_BETTER
    verdict = verdict if classes > 1 else ALONE
    return Judged(right / total, low, high, chance, verdict)
