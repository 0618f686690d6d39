"""Metrics of continual learning: one documented formula per name, pure NumPy.

All are functions of the accuracy matrix R [t, t]: `R[i, j]` is the accuracy on the test
set of task j after learning task i, both from 0 here and from 1 in the formulas; T is
their number (cut R to the tasks learnt so far). NaN means not evaluated:

- a column without any number (an empty test set, another modality) is left out;
- any other missing value that a formula needs makes its result NaN;
- what a formula leaves undefined, such as the forgetting of a single task, is NaN.

Several formulas are called "forgetting" in the literature; they differ by a factor of
two on published matrices, hence the long names.

References:
    [1] A. Chaudhry et al., "Riemannian Walk for Incremental Learning: Understanding
    Forgetting and Intransigence", ECCV 2018, equations (3) to (5).
    [2] D. Lopez-Paz, M. Ranzato, "Gradient Episodic Memory for Continual Learning",
    NeurIPS 2017, equations (2) to (4).
    [3] Z. Zheng et al., "Preventing Zero-Shot Transfer Degradation in Continual
    Learning of Vision-Language Models" (ZSCL), ICCV 2023.
    [4] S.-A. Rebuffi et al., "iCaRL", CVPR 2017.
    [5] C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Matrix = Float[np.ndarray, "t t"]
Row = Float[np.ndarray, " t"]


def columns(accuracy: Matrix, keep: Bool[np.ndarray, " t"]) -> Matrix:
    """Restricts a matrix to the test sets `keep`, for example those of one modality.

    Returns:
        R with NaN in all other columns, which every metric leaves out.

    >>> last_average_accuracy(columns(np.eye(2), np.array([False, True])))
    1.0
    """
    return np.where(keep[None, :], _square(accuracy), np.nan)


def last_average_accuracy(accuracy: Matrix) -> float:
    """Mean of the last row: `A_T = (1/T) sum_j R[T, j]`, which is `Last` of [3].

    >>> last_average_accuracy(np.array([[0.5, np.nan], [0.25, 0.75]]))
    0.5
    """
    return _mean(_square(accuracy)[-1][_evaluated(accuracy)])


def average_incremental_accuracy(accuracy: Matrix) -> float:
    """`(1/T) sum_i A_i`, `A_i = (1/i) sum_(j<=i) R[i, j]`, over the tasks seen [4]."""
    return _mean_over_time(_square(accuracy), _evaluated(accuracy))


def learning_accuracy(accuracy: Matrix) -> float:
    """Mean accuracy of each task when it was just learnt: `(1/T) sum_j R[j, j]`."""
    return _mean(np.diagonal(_square(accuracy))[_evaluated(accuracy)])


def forgetting_chaudhry(accuracy: Matrix) -> float:
    """Drop from the best earlier accuracy to the last one, negative after a gain.

    `(1/(T-1)) sum_(j<T) (max_(j<=l<T) R[l, j] - R[T, j])` [1].

    Args:
        accuracy: Matrix R. Rows that were not evaluated are left out of the maximum.
    """
    evaluated, last = _evaluated(accuracy), accuracy[-1]
    drops = []
    for j in np.flatnonzero(evaluated[:-1]):
        earlier = accuracy[j:-1, j]
        earlier = earlier[~np.isnan(earlier)]
        drops.append(earlier.max() - last[j] if earlier.size else np.nan)
    return _mean(drops)


def backward_transfer(accuracy: Matrix) -> float:
    """What later tasks changed: `(1/(T-1)) sum_(j<T) (R[T, j] - R[j, j])` [2]."""
    change = _square(accuracy)[-1] - np.diagonal(accuracy)
    return _mean(change[:-1][_evaluated(accuracy)[:-1]])


def forward_transfer(accuracy: Matrix, baseline: Row | None = None) -> float:
    """Gain before learning: `(1/(T-1)) sum_(j>=2) (R[j-1, j] - baseline_j)` [2].

    Args:
        accuracy: Matrix R, evaluated on the test set of each next task.
        baseline: Accuracies [t] of the untrained model; None if not evaluated.
    """
    if baseline is None:
        return float("nan")
    gain = np.diagonal(_square(accuracy), offset=1) - baseline[1:]
    return _mean(gain[_evaluated(accuracy)[1:]])


def transfer_zscl(accuracy: Matrix) -> float:
    """Accuracy before learning: `(1/(T-1)) sum_(j>=2) (1/(j-1)) sum_(i<j) R[i, j]` [3].

    A mean of column means, not of all numbers above the diagonal.
    """
    evaluated = _evaluated(accuracy)
    tasks = range(1, len(_square(accuracy)))
    return _mean([_mean(accuracy[:j, j]) for j in tasks if evaluated[j]])


def average_zscl(accuracy: Matrix) -> float:
    """Mean of all numbers of the matrix, before and after learning (`Avg` of [3])."""
    return _mean(_square(accuracy)[:, _evaluated(accuracy)])


def excess_forgetting(accuracy: Matrix, zero_shot: Matrix) -> float:
    """`forgetting_chaudhry` beyond that of a frozen model with the same label space.

    Accuracy falls as the label space grows even if nothing is learnt or forgotten.

    Args:
        accuracy: Matrix R of the method.
        zero_shot: Matrix R of the frozen model, under the same label space.
    """
    return forgetting_chaudhry(accuracy) - forgetting_chaudhry(zero_shot)


def transfer_across_modalities(accuracy: Row, without: Row) -> float:
    """What tasks of other modalities added: `(1/J) sum_j (R[T, j] - R'[T', j])`.

    Args:
        accuracy: Accuracies at the end of a stream on the tasks of a later modality.
        without: Accuracies on the same tasks at the end of the stream without the tasks
            of other modalities, of the same method under the same seed.

    >>> transfer_across_modalities(np.array([0.5, 1.0]), np.array([0.25, 1.0]))
    0.125
    """
    return _mean(accuracy - without)


METRICS = {
    "last_average_accuracy": last_average_accuracy,
    "average_incremental_accuracy": average_incremental_accuracy,
    "learning_accuracy": learning_accuracy,
    "forgetting_chaudhry": forgetting_chaudhry,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
    "transfer_zscl": transfer_zscl,
    "average_zscl": average_zscl,
}


class Identification(NamedTuple):
    """How well modalities are identified; NaN without samples.

    Attributes:
        accuracy: Share of samples whose modality is predicted correctly.
        balanced: Mean of that share over the modalities that have samples.
        confusion: Counts, true modality by predicted modality.
    """

    accuracy: float
    balanced: float
    confusion: Int[np.ndarray, "m m"]


def modality_identification(
    true: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], num_modalities: int
) -> Identification:
    """Accuracy, balanced accuracy and confusion of the predicted modality."""
    confusion = np.zeros((num_modalities, num_modalities), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    size, right = confusion.sum(axis=1), np.diagonal(confusion)
    present = size > 0
    return Identification(
        _mean(true == predicted), _mean(right[present] / size[present]), confusion
    )


class Decomposition(NamedTuple):
    """The gap between two cells of a 2x2 table, split along its two paths.

    Attributes:
        gap: Accuracy with everything known minus accuracy with nothing known.
        label_confusion: Part due to the larger label space: with the route known, and
            predicted.
        routing: Part due to the predicted route: among all classes, and among the own
            ones. The first entries sum to the gap, and so do the second ones.
    """

    gap: float
    label_confusion: tuple[float, float]
    routing: tuple[float, float]


def decomposition(
    known_own: float, known_union: float, predicted_own: float, predicted_union: float
) -> Decomposition:
    """Splits the loss of modality-agnostic evaluation into labels and routing.

    The split depends on the path through the table, so both are given, as a range.

    Args:
        known_own: Accuracy with the modality known and its own classes as label space.
        known_union: Accuracy with the modality known for the route only.
        predicted_own: Accuracy with the modality known for the label space only.
        predicted_union: Accuracy with nothing known.
    """
    return Decomposition(
        gap=known_own - predicted_union,
        label_confusion=(known_own - known_union, predicted_own - predicted_union),
        routing=(known_union - predicted_union, known_own - predicted_own),
    )


def most_confused(
    label: Int[np.ndarray, " n"],
    chosen: Int[np.ndarray, " n"],
    canonical: Int[np.ndarray, " C"],
    count: int,
) -> list[tuple[int, int, int]]:
    """The most frequent mistakes.

    Args:
        label: Class slots of the samples [n].
        chosen: Predicted class slots [n]; those below 0 are left out.
        canonical: Ids [C], equal for class slots that count as the same class.
        count: Largest number of pairs.

    Returns:
        Label, predicted slot and number of samples; the most frequent first, and of
        equally frequent ones those of the lowest slots.

    >>> label, chosen = np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0])
    >>> most_confused(label, chosen, np.arange(3), 5)
    [(0, 1, 2), (2, 0, 1)]
    """
    wrong = (chosen >= 0) & (canonical[chosen] != canonical[label])
    pairs, times = np.unique(
        np.stack([label[wrong], chosen[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-times, kind="stable")[:count]
    found = zip(pairs[order].tolist(), times[order].tolist(), strict=True)
    return [(own, other, number) for (own, other), number in found]


def relative_change(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    """How far arrays have moved: `|after - before| / |before|`, over all together.

    Returns:
        The relative change; NaN if `before` has norm 0.

    >>> relative_change([np.array([3.0, 4.0])], [np.array([3.0, 5.0])])
    0.2
    """
    moved = sum(
        float(np.sum(np.square(new.astype(np.float64) - old)))
        for old, new in zip(before, after, strict=True)
    )
    size = sum(float(np.sum(np.square(old.astype(np.float64)))) for old in before)
    return float(np.sqrt(moved / size)) if size else float("nan")


def expected_calibration_error(
    probability: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = 15
) -> float:
    """How far the probabilities of predictions are from how often they are right [5].

    `sum_b (n_b / n) |accuracy_b - confidence_b|`, over bins of equal width, each with
    its upper and without its lower end; `confidence_b` is the mean probability.

    Args:
        probability: Probability of the predicted class [n].
        right: Whether the predicted class is the label [n].
        bins: Number of bins.

    Returns:
        The error; NaN without samples.

    >>> probability, right = np.array([0.9, 0.9, 0.5]), np.array([True, False, True])
    >>> round(expected_calibration_error(probability, right), 4)
    0.4333
    """
    index = np.ceil(probability * bins).astype(int)
    gap = np.bincount(index, weights=right - probability, minlength=bins + 1)
    return float(np.abs(gap).sum() / len(right)) if len(right) else float("nan")


def mean_and_deviation(values: Shaped[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and sample standard deviation (`n - 1`) over runs, never over tasks.

    Returns:
        Mean and deviation; the latter is NaN for fewer than two runs.

    >>> mean_and_deviation(np.array([70.0, 72.0, 74.0]))
    (72.0, 2.0)
    """
    mean = _mean(values)
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(np.std(values, ddof=1))


def _square(accuracy: Matrix) -> Matrix:
    shape = np.shape(accuracy)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ValueError(f"accuracy matrix of shape {shape}; expected [t, t], t > 0")
    return accuracy


def _evaluated(accuracy):
    return ~np.all(np.isnan(_square(accuracy)), axis=0)


def _mean(values) -> float:
    """Mean; NaN, without a warning, if there are no values."""
    return float(np.mean(values)) if np.size(values) else float("nan")


def _mean_over_time(rows, evaluated) -> float:
    """Mean over rows i of the mean of their entries 0..i in evaluated columns."""
    met = [(row[: i + 1], evaluated[: i + 1]) for i, row in enumerate(rows)]
    return _mean([_mean(row[use]) for row, use in met if use.any()])
