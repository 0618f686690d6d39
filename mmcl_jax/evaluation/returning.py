"""Metrics of streams whose classes return, and of those that are evaluated at any time.

Test samples belong to the first task that has their class, so column j of the accuracy
matrix R [t, t] is the accuracy on the classes that task j was the first to have, and a
task whose classes were all met before has a column without numbers. P [t, t] says when
classes return: `P[i, j]` is true if task i trains on a class of column j. Then

- `last_average_accuracy` counts every class once, however often it came;
- `forgetting_chaudhry` and `backward_transfer` compare the end with all times, or the
  time, since a class was met *first*: what was forgotten and then learnt again is no
  forgetting for them, and what a return has added is backward transfer;
- the functions here compare with the *last* time that a class was trained on, or look
  at what happens until it returns.

Where no class returns, `forgetting_since_last` is `forgetting_chaudhry`,
`backward_transfer_since_last` is `backward_transfer`, and the other two are NaN.

References:
    [1] H. Koh, D. Kim, J.-W. Ha, J. Choi, "Online Continual Learning on Class
    Incremental Blurry Task Configuration with Anytime Inference", ICLR 2022, section 4:
    the area under the curve of accuracy.
    [2] H. Hemati et al., "Class-Incremental Learning with Repetition", CoLLAs 2023: why
    accuracy is told apart for classes that are absent. The formulas are ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mmcl_jax.evaluation.metrics import Matrix
from mmcl_jax.streams.base import Stream


class Course(NamedTuple):
    """What a stream trains and tests, and when.

    Attributes:
        trains: Whether a task (row) trains on a class that a test set (column) holds.
        train: Number of training samples of each task.
        test: Number of test samples of each task.
    """

    trains: Bool[np.ndarray, "t t"]
    train: Int[np.ndarray, " t"]
    test: Int[np.ndarray, " t"]

    @property
    def returns(self) -> bool:
        """Returns whether a class is trained on in several tasks."""
        return bool((self.trains & ~np.eye(len(self.trains), dtype=bool)).any())


def course(stream: Stream) -> Course:
    """Returns what a stream trains and tests, and when."""
    tested = [{record.label for record in task.test} for task in stream.tasks]
    train = [len(task.train) for task in stream.tasks]
    return course_of(stream, tested, train, [len(task.test) for task in stream.tasks])


def course_of(
    stream: Stream,
    tested: Sequence[set[int]],
    train: Sequence[int],
    test: Sequence[int],
) -> Course:
    """Returns what a stream trains and tests, whose tasks may have no samples.

    Args:
        stream: Stream, for the classes of its tasks.
        tested: Class slots of the test samples of each task.
        train: Number of training samples of each task.
        test: Number of test samples of each task.
    """
    trains = [[bool(own & {*t.classes}) for own in tested] for t in stream.tasks]
    return Course(np.array(trains, bool), np.array(train), np.array(test))


def anytime_area(
    accuracy: Matrix, train: Int[np.ndarray, " t"], test: Int[np.ndarray, " t"]
) -> float:
    """Area under the curve of accuracy over the number of training samples (A_AUC) [1].

    `sum_i f_i n_i / sum_i n_i`, with `f_i` the accuracy after task i on the test
    samples of all classes seen and `n_i` the training samples of task i.

    Deviation: the area is divided by the number of samples, so that it is an accuracy.

    Args:
        accuracy: Matrix R; rows that were not evaluated count to the next one.
        train: Training samples of each task, `n`.
        test: Test samples of each task.

    >>> matrix = np.array([[0.8, np.nan], [0.5, np.nan]])
    >>> anytime_area(matrix, np.array([30, 10]), np.array([5, 0]))
    0.725
    """
    areas, waiting = [], 0
    for i, row in enumerate(accuracy):
        waiting += train[i]
        seen = np.flatnonzero(test[: i + 1])
        if len(seen) and not np.isnan(row[seen]).all():
            areas.append((np.average(row[seen], weights=test[seen]), waiting))
            waiting = 0
    if not areas:
        return float("nan")
    values, widths = zip(*areas, strict=True)
    return float(np.average(values, weights=widths))


def forgetting_since_last(accuracy: Matrix, trains: Bool[np.ndarray, "t t"]) -> float:
    """Drop since a class was trained on for the last time, negative after a gain.

    `(1/|J|) sum_(j in J) (max_(z_j<=l<T) R[l, j] - R[T, j])`, with `z_j` the last task
    that trains on classes of column j, and J the columns with `z_j < T`.
    """
    drops = []
    for j, times in _columns(accuracy, trains):
        earlier = accuracy[times[-1] : -1, j]
        if times[-1] < len(accuracy) - 1:
            known = earlier[~np.isnan(earlier)]
            best = known.max() if known.size else np.nan
            drops.append(best - accuracy[-1, j])
    return _mean(drops)


def forgetting_before_return(
    accuracy: Matrix, trains: Bool[np.ndarray, "t t"]
) -> float:
    """Drop while a class was absent, just before it came back.

    The mean of `R[a, j] - R[b-1, j]` over all pairs of tasks `a < b - 1` that train on
    classes of column j, with none between them that does.
    """
    return _mean(
        accuracy[a, j] - accuracy[b - 1, j]
        for j, times in _columns(accuracy, trains)
        for a, b in zip(times, times[1:], strict=False)
        if a < b - 1
    )


def backward_transfer_since_last(
    accuracy: Matrix, trains: Bool[np.ndarray, "t t"]
) -> float:
    """What tasks changed that came after the last one with a class.

    `(1/|J|) sum_(j in J) (R[T, j] - R[z_j, j])`, as in `forgetting_since_last`.
    """
    return _mean(
        accuracy[-1, j] - accuracy[times[-1], j]
        for j, times in _columns(accuracy, trains)
        if times[-1] < len(accuracy) - 1
    )


def relearning_gain(accuracy: Matrix, trains: Bool[np.ndarray, "t t"]) -> float:
    """What a return adds: the mean of `R[b, j] - R[b-1, j]` over all returns.

    A return is a task b that trains on classes of column j after an earlier one.
    """
    return _mean(
        accuracy[b, j] - accuracy[b - 1, j]
        for j, times in _columns(accuracy, trains)
        for b in times[1:]
    )


RETURNING = {
    "forgetting_since_last": forgetting_since_last,
    "forgetting_before_return": forgetting_before_return,
    "backward_transfer_since_last": backward_transfer_since_last,
    "relearning_gain": relearning_gain,
}


def of_course(accuracy: Matrix, known: Course) -> dict[str, float]:
    """Returns every metric of this file."""
    found = {name: metric(accuracy, known.trains) for name, metric in RETURNING.items()}
    return found | {"anytime_area": anytime_area(accuracy, known.train, known.test)}


def _columns(
    accuracy: Matrix, trains: Bool[np.ndarray, "t t"]
) -> list[tuple[int, list[int]]]:
    """Returns the evaluated columns, each with the tasks that train on its classes."""
    evaluated = np.flatnonzero(~np.isnan(accuracy).all(axis=0))
    return [
        (int(j), np.flatnonzero(trains[:, j]).tolist())
        for j in evaluated
        if trains[:, j].any()
    ]


def _mean(values) -> float:
    """Mean; NaN, without a warning, if there are no values."""
    values = list(values)
    return float(np.mean(values)) if values else float("nan")
