"""How unlike everything learnt a sample is, so that "none of these" can be an answer.

A method that remembers a Gaussian of each class measures the distance of a sample from
the nearest one; any other has the energy of its logits. Only classes of the sample's
own modality count, which is always known: it is how the sample was read.

A score says little by itself. At the end of a stage, those of the stage's own training
samples are kept as quantiles, by modality; a sample's percentile is the share of them
that have a lower score, over all stages so far. The distance of a training sample is
that under Gaussians without it, by a closed form: it would be much too small otherwise,
and samples that are new would look novel.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # loads its parts, which take most of a second, where they are used
from jaxtyping import Bool, Float, Int

from mmcl_jax.evaluation.control_sets import ControlPredictions
from mmcl_jax.ops.gaussians import Gaussians
from mmcl_jax.streams.base import Stream, Task

# half percents: between two of them, percentiles are interpolated
LEVELS = np.linspace(0, 1, 201)
# the rate of false alarms that results report
RATE = 0.05
_ROUNDING = 1e-6


class Spread(NamedTuple):
    """The classes of a modality as Gaussians with one covariance.

    Attributes:
        classes: Slots of the classes.
        count: Number of samples of each class.
        centre: Origin of the whitened space.
        factor: Lower Cholesky factor of the shrunk covariance.
        mean: Whitened mean of each class.
        freedom: Degrees of freedom of the covariance; 0 if the spread is unknown.
        shrinkage: Share of a multiple of the identity in the covariance.
        typical: Squared distance of a new sample of a learnt class from its mean.
    """

    classes: Int[np.ndarray, " k"]
    count: Float[np.ndarray, " k"]  # pyright: ignore[reportIncompatibleMethodOverride]
    centre: Float[np.ndarray, " d"]
    factor: Float[np.ndarray, "d d"]
    mean: Float[np.ndarray, "k d"]
    freedom: float
    shrinkage: float
    typical: float


def spread(
    stats: Gaussians, group: int, own: Bool[np.ndarray, " C"], shrinkage: float
) -> Spread | None:
    """Returns the Gaussians of some classes, factorised once.

    Args:
        stats: Statistics of all classes.
        group: Group of the classes, whose scatter they share.
        own: The classes; those without samples are left out.
        shrinkage: Shrinkage of the covariance towards a multiple of the identity.

    Returns:
        None without any class.
    """
    count, mean = (np.asarray(a, np.float64) for a in (stats.count, stats.mean))
    classes = np.flatnonzero(own & (count > 0))
    if not len(classes):
        return None
    count, mean = count[classes], mean[classes]
    scatter = np.asarray(stats.scatter[group], np.float64)
    width, freedom = mean.shape[1], float(np.maximum(count - 1, 0).sum())
    # copies of one sample leave a scatter of mere rounding
    if freedom <= 1 or np.trace(scatter) <= _ROUNDING * freedom:
        freedom, scatter = 0.0, np.eye(width) / width
    covariance = scatter / max(freedom, 1)
    isotropic = np.trace(covariance) / width * np.eye(width)
    covariance = (1 - shrinkage) * covariance + shrinkage * isotropic
    factor, centre = np.linalg.cholesky(covariance), mean.mean(0)
    whitened = scipy.linalg.solve_triangular(factor, (mean - centre).T, lower=True).T
    typical = 1.0
    if freedom:
        half = scipy.linalg.solve_triangular(factor, scatter, lower=True)
        total = np.trace(scipy.linalg.solve_triangular(factor, half.T, lower=True))
        mean_offset, ratio = total / count.sum(), count.sum() / freedom
        offset, counts = np.array([mean_offset]), np.array([ratio])
        found, _ = _held_out(offset, counts, freedom, shrinkage)
        typical = float(found[0])
    return Spread(classes, count, centre, factor, whitened, freedom, shrinkage, typical)


def _held_out(
    squared: Float[np.ndarray, " n"],
    ratio: Float[np.ndarray, " n"],
    freedom: float,
    shrinkage: float,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns squared distances from a sample's own mean if it is left out of both.

    Leaving a sample `x` of `n` out moves the mean, so that the offset `r` becomes `a r`
    with `a = n / (n - 1)`, and takes `a r r^T` from the scatter. By Sherman and
    Morrison, with `f` degrees of freedom, a share `s` of shrinkage, `b = (f - 1) / f`
    and `q = b r^T S^-1 r`,

        r^T S'^-1 r = q / (1 - (1 - s) a q / (f - 1)).

    With fewer samples than dimensions, `q` is near `f - 1` whatever the sample: without
    `1 - s` the denominator would be 0, and distances rubbish.

    Deviation: what shrinkage adds is scaled by `b` as well, and stays the same.

    Args:
        squared: `r^T S^-1 r`.
        ratio: `a`.
        freedom: `f`.
        shrinkage: `s`.

    Returns:
        The squared distances, and the factor by which other distances grow with the
        square of their product with `r`: `(1 - s) a / ((f - 1) d)` with `d` the
        denominator.
    """
    q = squared * (freedom - 1) / freedom
    share = (1 - shrinkage) * ratio / (freedom - 1)
    rest = np.maximum(1 - share * q, _ROUNDING)
    return ratio**2 * q / rest, share / rest


