"""What is known of classes that are never learnt."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class ControlPredictions(NamedTuple):
    """What was made of control sets at one time, one entry per sample.

    Attributes:
        task: Index of the control set.
        id: Sample id.
        label: Slot among the classes of all control sets.
        chosen: Slot of the nearest class text among those of the sample's set.
        novelty: Novelty; NaN where the modality was not met.
        percentile: Percentile of the novelty.
    """

    task: Int[np.ndarray, " n"]
    id: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    chosen: Int[np.ndarray, " n"]
    novelty: Float[np.ndarray, " n"]
    percentile: Float[np.ndarray, " n"]


def accuracy(
    chosen: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    canonical: Int[np.ndarray, " C"],
) -> float | None:
    """Returns the share of correct predictions of one control set.

    Args:
        chosen: Predicted slots.
        label: True slots.
        canonical: Ids of the slots, equal for those of equal names.

    Returns:
        The share; None if all samples are of one class, which cannot be got wrong.
    """
    if len(np.unique(canonical[label])) < 2:
        return None
    return float((canonical[chosen] == canonical[label]).mean())
