"""How much room a state has: a capacity that doubles when a stream outgrows it.

It follows from the stages learnt so far alone. So a run that is extended has, at every
stage, the arrays and the programs of one that knew all tasks from the start.
"""

from mmcl_jax.streams.base import Stream
from mmcl_jax.types import Capacity

# of the first stage; most streams never outgrow them, and compile every program once
_CLASSES, _STAGES = 64, 16


def at_stage(stream: Stream, index: int) -> Capacity:
    """Returns the capacity with which a stage is learnt, counted from 0."""
    return Capacity(
        _doubled(_CLASSES, met_classes(stream, index)), _doubled(_STAGES, index + 1)
    )


def of_stream(stream: Stream) -> Capacity:
    """Returns the capacity of the last stage."""
    return at_stage(stream, len(stream.stages) - 1)


def met_classes(stream: Stream, index: int) -> int:
    """Returns the number of class slots met by the end of a stage.

    They are the first ones, since slots are numbered in the order of meeting.
    """
    met = (
        slot
        for stage in stream.stages[: index + 1]
        for task in stage
        for slot in stream.tasks[task].classes
    )
    return 1 + max(met, default=-1)


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size