def distance(
    known: Spread,
    features: Float[np.ndarray, "n d"],
    label: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Returns how far samples are from the nearest class.

    `min_c (x - mean_c)^T S^-1 (x - mean_c)`, divided by what is typical of a new sample
    of a learnt class, so that 1 is usual whatever the width and whenever it is
    measured.

    Args:
        known: The classes.
        features: Features of the samples.
        label: Class slots of samples that are part of the Gaussians, each of which is
            left out of them for its own distance; None: the samples are not.

    Returns:
        The distances; infinite for the only sample of the only class.

    References:
        K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution
        Samples and Adversarial Attacks", NeurIPS 2018, equation (2).
    """
    offset = np.asarray(features, np.float64) - known.centre
    x = scipy.linalg.solve_triangular(known.factor, offset.T, lower=True).T
    products = x @ known.mean.T
    size = np.square(known.mean).sum(1)
    squared = np.square(x).sum(1, keepdims=True) - 2 * products + size
    squared = np.maximum(squared, 0)  # rounding
    if label is not None:
        squared = _without_itself(known, x, products, squared, label)
    return squared.min(1) / known.typical


def _without_itself(
    known: Spread,
    x: Float[np.ndarray, "n d"],
    products: Float[np.ndarray, "n k"],
    squared: Float[np.ndarray, "n k"],
    label: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "n k"]:
    """Returns squared distances under Gaussians without the sample itself."""
    rows, place = np.arange(len(x)), np.searchsorted(known.classes, label)
    count, own = known.count[place], squared[rows, place]
    alone = count <= 1
    ratio = count / np.maximum(count - 1, 1)
    if known.freedom:
        held_out, growth = _held_out(own, ratio, known.freedom, known.shrinkage)
        # r_c^T S^-1 r, with r the offset from the own mean
        both = known.mean @ known.mean.T
        cross = np.square(x).sum(1, keepdims=True) - products
        cross = cross - products[rows, place][:, None] + both[place]
        shrink = (known.freedom - 1) / known.freedom
        squared = shrink * squared + growth[:, None] * np.square(shrink * cross)
        own = held_out
    else:
        squared, own = squared.copy(), ratio**2 * own
    squared[rows, place] = np.where(alone, np.inf, own)
    return squared


def energy(
    logits: Float[np.ndarray, "n C"],
    allowed: Bool[np.ndarray, " C"],
    temperature: float,
) -> Float[np.ndarray, " n"]:
    """Returns the energy of logits, `-T log sum_c exp(logits_c / T)`.

    Args:
        logits: Logits over class slots.
        allowed: Slots that the sum is over, at least one.
        temperature: `T`; between the largest logit alone (0) and a soft sum.

    >>> round(float(energy(np.log([[3.0, 1.0, 9.0]]), np.arange(3) < 2, 1.0)[0]), 4)
    -1.3863

    References:
        W. Liu et al., "Energy-based Out-of-distribution Detection", NeurIPS 2020,
        equation (4).
    """
    among = np.asarray(logits, np.float64)[:, allowed]
    return -temperature * np.asarray(
        scipy.special.logsumexp(among / temperature, axis=1)
    )


class Quantiles(NamedTuple):
    """The scores of some samples, as they are kept.

    Attributes:
        count: Number of samples.
        values: Scores at `LEVELS`.
    """

    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    values: tuple[float, ...]


def quantiles(scores: Float[np.ndarray, " n"]) -> Quantiles | None:
    """Returns the quantiles of the scores that are finite; None if there are none."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return None
    return Quantiles(len(finite), tuple(np.quantile(finite, LEVELS).tolist()))


def percentile(
    kept: Sequence[Quantiles], scores: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Returns the share of kept scores that are lower than each score.

    Where nothing is unusual, shares are spread evenly between 0 and 1, so a sample that
    is called unknown if its share is above `1 - rate` is a false alarm with a
    probability of `rate`. Rates below one over the number of samples cannot be kept:
    what is beyond all of them has a share of 1.

    Args:
        kept: Quantiles of each stage; their samples count equally.
        scores: Scores.

    Returns:
        The shares; NaN if nothing is kept.

    >>> kept = [Quantiles(10, tuple(LEVELS)), Quantiles(30, tuple(2 * LEVELS))]
    >>> percentile(kept, np.array([0.5, 1.5, 3.0])).tolist()
    [0.3125, 0.8125, 1.0]
    """
    total = sum(each.count for each in kept)
    if not total:
        return np.full(len(scores), np.nan)
    lower = [e.count * np.interp(scores, e.values, LEVELS) for e in kept]
    return np.sum(lower, axis=0) / total


def kept_at(
    stages: Mapping[int, Mapping[str, Mapping[str, Any]]], snapshot: int
) -> dict[str, list[Quantiles]] | None:
    """Returns the quantiles of each modality that a snapshot knows.

    Args:
        stages: Fields of `Quantiles` by the stage's index and by modality.
        snapshot: Index of the snapshot.

    Returns:
        One entry for each stage that had samples of the modality; None if a stage is
        missing.
    """
    if not all(i in stages for i in range(snapshot + 1)):
        return None
    kept: dict[str, list[Quantiles]] = {}
    for i in range(snapshot + 1):
        for modality, fields in stages[i].items():
            kept.setdefault(modality, []).append(Quantiles(**fields))
    return kept


def auroc(known: Float[np.ndarray, " n"], unknown: Float[np.ndarray, " u"]) -> float:
    """Returns the probability that an unknown sample scores higher than a known one.

    That is the area under the receiver operating characteristic; equal scores count
    half.

    >>> auroc(np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0]))
    0.9166666666666666
    """
    ranks = scipy.stats.rankdata(np.concatenate([known, unknown]))[len(known) :]
    least = len(unknown) * (len(unknown) + 1) / 2
    return float((ranks.sum() - least) / (len(known) * len(unknown)))


def fpr95(known: Float[np.ndarray, " n"], unknown: Float[np.ndarray, " u"]) -> float:
    """Returns the share of unknown samples that pass where 95 % of known ones do.

    The threshold is the lowest score with at least 95 % of the known samples at or
    below it.

    >>> fpr95(np.arange(1.0, 21.0), np.array([5.0, 19.0, 20.0, 40.0]))
    0.5
    """
    place = int(np.ceil(0.95 * len(known) - 1e-9)) - 1
    return float((unknown <= np.sort(known)[place]).mean())


class Scores(NamedTuple):
    """The novelty of samples.

    Attributes:
        novelty: Distances or energies; NaN where nothing of the modality was learnt.
        percentile: See `percentile`.
    """

    novelty: Float[np.ndarray, " n"]
    percentile: Float[np.ndarray, " n"]


def of_stage(
    stream: Stream,
    seen: Collection[int],
    task: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    scores: Scores,
    controls: ControlPredictions | None,
) -> dict[str, Any]:
    """Returns how well the unknown is told apart after a stage, by modality.

    Args:
        stream: The stream that is learnt.
        seen: Tasks learnt so far, whose test samples are known.
        task: Task of each test sample.
        label: Class slot of each test sample.
        scores: Novelty of each test sample.
        controls: What was made of control sets; None: there are none.

    Returns:
        `false_alarms`: the share of known samples above the percentile `1 - RATE`.
        `upcoming` and `reserved`: for test samples of tasks to come, and of control
        sets, `auroc` and `fpr95` against the known ones, and `rejected`, the share
        above that percentile. Left out are modalities that were not met, since files of
        another kind are not predicted at all, and samples of tasks to come whose class
        has been learnt. None where novelty was not measured.
    """

    def of(tasks: Sequence[Task], place: np.ndarray, told: Scores) -> dict[str, Scores]:
        names = np.array([each.modality for each in tasks])[place]
        return {
            name: Scores(*(column[names == name] for column in told))
            for name in dict.fromkeys(names.tolist())
        }

    learnt = np.isin(task, list(seen))
    slots = [c for i in seen for c in stream.tasks[i].classes]
    new = ~learnt & ~np.isin(label, slots)
    ours, later = (Scores(*(c[rows] for c in scores)) for rows in (learnt, new))
    known = of(stream.tasks, task[learnt], ours)
    unknown = {"upcoming": of(stream.tasks, task[new], later)}
    if controls is not None:
        told = Scores(controls.novelty, controls.percentile)
        unknown["reserved"] = of(stream.control_sets, controls.task, told)
    found: dict[str, Any] = {"false_alarms": {n: _above(s) for n, s in known.items()}}
    for kind, by_modality in unknown.items():
        found[kind] = {
            name: {
                "auroc": _compared(auroc, known[name], told),
                "fpr95": _compared(fpr95, known[name], told),
                "rejected": _above(told),
            }
            for name, told in by_modality.items()
            if name in known
        }
    return found


def _above(scores: Scores) -> float | None:
    shares = scores.percentile
    return None if np.isnan(shares).any() else float((shares > 1 - RATE).mean())


def _compared(
    measure: Callable[[np.ndarray, np.ndarray], float], known: Scores, unknown: Scores
) -> float | None:
    both = known.novelty, unknown.novelty
    return None if np.isnan(np.concatenate(both)).any() else measure(*both)
