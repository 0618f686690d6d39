"""A stream with further tasks after its own."""

import dataclasses
import itertools

from mmcl_jax.streams.base import ClassSlot, Record, Stream, Task, canonical_ids

_SlotKey = tuple[str, str, str]


def appended(stream: Stream, more: Stream) -> Stream:
    """Returns a stream whose last tasks are those of another one.

    Class slots and sample ids are numbered on, so that nothing of what a state knows of
    the earlier tasks moves. A class that the stream has in the same modality and data
    set keeps its slot. A task whose name is taken gets the next free number.

    Args:
        stream: Stream with a stage for each task; its control sets stay.
        more: Stream of the further tasks, numbered by itself.
    """
    names = {task.name for task in stream.tasks}
    slots = {_key(slot): i for i, slot in enumerate(stream.classes)}
    place = [slots.setdefault(_key(slot), len(slots)) for slot in more.classes]
    classes = list(stream.classes)
    for slot, i in zip(more.classes, place, strict=True):
        if i == len(classes):
            classes.append(slot)
    canonical = canonical_ids(slot.name for slot in classes)
    start = 1 + max((row.id for t in stream.tasks for row in _records(t)), default=-1)

    def moved(record: Record) -> Record:
        return record._replace(label=place[record.label], id=start + record.id)

    tasks = [
        dataclasses.replace(
            task,
            name=_free(task.name, names),
            classes=tuple(place[c] for c in task.classes),
            train=tuple(map(moved, task.train)),
            test=tuple(map(moved, task.test)),
        )
        for task in more.tasks
    ]
    met = len(stream.tasks)
    return Stream(
        tuple(
            dataclasses.replace(slot, canonical=number)
            for slot, number in zip(classes, canonical, strict=True)
        ),
        (*stream.tasks, *tasks),
        tuple(dict.fromkeys((*stream.modalities, *more.modalities))),
        (*stream.stages, *((met + i,) for i in range(len(tasks)))),
        stream.reserved,
    )


def _free(name: str, taken: set[str]) -> str:
    """Returns a name that is not taken, and takes it."""
    base, _, number = name.rpartition("/")
    if not number.isdecimal():
        base = name
    numbers = (f"{base}/{k}" for k in itertools.count())
    free = next(n for n in itertools.chain([name], numbers) if n not in taken)
    taken.add(free)
    return free


def named(stream: Stream, name: str) -> Stream:
    """Returns the stream with tasks of another name, numbered if there are several."""
    alone = len(stream.tasks) == 1
    tasks = (
        dataclasses.replace(task, name=name if alone else f"{name}/{i}")
        for i, task in enumerate(stream.tasks)
    )
    return dataclasses.replace(stream, tasks=tuple(tasks))


def _key(slot: ClassSlot) -> _SlotKey:
    return slot.name.casefold(), slot.modality, slot.dataset


def _records(task: Task) -> tuple[Record, ...]:
    return (*task.train, *task.test)
