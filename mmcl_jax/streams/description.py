"""The description of a stream that a workdir keeps: classes, tasks and stages."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from mmcl_jax.streams.base import ClassSlot, Stream, Task


def describe_tasks(stream: Stream) -> list[dict[str, Any]]:
    """Returns name, modality, class names and sample counts of each task.

    A task with classes of earlier ones also has its class `slots`; those of others
    follow from the names, since slots are numbered in the order in which they are met.
    """
    described, met = [], 0
    for task in stream.tasks:
        entry = {
            "name": task.name,
            "modality": task.modality,
            "classes": [stream.classes[c].name for c in task.classes],
            "train": len(task.train),
            "test": len(task.test),
        }
        after = max(met, 1 + max(task.classes))
        if task.classes != tuple(range(met, after)):
            entry["slots"] = list(task.classes)
        described.append(entry)
        met = after
    return described


def describe_slots(stream: Stream) -> dict[str, Any]:
    """Returns modalities, stages, class slots and tasks; those of control sets, too."""
    found = {
        "modalities": list(stream.modalities),
        "stages": [list(stage) for stage in stream.stages],
        "classes": [dataclasses.asdict(slot) for slot in stream.classes],
        "tasks": describe_tasks(stream),
    }
    if stream.reserved is not None:
        found["reserved"] = describe_slots(stream.reserved)
    return found


def describe_contents(stream: Stream, tasks: Iterable[int] | None = None) -> list[str]:
    """Returns a hash of what all samples of each task hold, in order.

    Control sets follow the tasks. Every file is read, unless its content is known from
    before.

    Args:
        stream: The stream.
        tasks: Indices of the tasks, or of control sets after them; None: all.
    """
    found = []
    every = (*stream.tasks, *stream.control_sets)
    for task in every if tasks is None else (every[i] for i in tasks):
        digest = hashlib.sha256()
        for record in (*task.train, *task.test):
            digest.update(json.dumps(record.reference.identity()).encode() + b"\n")
        found.append(digest.hexdigest())
    return found


def stored_stream(description: dict[str, Any]) -> Stream:
    """Returns the stream that was described, without its samples.

    Args:
        description: Description whose fields have been checked by
            `workdir.schema.check_stream`.

    Raises:
        TypeError, ValueError: Classes and tasks do not agree.
    """
    slots = tuple(ClassSlot(**slot) for slot in description["classes"])
    tasks: list[Task] = []
    met = 0
    for i, task in enumerate(description["tasks"]):
        names = task["classes"]
        own = task.get("slots", range(met, met + len(names)))
        for name, c in zip(names, own, strict=True):
            known = [(slot.name, slot.modality) for slot in slots[c : c + 1]]
            if c < 0 or known != [(name, task["modality"])]:
                raise ValueError(
                    f"tasks.{i}.classes: {name!r} is no class of {task['modality']}"
                )
        met = max(met, 1 + max(own))
        tasks.append(Task(task["name"], task["modality"], tuple(own), (), ()))
    if met != len(slots):
        raise ValueError(f"classes: {len(slots)}, of which tasks have {met}")
    stages = tuple(tuple(stage) for stage in description["stages"])
    modalities = tuple(description["modalities"])
    reserved = description.get("reserved")
    controls = stored_stream(reserved) if reserved else None
    return Stream(slots, tuple(tasks), modalities, stages, controls)
