"""Transfer across modalities: what a concept seen is worth when it is heard."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmcl_jax.streams.base import Stream


class Transfer(NamedTuple):
    """A task whose classes have all been learnt before, in other modalities.

    Attributes:
        task: Name of the task.
        modality: Its modality.
        learnt_in: Modalities in which its classes were learnt, in the stream's order.
        chance: Accuracy of guessing among its classes.
        frozen: Accuracy of the frozen encoder among them.
        given: Accuracy of the method among them just before the task, with the modality
            given.
        predicted: The same with the modality predicted.
    """

    task: str
    modality: str
    learnt_in: list[str]
    chance: float
    frozen: float
    given: float
    predicted: float


def transfers(
    stream: Stream,
    accuracy: Float[np.ndarray, "routes t t"],
    zero_shot: Float[np.ndarray, "t t"],
) -> list[dict[str, Any]]:
    """Returns the accuracy on classes that were learnt in other modalities alone.

    A task counts if each of its classes has the name of one that an earlier stage has
    learnt in another modality, and none of one in its own. What the method says of it
    before it is learnt, less what the frozen encoder says, was learnt in the other
    modality. Tasks that were not scored before they were learnt are left out.

    Args:
        stream: The stream.
        accuracy: Accuracies in the label space of the task, by route: after which task
            (row), on which test set (column).
        zero_shot: Those of the frozen encoder.

    Returns:
        A dictionary of the fields of `Transfer` for each such task, in their order.
    """
    found, learnt = [], dict[int, set[str]]()
    for before, stage in zip(stream.stages, stream.stages[1:], strict=False):
        for i in before:
            for slot in stream.tasks[i].classes:
                known = learnt.setdefault(stream.classes[slot].canonical, set())
                known.add(stream.tasks[i].modality)
        for i in stage:
            task = stream.tasks[i]
            own = [learnt.get(stream.classes[c].canonical, set()) for c in task.classes]
            if not all(own) or any(task.modality in each for each in own):
                continue
            row = before[-1]
            given, predicted = accuracy[:, row, i].tolist()
            if np.isnan(given):
                continue
            found.append(
                Transfer(
                    task.name,
                    task.modality,
                    [name for name in stream.modalities if name in set().union(*own)],
                    1 / len(task.classes),
                    float(zero_shot[row, i]),
                    given,
                    predicted,
                )._asdict()
            )
    return found
