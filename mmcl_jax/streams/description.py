"""The description of a stream that a workdir keeps: classes, tasks and stages."""

from typing import Any

from mmcl_jax.streams.base import ClassSlot, Stream, Task


def describe_tasks(stream: Stream) -> list[dict[str, Any]]:
    """Returns name, modality, class names and sample counts of each task."""
    return [
        {
            "name": task.name,
            "modality": task.modality,
            "classes": [stream.classes[c].name for c in task.classes],
            "train": len(task.train),
            "test": len(task.test),
        }
        for task in stream.tasks
    ]


def stored_stream(description: dict[str, Any]) -> Stream:
    """Returns the stream that `describe` has described, without its samples.

    The slots of a task are not stored, but follow from their names: slots are numbered
    as they are met.

    Raises:
        KeyError, TypeError, ValueError: the description is none.
    """
    slots = tuple(ClassSlot(**slot) for slot in description["classes"])
    tasks: list[Task] = []
    newest: dict[tuple[str, str], int] = {}
    met = 0
    for task in description["tasks"]:
        own = []
        for name in task["classes"]:
            key = (name, task["modality"])
            if [(slot.name, slot.modality) for slot in slots[met : met + 1]] == [key]:
                newest[key] = met
                met += 1
            own.append(newest[key])
        tasks.append(Task(task["name"], task["modality"], tuple(own), (), ()))
    if met != len(slots):
        raise ValueError(f"{len(slots)} classes, of which tasks have {met}")
    if not all(0 <= slot.canonical < len(slots) for slot in slots):
        raise ValueError("a canonical class that there is not")
    stages = tuple(tuple(stage) for stage in description["stages"])
    if sorted(i for stage in stages for i in stage) != list(range(len(tasks))):
        raise ValueError("stages that do not hold each task once")
    modalities = tuple(description["modalities"])
    if not {slot.modality for slot in slots} <= set(modalities):
        raise ValueError("a class of a modality that is not listed")
    return Stream(slots, tuple(tasks), modalities, stages)
