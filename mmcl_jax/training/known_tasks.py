"""The tasks of a run that has been started, from what its workdir keeps of them.

A run that resumes looks at its data again, and notices if they are other data. Two
cases cannot be looked at so: data of learnt tasks that are gone, which nothing but
their evaluation needs, and tasks that were added later, which no config describes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmcl_jax.config import Config
from mmcl_jax.errors import DataError, reading
from mmcl_jax.files import read_json
from mmcl_jax.streams import kept
from mmcl_jax.streams.base import Record, Stream, Task
from mmcl_jax.streams.description import stored_stream
from mmcl_jax.streams.kept import KeptReference
from mmcl_jax.streams.stored_references import is_there
from mmcl_jax.workdir import identity, layout, sample_lists, schema, states


class KnownTasks(NamedTuple):
    """What is known of a run's tasks without looking at its data.

    Attributes:
        stream: The stream; samples of learnt tasks need not exist.
        learnt: Number of stages that have been learnt.
        unscored: Learnt tasks with a test sample that is gone, by index, and where it
            was; nothing was kept of it that a prediction could be made from.
        featured: Learnt tasks of whose test samples only features of the frozen encoder
            are left, as `unscored`; methods on these alone can score them.
        lost: Control sets with a sample that is gone, by index, as `unscored`.
        contents: Hash of the samples of each task, then of each control set, as stored;
            None: not known.
        kept: Files of what was kept of learnt tasks whose test samples are gone.
    """

    stream: Stream
    learnt: int
    unscored: dict[int, str]
    featured: dict[int, str]
    lost: dict[int, str]
    contents: list[str] | None
    kept: dict[int, pathlib.Path]

    @property
    def learnt_tasks(self) -> set[int]:
        """Returns the indices of the tasks of the learnt stages."""
        return {i for stage in self.stream.stages[: self.learnt] for i in stage}


def place_of(options: Any) -> str:
    """Returns the folder that a source of a config reads; empty: none, or several."""
    paths = getattr(options, "paths", ())
    if table := getattr(options, "path", ""):
        return os.path.dirname(os.path.abspath(table))
    only = paths[0] if len(paths) == 1 else ""
    return getattr(options, "root", "") or getattr(options, "data_dir", "") or only


def of_workdir(
    workdir: pathlib.Path, config: Config, always: bool = False
) -> KnownTasks | None:
    """Returns the tasks of a run as its workdir knows them.

    None: the data that the config names are all that is needed, and are looked at; or
    no stage has been learnt.

    Args:
        workdir: Workdir of the run.
        config: Its config, which says where the data are now.
        always: Whether they are wanted although the data could be looked at.

    Raises:
        DataError: The stored lists are damaged, or a sample that is still to be learnt
            is gone.
    """
    path, snapshots = workdir / layout.STREAM, states.sealed(workdir / layout.SNAPSHOTS)
    if not path.is_file():
        return None
    stored = read_json(path, "the stream of a run")
    schema.check_stream(stored, path)
    with reading(str(path), "the stream of a run"):
        stream = stored_stream(stored)
        stream = dataclasses.replace(stream, retired=identity.retired(stored))
    learnt = min(1 + max(snapshots, default=-1), len(stream.stages))
    first = identity.first_added(stored)
    # what no config describes
    always |= first is not None or bool(stream.retired)
    if not (learnt or always):
        return None
    whole, missing = _with_samples(workdir, stream, place_of(config.stream), first)
    if missing:
        if first is None:
            return None
        raise DataError(
            f"{workdir / layout.SAMPLES}: the list of the samples of {missing[0]} is "
            "missing; restore it"
        )
    known = KnownTasks(whole, learnt, {}, {}, {}, stored.get("contents"), {})
    return _checked(workdir, known, added=always)


def _with_samples(
    workdir: pathlib.Path, stream: Stream, place: str, first: int | None
) -> tuple[Stream, list[str]]:
    """Returns a stream with the samples that lists have, and whose list is missing.

    Args:
        workdir: Workdir of the run.
        stream: The stream without its samples.
        place: Folder in which the data of the config are now.
        first: Index of the first task that was added; None: there is none.
    """
    tasks, missing = [], []
    for i, task in enumerate(stream.tasks):
        root = place if first is None or i < first else None
        found = sample_lists.read(workdir, i, root)
        if found is None:
            missing.append(f"task {i + 1}")
        else:
            task = dataclasses.replace(task, train=found[0], test=found[1])
        tasks.append(task)
    stream = dataclasses.replace(stream, tasks=tuple(tasks))
    if stream.reserved is None:
        return stream, missing
    records = sample_lists.read_controls(workdir, place)
    if records is None:
        return stream, [*missing, "control sets"]
    sets = tuple(
        dataclasses.replace(task, test=tuple(r for r in records if r.label in own))
        for task in stream.control_sets
        for own in [set(task.classes)]
    )
    reserved = dataclasses.replace(stream.reserved, tasks=sets)
    return dataclasses.replace(stream, reserved=reserved), missing


def needed(stream: Stream, known: KnownTasks | None) -> Stream:
    """Returns the stream without samples that are not read any more."""
    if known is None:
        return stream
    learnt = known.learnt_tasks

    def of_task(i: int, task: Task) -> Task:
        train = () if i in learnt else task.train
        gone = i in known.unscored or i in known.featured
        kept = any(isinstance(row.reference, KeptReference) for row in task.test[:1])
        test = () if gone or kept else task.test
        return dataclasses.replace(task, train=train, test=test)

    tasks = tuple(of_task(i, task) for i, task in enumerate(stream.tasks))
    reserved = stream.reserved
    if reserved is not None:
        sets = (
            dataclasses.replace(task, test=()) if i in known.lost else task
            for i, task in enumerate(reserved.tasks)
        )
        reserved = dataclasses.replace(reserved, tasks=tuple(sets))
    return dataclasses.replace(stream, tasks=tasks, reserved=reserved)


def notes(known: KnownTasks) -> tuple[str, ...]:
    """Returns lines on what cannot be scored any more."""
    tasks, sets = known.stream.tasks, known.stream.control_sets
    gone = [(place, f"task {tasks[i].name!r}") for i, place in known.unscored.items()]
    gone += [
        (place, f"the control set {sets[i].name!r}") for i, place in known.lost.items()
    ]
    return tuple(
        f"{place}: no such file, so {what} cannot be scored any more"
        for place, what in gone
    )


def _checked(
    workdir: pathlib.Path, known: KnownTasks, added: bool
) -> KnownTasks | None:
    """Returns what is known with the test sets that are gone; see `of_workdir`."""
    gone, paths, learnt = {}, {}, known.learnt_tasks
    places = (_missing(task.test) for task in known.stream.control_sets)
    lost = {i: place for i, place in enumerate(places) if place}
    tasks, featured, anything = list(known.stream.tasks), {}, bool(lost)
    for i, task in enumerate(known.stream.tasks):
        test, train = _missing(task.test), _missing(task.train)
        if i in learnt:
            anything |= bool(test or train)
            path = layout.kept(workdir, i)
            if test and not path.is_file():
                gone[i] = test
            elif test:
                paths[i] = path
                if inputs := kept.references(path, task.test):
                    tasks[i] = dataclasses.replace(task, test=inputs)
                else:
                    featured[i] = test
        elif found := train or test:
            if not added:
                return None  # the source says in full what is wrong
            raise DataError(
                f"{found}: no such file, but task {task.name!r} is still to be learnt; "
                "restore it"
            )
    if not (added or anything):
        return None
    known = known._replace(kept=paths)
    stream = dataclasses.replace(known.stream, tasks=tuple(tasks))
    return known._replace(stream=stream, unscored=gone, featured=featured, lost=lost)


def _missing(records: Sequence[Record]) -> str:
    gone = (r for r in records if not is_there(r.reference))
    return next((r.reference.describe() for r in gone), "")
