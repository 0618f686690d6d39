"""mmcl-real v1: a stream of real files; classes, tasks, orders and files are pinned.

`mmcl_real_1.json` is the table of it. Of each class it has the numbers of training and
test samples and two hashes: of the names of its files, and of names and contents. A
sentence of a table has no name. Where a copy may be scaled down or rendered anew, names
count alone.
"""

import functools
import hashlib
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.files import read_json
from mmcl_jax.modalities.base import Reference, TextReference
from mmcl_jax.streams.arrangement import ClassChoice, Known, PlannedTask
from mmcl_jax.streams.data_sets import PARTS, DataSet

Role = Literal["benchmark", "development"]

TABLE = pathlib.Path(__file__).with_name("mmcl_real_1.json")
REMEDY = 'make the copy as docs/data.md, section "mmcl-real v1", says'
_DIGITS = 16  # of a hash: chance never makes two of them equal
_LISTED = 10  # classes in a message


class Pin(NamedTuple):
    """The samples of a class.

    Attributes:
        train: Number of training samples.
        test: Number of test samples.
        names: Hash of the names of their files.
        contents: Hash of names and contents.
    """

    train: int
    test: int
    names: str
    contents: str


class Tasks(NamedTuple):
    """Tasks and the orders in which they may be met.

    Attributes:
        classes: Classes of each task, by its name, `<modality>/<data set>/<k>`.
        orders: Names of all tasks in each of `streams.base.ORDERS`.
    """

    classes: Mapping[str, Sequence[str]]
    orders: Mapping[str, Sequence[str]]


class Benchmark(NamedTuple):
    """A pinned stream, and one of other classes for development.

    Attributes:
        title: Name for people.
        shots: Largest number of training samples of a class.
        by_name: Data sets of which the names of files count alone.
        tasks: Tasks of either role, which have no class in common.
        classes: Samples of each class, by `<modality>/<data set>/<class>`.
        concepts: Data sets that have the same concept in different modalities, by the
            name of the class in all of them.
    """

    title: str
    shots: int
    by_name: Sequence[str]
    tasks: Mapping[str, Tasks]
    classes: Mapping[str, Pin]
    concepts: Mapping[str, Sequence[str]]


@functools.cache
def mmcl_real() -> Benchmark:
    """Returns mmcl-real v1."""
    return from_json(read_json(TABLE))


def from_json(table: Mapping[str, Any]) -> Benchmark:
    """Returns the benchmark of a table, whose fields are those of `Benchmark`."""
    tasks = {role: Tasks(**each) for role, each in table["tasks"].items()}
    classes = {name: Pin(*each) for name, each in table["classes"].items()}
    return Benchmark(**{**table, "tasks": tasks, "classes": classes})


def pin(train: Iterable[Reference], test: Iterable[Reference]) -> Pin:
    """Returns what pins the samples of a class, in whichever order they are given.

    Args:
        train: Training samples.
        test: Test samples.

    Raises:
        DataError: A file cannot be read.
    """
    parts = dict(zip(PARTS, (list(train), list(test)), strict=True))
    named = [(part, _name(each), each) for part in PARTS for each in parts[part]]
    return Pin(
        len(parts["train"]),
        len(parts["test"]),
        _digest((part, name) for part, name, _ in named),
        _digest((part, name, each.identity()) for part, name, each in named),
    )


def _name(sample: Reference) -> str:
    """Returns the name of a file, and nothing for a sentence of a table."""
    is_row = isinstance(sample, TextReference)
    return "" if is_row else pathlib.PurePosixPath(sample.describe()).name


def _digest(lines: Iterable[tuple[str, ...]]) -> str:
    text = "\n".join(sorted("\0".join(line) for line in lines))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def tasks(
    benchmark: Benchmark,
    role: Role,
    names: Iterable[str],
    known: Known,
    few: Collection[str] = (),
) -> list[PlannedTask]:
    """Returns tasks of a benchmark.

    Args:
        benchmark: The benchmark.
        role: Whether its tasks are meant, or those for development.
        names: Names of the tasks, in their order.
        known: Classes of each data set of the user, of which there may be more.
        few: Names of those whose number of training samples the user sets.

    Raises:
        DataError: Data sets or classes are missing; the message names them.
    """
    own = benchmark.tasks[role]
    planned = [
        PlannedTask(
            name,
            tuple(
                ClassChoice(
                    name.rpartition("/")[0],
                    each,
                    None if name in few else benchmark.shots,
                )
                for each in own.classes[name]
            ),
        )
        for name in names
    ]
    keys = sorted(key for task in planned for key in task.keys())
    absent = dict.fromkeys(path for path, _ in keys if path not in known)
    lacking = list(absent) + [
        f"{path}/{name}"
        for path, name in keys
        if path in known and name not in known[path]
    ]
    if lacking:
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        raise DataError(
            f"{benchmark.title} needs {', '.join(lacking[:_LISTED])}{more}, which the "
            f"data do not have; {REMEDY}, and leave out no class"
        )
    return planned


def check(
    benchmark: Benchmark,
    planned: Iterable[PlannedTask],
    data_sets: Iterable[tuple[DataSet, Sequence[str]]],
    faults: Faults,
) -> None:
    """Checks that the samples of all classes are those that are pinned.

    Args:
        benchmark: The benchmark.
        planned: Tasks whose classes are checked.
        data_sets: Data sets with the classes chosen of them; others are passed over.
        faults: Receives a note on each data set whose files have the pinned names, as
            suffices for it, and other contents.

    Raises:
        DataError: Samples are missing, added, renamed or changed; the message names
            their classes.
    """
    needed = {"/".join(key) for task in planned for key in task.keys()}
    found = []
    for data_set, names in data_sets:
        changed = []
        for name in names:
            key = f"{data_set.path}/{name}"
            if key not in needed:
                continue
            if "test" not in data_set.parts:
                raise DataError(f"{data_set.source}: no test part; {REMEDY}")
            there = pin(*(data_set.samples(part, name) for part in PARTS))
            if fault := _fault(there, benchmark.classes[key]):
                found.append(f"{key}: {fault}")
            elif there != benchmark.classes[key]:
                changed.append(key)
        if changed and data_set.path in benchmark.by_name:
            faults.notes.append(
                f"{data_set.path}: the files of {len(changed)} classes have the names "
                f"that {benchmark.title} pins and other contents, as copies that were "
                "scaled or rendered anew have; compare runs on the same copy alone"
            )
        elif changed:
            found += [f"{key}: samples of other contents" for key in changed]
    if found:
        more = [f"and {len(found) - _LISTED} more"] if len(found) > _LISTED else []
        head = f"{len(found)} classes are not those of {benchmark.title}; {REMEDY}:"
        raise DataError("\n  ".join([head, *found[:_LISTED], *more]))


def _fault(there: Pin, wanted: Pin) -> str | None:
    """Returns what is wrong with the samples of a class but for their contents."""
    if there[:2] != wanted[:2]:
        return (
            f"{there.train} training and {there.test} test samples; expected "
            f"{wanted.train} and {wanted.test}"
        )
    return "files of other names" if there.names != wanted.names else None
