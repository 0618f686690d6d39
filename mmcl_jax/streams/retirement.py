"""Classes that are not answered any more."""

import dataclasses

from mmcl_jax.streams.base import Stream


def retired_after(stream: Stream, stages: int) -> frozenset[int]:
    """Returns the class slots that are retired once so many stages are learnt.

    A class that is learnt again after it was retired is answered again.
    """

    def is_back(slot: int, when: int) -> bool:
        later = (i for stage in stream.stages[when:stages] for i in stage)
        return any(slot in stream.tasks[i].classes for i in later)

    return frozenset(
        slot
        for slot, when in stream.retired
        if when <= stages and not is_back(slot, when)
    )


def without_retired_tests(stream: Stream) -> Stream:
    """Returns the stream without test samples of classes that end up retired."""
    gone = retired_after(stream, len(stream.stages))
    if not gone:
        return stream
    tasks = tuple(
        dataclasses.replace(
            task, test=tuple(row for row in task.test if row.label not in gone)
        )
        for task in stream.tasks
    )
    return dataclasses.replace(stream, tasks=tasks)
