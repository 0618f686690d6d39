"""From predictions to rows of the accuracy matrix, under every label space and route.

One set of logits serves all label spaces: a space is a mask over class slots. That of
`routed` is the same rule for every method, whether it has a router or not: where the
modality is predicted, the classes of the modality that its own scores pick may win.
Per-sample predictions are stored, so that every score can be computed again.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mmcl_jax.streams.base import Stream
from mmcl_jax.streams.retirement import retired_after
from mmcl_jax.types import Prediction

# those of a whole test set, and that of a sample's modality, given or predicted
_OF_TASK = ("task", "modality", "union", "universe")
SPACES = (*_OF_TASK, "routed")
ROUTES = ("given", "predicted")


@dataclasses.dataclass(frozen=True)
class TaskPredictions:
    """What was predicted for one test set at one time.

    Attributes:
        id: Sample ids `[n]`.
        label: Class slots `[n]`.
        chosen: Predicted class slots `[spaces, routes, n]`; -1 where the space is not
            defined for a task that has not been learnt.
        margin: Logit of the chosen slot minus that of the runner-up, shaped as
            `chosen`.
        modality: Predicted modality index `[n]`, without the hint.
        novelty: Novelty `[n]`, see `evaluation.novelty`; NaN where it is not measured.
        percentile: Percentile `[n]` of the novelty.
    """

    id: np.ndarray
    label: np.ndarray
    chosen: np.ndarray
    margin: np.ndarray
    modality: np.ndarray
    novelty: np.ndarray
    percentile: np.ndarray


# of test sets, by the index of their task
ByTask = dict[int, TaskPredictions]


def allowed_slots(
    stream: Stream, task: int, seen: Iterable[int]
) -> Bool[np.ndarray, "s C"]:
    """Returns which class slots may win for all samples of the test set of `task`.

    A row for each label space but `routed`, which differs from sample to sample.

    `task`: those of the task. `modality`: those seen so far in its modality. `union`:
    those seen so far. `universe`: all of the stream. The second and third are empty for
    a task that is not among the `seen` ones: its classes are not in them. Retired
    classes are in none.
    """
    slots, seen = stream.classes, set(seen)
    seen_slots = {c for i in seen for c in stream.tasks[i].classes}
    stages = sum(set(stage) <= seen for stage in stream.stages)
    retired = retired_after(stream, stages)
    seen_slots -= retired
    own = stream.tasks[task]
    learnt = set(own.classes) - retired <= seen_slots
    rows = {
        "task": [c in own.classes and c not in retired for c in range(len(slots))],
        "modality": [
            learnt and c in seen_slots and slot.modality == own.modality
            for c, slot in enumerate(slots)
        ],
        "union": [learnt and c in seen_slots for c in range(len(slots))],
        "universe": [c not in retired for c in range(len(slots))],
    }
    return np.array([rows[space] for space in _OF_TASK])


def routed_slots(
    stream: Stream,
    allowed: Bool[np.ndarray, "s C"],
    modality: Int[np.ndarray, " n"],
) -> Bool[np.ndarray, "n C"]:
    """Returns which class slots may win for samples of which a modality was predicted.

    Those seen so far in that modality. If it has none any more, since all are retired,
    those of `union`.

    Args:
        stream: Stream whose class slots are predicted.
        allowed: What `allowed_slots` gives for the test set of the samples.
        modality: Index in `stream.modalities` of each sample's predicted modality.
    """
    of = np.array([stream.modalities.index(slot.modality) for slot in stream.classes])
    union = allowed[_OF_TASK.index("union")]
    own = union & (of == modality[:, None])
    return np.where(own.any(-1, keepdims=True), own, union)


def predict_task(
    stream: Stream,
    task: int,
    seen: Sequence[int],
    predictions: Iterable[Prediction],
) -> TaskPredictions:
    """Collects the predictions of one test set.

    Args:
        stream: Stream whose class slots are predicted.
        task: Index of the test set.
        seen: Indices of the tasks learnt so far, at least one.
        predictions: What the learner's `predict` gives for the test set's batches in
            order, routes in front; rows after the last sample are padding.
    """
    allowed = allowed_slots(stream, task, seen)
    known = np.array(
        sorted({stream.modalities.index(stream.tasks[i].modality) for i in seen})
    )
    rows = stream.tasks[task].test
    shape = (len(SPACES), len(ROUTES), len(rows))
    chosen, margin = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    modality = np.zeros(len(rows), np.int32)
    start = 0
    for prediction in predictions:
        logits, scores = np.asarray(prediction.logits), np.asarray(prediction.modality)
        real = slice(start, min(start + logits.shape[1], len(rows)))
        size = real.stop - real.start
        # a method that takes no hint predicts alike under both routes
        logits = np.broadcast_to(logits, (len(ROUTES), *logits.shape[1:]))[:, :size]
        best = np.argmax(scores[-1, :size][:, known], axis=-1)
        modality[real] = known[best]
        given = np.broadcast_to(allowed[_OF_TASK.index("modality")], logits.shape[1:])
        routed = np.stack([given, routed_slots(stream, allowed, modality[real])])
        chosen[..., real], margin[..., real] = _choose(logits, allowed, routed)
        start += size
    return TaskPredictions(
        id=np.array([row.id for row in rows], np.int32),
        label=np.array([row.label for row in rows], np.int32),
        chosen=chosen,
        margin=margin,
        modality=modality,
        novelty=np.full(len(rows), np.nan, np.float32),
        percentile=np.full(len(rows), np.nan, np.float32),
    )


def _choose(
    logits: Float[np.ndarray, "r n C"],
    allowed: Bool[np.ndarray, "s C"],
    routed: Bool[np.ndarray, "r n C"],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best allowed slot and its margin, `[spaces, routes, n]` each."""
    whole = np.broadcast_to(allowed[:, None, None, :], (len(allowed), *logits.shape))
    may_win = np.concatenate([whole, routed[None]])
    masked = np.where(may_win, logits[None], -np.inf)
    picked = masked.argmax(-1)
    top: np.ndarray = np.sort(masked, axis=-1)[..., -2:]
    with np.errstate(invalid="ignore"):
        margin = top[..., -1] - top[..., 0] if top.shape[-1] > 1 else top[..., 0]
    defined = may_win.any(-1)
    return np.where(defined, picked, -1), np.where(defined, margin, np.nan)


