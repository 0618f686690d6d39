"""Whether predictions depend on their samples alone, checked in every run.

A method that looks at the rest of its batch (a vote on the prompts, statistics of the
batch) learns the task from it, since test sets are evaluated one by one. So some
samples of all test sets are predicted a second time, in mixed batches.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from mmcl_jax.streams.base import Record
from mmcl_jax.types import Prediction

# how far a logit may move, relative to the row's largest
_LOGIT_TOLERANCE = 1e-4
# a lead below this is a tie, which rounding decides
_LEAD_TOLERANCE = 1e-5
# beyond it a logit stands for minus infinity, and says nothing about the scale
_MASKED = 1e30


def sample(
    records: Mapping[str, Sequence[Record]], size: int, seed: int
) -> dict[str, list[Record]]:
    """Returns up to `size` rows of each modality in random order, at most half of them.

    If all rows were taken, they might form the same batch as before.
    """
    rng, chosen = np.random.default_rng(seed), {}
    for modality, rows in records.items():
        count = min(size, -(-len(rows) // 2))
        chosen[modality] = [rows[i] for i in rng.permutation(len(rows))[:count]]
    return chosen


class Witness:
    """Keeps the logits of some samples until these are predicted again.

    Attributes:
        records: Samples by modality.
    """

    def __init__(self, records: dict[str, list[Record]]) -> None:
        """Starts with no logits."""
        self.records = records
        self._logits = {
            row.id: np.empty(0) for rows in records.values() for row in rows
        }

    def watch(
        self, rows: Sequence[Record], predictions: Iterable[Prediction]
    ) -> Iterator[Prediction]:
        """Passes on the predictions of `rows`, in order and padded at the end."""
        start = 0
        for prediction in predictions:
            logits = np.asarray(prediction.logits)
            for place, row in enumerate(rows[start : start + logits.shape[1]]):
                if row.id in self._logits:
                    self._logits[row.id] = logits[:, place].copy()
            start += logits.shape[1]
            yield prediction

    def logits(self, rows: Sequence[Record]) -> Float[np.ndarray, "routes n C"]:
        """Returns the stored logits of `rows`."""
        return np.stack([self._logits[row.id] for row in rows], axis=1)


def differing(
    before: Float[np.ndarray, "routes n C"],
    after: Float[np.ndarray, "routes n C"],
    allowed: Bool[np.ndarray, "n spaces C"],
) -> Bool[np.ndarray, " n"]:
    """Returns which samples were predicted differently in two batches.

    Args:
        before: Logits in the first batch.
        after: Logits in the second batch.
        allowed: Which class slots may win in each label space.

    Returns:
        Whether a logit moved by more than 1e-4 of the row's largest, or another slot
        wins somewhere by more than 1e-5 of it.
    """
    ordinary = np.abs(before) < _MASKED
    scale = np.max(np.abs(before), axis=-1, initial=0, where=ordinary, keepdims=True)
    # an empty space has no winner to lose
    spaces = np.swapaxes(allowed | ~allowed.any(-1, keepdims=True), 0, 1)[:, None]
    old, new = (np.where(spaces, logits, -np.inf) for logits in (before, after))
    kept = np.take_along_axis(new, old.argmax(-1)[..., None], -1)
    # `same` is false for NaN, and where a logit is masked in one batch alone
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.abs(after - before) <= _LOGIT_TOLERANCE * scale
        same |= ~ordinary & (np.abs(after) >= _MASKED)
        moved = new.max(-1, keepdims=True) - kept > _LEAD_TOLERANCE * scale
    return ~same.all((0, 2)) | moved.any((0, 1, 3))
