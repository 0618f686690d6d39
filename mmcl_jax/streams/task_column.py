"""Tasks that a table gives to each of its samples, by a column `task`."""

from collections.abc import Mapping, Sequence

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities.base import Reference
from mmcl_jax.streams.arrangement import PlannedTask, Pools
from mmcl_jax.streams.base import TaskDraft
from mmcl_jax.streams.data_sets import Mark
from mmcl_jax.streams.sampling import Pool

Marks = Mapping[tuple[str, str], Mark]
# training and test samples of a class in a task
_Parts = tuple[list[Reference], list[Reference]]


def deal(
    data_sets: Sequence[PlannedTask],
    pools: Pools,
    marks: Marks,
    limit: int | None,
) -> list[TaskDraft]:
    """Gives the samples to the tasks of the table, in the order of their first rows.

    A test sample without a task scores in the first task that its class has.

    Args:
        data_sets: Classes of each data set.
        pools: Samples of each class, by data set and name.
        marks: Tasks of samples, by data set and description.
        limit: Largest number of training samples of a class in a task; None: all.

    Raises:
        DataError: A training sample has no task, or a task has samples of several
            modalities, or test samples of a class that it does not train.
    """
    names = sorted({mark.number: mark.task for mark in marks.values()}.items())
    found: dict[str, dict[tuple[str, str], _Parts]] = {name: {} for _, name in names}
    faults = Faults()
    for key in (key for data_set in data_sets for key in data_set.keys()):
        with faults.collecting():
            for name, parts in _by_task(key, pools[key], marks, limit).items():
                found[name][key] = parts
    faults.check()
    where = {mark.task: mark.where for mark in marks.values()}
    drafts = []
    for name, classes in found.items():
        modalities = list(dict.fromkeys(path.split("/")[0] for path, _ in classes))
        if len(modalities) > 1:
            faults.errors.append(
                f"{where[name]}: task {name!r} has samples of "
                f"{' and '.join(modalities)}; a task has one modality, so give them "
                "two names"
            )
        elif classes:
            drafts.append(
                TaskDraft(
                    name,
                    modalities[0],
                    tuple((label, path.split("/")[1]) for path, label in classes),
                    tuple(train for train, _ in classes.values()),
                    tuple(test for _, test in classes.values()),
                )
            )
    faults.check()
    return drafts


def _by_task(
    key: tuple[str, str], pool: Pool, marks: Marks, limit: int | None
) -> dict[str, _Parts]:
    """Returns the samples of a class in each of its tasks."""
    train: dict[str, list[Reference]] = {}
    for reference in pool.train:
        mark = marks.get((key[0], reference.describe()))
        if mark is None:
            raise DataError(
                f"{'/'.join(key)}: {reference.describe()} has no task, which all "
                "training samples need if any has one; fill in the column `task`"
            )
        train.setdefault(mark.task, []).append(reference)
    own = (marks[key[0], each.describe()] for each in pool.train)
    first = min(own, key=lambda mark: mark.number)
    test: dict[str, list[Reference]] = {}
    for reference in pool.test:
        mark = marks.get((key[0], reference.describe()), first)
        if mark.task not in train:
            raise DataError(
                f"{mark.where}: task {mark.task!r} has a test sample of class "
                f"{key[1]!r}, {reference.describe()}, but no training sample; leave "
                "its task empty, so that it scores in the first task of the class"
            )
        test.setdefault(mark.task, []).append(reference)
    return {
        task: (
            Pool(own, [], pool.seed, pool.modality).take(0, limit),
            test.get(task, []),
        )
        for task, own in train.items()
    }
