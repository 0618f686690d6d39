"""Which classes form a task: tasks before they are given samples."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.streams.base import TaskDraft, display_name
from mmcl_jax.streams.sampling import Pool

ClassOrder = Literal["drawn", "alphabetical"]
Scenario = Literal["disjoint", "blurry", "domains"]

# names of classes, sorted, by `<modality>/<data set>`
Known = Mapping[str, Sequence[str]]
# samples of classes, by data set and name
Pools = dict[tuple[str, str], Pool]
_NAMED = 3  # classes in a message


class ClassChoice(NamedTuple):
    """A class of a task.

    Attributes:
        path: `<modality>/<data set>`.
        name: Name of the class in it.
        shots: Largest number of training samples; None: all that are left.
        where: Place in a plan, for messages.
        slot: Data set whose class slot it has; empty: its own.
    """

    path: str
    name: str
    shots: int | None = None
    where: str = ""
    slot: str = ""


class PlannedTask(NamedTuple):
    """Name and classes of a task, all of one modality."""

    name: str
    classes: tuple[ClassChoice, ...]

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yields data set and name of each class."""
        return ((each.path, each.name) for each in self.classes)


def whole(known: Known) -> list[PlannedTask]:
    """Returns a task for each data set, with all of its classes."""
    return [
        PlannedTask(path, tuple(ClassChoice(path, name) for name in names))
        for path, names in known.items()
    ]


def cut(
    known: Known, size: int, class_order: ClassOrder, seed: int
) -> list[PlannedTask]:
    """Returns tasks of a number of classes of one data set.

    They are named `<modality>/<dataset>/<k>`. A single remaining class joins the last
    task, since a task of one class cannot be got wrong, unless one is asked for.

    Args:
        known: Classes of each data set.
        size: Number of classes of a task.
        class_order: Whether the classes are permuted by the seed (`drawn`).
        seed: Seed of the permutations.
    """
    tasks = []
    for path, names in known.items():
        if class_order == "drawn":
            # By name, so that a data set is cut in the same way whatever else is
            # included.
            rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
            names = [names[int(i)] for i in rng.permutation(len(names))]
        tasks += in_pieces(path, names, size)
    return tasks


def in_pieces(
    path: str, names: Sequence[str], size: int, first: int = 0
) -> list[PlannedTask]:
    """Returns classes of a data set, cut in their order into tasks of a size.

    Args:
        path: `<modality>/<data set>`.
        names: The classes.
        size: Number of classes of a task.
        first: Number of classes of a larger first task; 0: none.
    """
    cuts = list(range(first or size, len(names), size))
    if cuts and size > 1 and len(names) - cuts[-1] == 1:
        cuts.pop()
    pieces = [names[i:j] for i, j in zip([0, *cuts], [*cuts, None], strict=True)]
    return [
        PlannedTask(f"{path}/{k}", tuple(ClassChoice(path, name) for name in piece))
        for k, piece in enumerate(pieces)
    ]


def domains(known: Known) -> list[PlannedTask]:
    """Returns a task for each data set, of classes that all of a modality share.

    A class has one slot, that of the first data set of its modality.

    Args:
        known: Classes of each data set.

    Raises:
        DataError: The data sets of a modality have different classes.
    """
    firsts: dict[str, str] = {}
    tasks = []
    for path, names in known.items():
        first = firsts.setdefault(path.split("/")[0], path)
        own, other = _looks(names), _looks(known[first])
        for here, there, lacks, has in (
            (own, other, path, first),
            (other, own, first, path),
        ):
            if lacking := sorted(there.keys() - here.keys()):
                shown = ", ".join(repr(there[look]) for look in lacking[:_NAMED])
                raise DataError(
                    f"{lacks}: no class {shown}{' and more' * (len(lacking) > _NAMED)},"
                    f" which {has} has; domains of a modality have equal classes: "
                    "leave classes or data sets out by config.stream.exclude"
                )
        slot = first.split("/")[1]
        classes = tuple(ClassChoice(path, own[look], slot=slot) for look in sorted(own))
        tasks.append(PlannedTask(path, classes))
    return tasks


def _looks(names: Sequence[str]) -> dict[str, str]:
    return {display_name(name).casefold(): name for name in names}


def deal(
    tasks: Sequence[PlannedTask],
    pools: Pools,
    limit: int | None,
) -> list[TaskDraft]:
    """Gives tasks their samples.

    A class that several tasks have gives each of them other training samples, in the
    order of the tasks, and its test samples to the first. So every sample belongs to
    one task, and tasks that are added at the end change none before them.

    Args:
        tasks: Tasks in the order in which they take samples.
        pools: Samples of each class, by data set and name.
        limit: Largest number of training samples of a class in a task; a class may say
            otherwise. None: all that are left.

    Raises:
        DataError: Earlier tasks have taken all samples of a class.
    """
    taken: dict[tuple[str, str], int] = {}
    owners: dict[tuple[str, str], str] = {}
    drafts = []
    for task in tasks:
        train, test = [], []
        for choice in task.classes:
            key = (choice.path, choice.name)
            pool, start = pools[key], taken.get(key, 0)
            count = limit if choice.shots is None else choice.shots
            own = pool.take(start, count)
            if not own:
                raise DataError(
                    f"{choice.where}: task {task.name!r} finds no sample left of class "
                    f"{choice.name!r} of {choice.path}: all {len(pool.train)} training "
                    f"samples are in earlier tasks, of which {owners[key]!r} is the "
                    "first; give `shots` there"
                )
            owners.setdefault(key, task.name)
            taken[key] = start + len(own)
            train.append(own)
            test.append([] if start else pool.test)
        names = (
            (each.name, each.slot or each.path.split("/")[1]) for each in task.classes
        )
        modality = task.classes[0].path.split("/")[0]
        drafts.append(
            TaskDraft(task.name, modality, tuple(names), tuple(train), tuple(test))
        )
    return drafts