def accuracy(stream: Stream, predictions: TaskPredictions) -> np.ndarray:
    """Returns the share of correct predictions `[spaces, routes]`.

    A prediction is correct if its slot has the label's canonical id, so the same class
    name in another data set counts. NaN where the space is not defined, or the test
    set is empty.
    """
    return shares(stream, predictions.chosen, predictions.label)


def shares(
    stream: Stream, chosen: Int[np.ndarray, "s r n"], label: Int[np.ndarray, " n"]
) -> np.ndarray:
    """Returns the share of correct predictions `[spaces, routes]`, see `accuracy`."""
    if not len(label):
        return np.full((len(SPACES), len(ROUTES)), np.nan)
    canonical = np.array([slot.canonical for slot in stream.classes])
    right = canonical[chosen] == canonical[label]
    defined = (chosen >= 0).all(-1)
    return np.where(defined, right.mean(-1), np.nan)


def zero_shot_accuracy(
    stream: Stream,
    task: int,
    seen: Sequence[int],
    queries: np.ndarray,
    labels: np.ndarray,
    text: np.ndarray,
    modality: Int[np.ndarray, " n"],
) -> np.ndarray:
    """Returns the frozen encoder's accuracy `[spaces]` on the test set of `task`.

    Its label spaces grow with the tasks `seen`, as a method's do, so its accuracy
    falls although it forgets nothing. That of `routed` has the classes of each sample's
    `modality`, an index in `stream.modalities`, as a method predicts it. NaN as in
    `accuracy`.
    """
    if not len(labels):
        return np.full(len(SPACES), np.nan)
    allowed = allowed_slots(stream, task, seen)
    routed = routed_slots(stream, allowed, modality)[None]
    chosen, _ = _choose((queries @ text.T)[None], allowed, routed)
    return shares(stream, chosen, labels)[:, 0]


def identification(
    stream: Stream, by_task: dict[int, TaskPredictions], seen: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns true and predicted modality indices of the seen test sets' samples."""
    true = [
        np.full(len(by_task[i].id), stream.modalities.index(stream.tasks[i].modality))
        for i in seen
    ]
    return np.concatenate(true), np.concatenate([by_task[i].modality for i in seen])
