"""From data sets to a stream: their classes are cut into tasks, and tasks get samples.

`folders`, `manifest`, `parquet` and `tfds` call it. If there is no test part, one is
split off by a hash of each sample's place, so that new samples do not move others
between the parts.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.streams import (
    arrangement,
    protocols,
    returning,
    task_column,
    task_plans,
)
from mmcl_jax.streams.arrangement import (
    ClassOrder,
    Known,
    PlannedTask,
    Pools,
    Scenario,
)
from mmcl_jax.streams.base import (
    EvaluateOn,
    Stream,
    TaskDraft,
    arrange,
    build_stream,
    first,
)
from mmcl_jax.streams.class_globs import globs
from mmcl_jax.streams.data_sets import DataSet, select
from mmcl_jax.streams.reserve import with_reserved
from mmcl_jax.streams.sampling import Pool, split
from mmcl_jax.streams.storage import per_data_set

_NAMED = 3  # classes in a message

# data sets and some of their classes
Chosen = Sequence[tuple[DataSet, Sequence[str]]]


def build(
    data_sets: Sequence[DataSet],
    *,
    classes_per_task: int,
    order: str = "by_modality",
    class_order: ClassOrder = "drawn",
    plan: str = "",
    protocol: str = "",
    scenario: Scenario = "disjoint",
    disjoint_share: float = 0.5,
    blurry_share: float = 0.1,
    online: int | None = None,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    reserve: str | Sequence[str] | None = None,
    max_train_per_class: int | None = None,
    test_fraction: float = 0.2,
    evaluate_on: EvaluateOn = "test",
    validation_fraction: float = 0.2,
    first_tasks: int | None = None,
    depth_scale: str = "",
    depth_invalid: str = "",
    transparency: Literal["white", "drop"] = "white",
    order_seed: int = 0,
    data_seed: int = 0,
    faults: Faults,
) -> Stream:
    """Returns a stream of data sets; no sample is decoded.

    Unless tasks are planned, the classes of a data set are cut into tasks, see
    `arrangement.cut`, and these are put into an order.

    Args:
        data_sets: Data sets that the stream is made of.
        classes_per_task: Number of classes of a task.
        order: One of `streams.base.ORDERS`; not used where tasks are planned, but by
            protocols that have all of them.
        class_order: Whether classes are permuted before they are cut into tasks.
        plan: File that lists the tasks, see `task_plans`; "": none.
        protocol: One of `protocols.PROTOCOLS`; "": none.
        scenario: `domains`: a task is a data set, of classes that all share. `blurry`:
            classes return in later tasks, see `returning.blurry`.
        disjoint_share: Share of classes that do not return, if `blurry`.
        blurry_share: Share of the samples of the others that come in later tasks.
        online: Training samples of the slices that tasks are cut into, see
            `returning.slices`; None: tasks are whole.
        include: Globs on `<modality>/<dataset>/<class>`, as a sequence or separated by
            commas; a match of a modality or data set counts for all below it. A class
            is taken if one of them matches; None or empty: all classes.
        exclude: Globs of classes to leave out. A glob that begins with `!` takes back
            what those before it left out: `text/clinc150,!text/clinc150/[bc]*`.
        reserve: Globs of classes that are never learnt, whether or not they are
            included: their test samples are control sets, see `streams.reserve`.
        max_train_per_class: Training samples kept of each class in a task, chosen by
            `data_seed`; None: all.
        test_fraction: Share of each class that is split off for testing if a data set
            has no test part; both sides keep at least one sample.
        evaluate_on: Samples that score: the `test` samples, or `validation` samples
            that are split off the training samples, with test samples left unused.
        validation_fraction: Share of each class that is split off for validation.
        first_tasks: Number of tasks that are kept, in the final order; None: all.
        depth_scale: Stored units of a depth map in a metre, see `storage`.
        depth_invalid: Stored values that stand for "no reading", see `storage`.
        transparency: What becomes of transparent pixels, see `modalities.base.Storage`.
        order_seed: Seed of the grouping of classes into tasks, and of the order of
            tasks.
        data_seed: Seed of the split and of the choice of training samples.
        faults: Receives a message for each data set that is left out because it is
            invalid, for instance because a class has too few samples.

    Returns:
        The stream of all other data sets.

    Raises:
        DataError: No data set is left, or a glob or name matches none; the message
            names it.
        ValueError: An argument is out of range.
    """
    _check_numbers(
        classes_per_task, test_fraction, validation_fraction, max_train_per_class
    )
    valid = _valid(data_sets, (depth_scale, depth_invalid, transparency), faults)
    if not valid:
        faults.check()
    chosen, reserved = _apart(valid, globs(include), globs(exclude), globs(reserve))
    known = {data_set.path: names for data_set, names in chosen}
    marks = {(d.path, p): mark for d, _ in chosen for p, mark in d.marks.items()}
    if marks and (plan or protocol or scenario == "domains"):
        field = "plan" if plan else "protocol" if protocol else "scenario"
        raise DataError(
            f"config.stream.{field} gives the tasks, but the table has a column `task` "
            "as well; leave one of them out"
        )
    if plan:
        planned = task_plans.tasks(pathlib.Path(plan), known)
    elif protocol:
        planned = protocols.tasks(protocol, known, classes_per_task, order)
        protocols.check(protocol, planned, chosen, faults)
    elif marks:
        planned = arrangement.whole(known)
    elif scenario == "domains":
        planned = arrangement.domains(known)
    else:
        planned = arrangement.cut(known, classes_per_task, class_order, order_seed)
    held_out = validation_fraction if evaluate_on == "validation" else None
    fractions = test_fraction, held_out
    controls = _control_sets(reserved, fractions, data_seed, faults)
    pools = _pools(chosen, planned, fractions, data_seed, faults)
    planned = [each for each in planned if pools.keys() >= set(each.keys())]
    if marks:
        drafts = task_column.deal(planned, pools, marks, max_train_per_class)
    else:
        drafts = arrangement.deal(planned, pools, max_train_per_class)
    if not drafts:
        faults.check()
    if not (plan or protocol or marks):
        drafts = arrange(drafts, order, order_seed)
    if scenario == "blurry":
        drafts = returning.blurry(drafts, disjoint_share, blurry_share, order_seed)
    limited = bool(max_train_per_class and not (plan or protocol))
    faults.unused += _unused(known, planned, pools, drafts, limited)
    drafts = first(drafts, first_tasks)
    if online is not None:
        drafts = returning.slices(drafts, online, data_seed)
    return with_reserved(build_stream(drafts), controls)


def _check_numbers(
    classes_per_task: int,
    test_fraction: float,
    validation_fraction: float,
    max_train_per_class: int | None,
) -> None:
    if classes_per_task < 1:
        raise ValueError(f"classes_per_task={classes_per_task}: expected at least 1")
    for name, share in (
        ("test_fraction", test_fraction),
        ("validation_fraction", validation_fraction),
    ):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share}: expected between 0 and 1")
    if max_train_per_class is not None and max_train_per_class < 1:
        raise ValueError(f"max_train_per_class={max_train_per_class}: expected 1 or up")


def _valid(
    data_sets: Sequence[DataSet], options: tuple[str, str, Any], faults: Faults
) -> list[DataSet]:
    """Returns the data sets that are valid, with how their media are stored."""
    stored = per_data_set([data_set.name for data_set in data_sets], *options)
    valid = []
    for data_set in data_sets:
        with faults.collecting():
            data_set.check()
            storage = stored[data_set.name]
            valid.append(dataclasses.replace(data_set, storage=storage))
    return valid


def _apart(
    data_sets: Sequence[DataSet],
    include: Sequence[str],
    exclude: Sequence[str],
    reserve: Sequence[str],
) -> tuple[Chosen, Chosen]:
    """Returns the classes of each data set that are learnt, and those reserved."""
    chosen = select(data_sets, include, exclude)
    if not reserve:
        return chosen, []
    reserved = select(data_sets, reserve, exclude)
    away = {(data_set.path, name) for data_set, names in reserved for name in names}
    rest = [(d, [n for n in names if (d.path, n) not in away]) for d, names in chosen]
    rest = [(data_set, names) for data_set, names in rest if names]
    if not rest:
        raise DataError(f"reserve={list(reserve)} leaves no class to learn")
    return rest, reserved


def _control_sets(
    reserved: Chosen, fractions: tuple[float, float | None], seed: int, faults: Faults
) -> list[TaskDraft]:
    """Returns reserved classes with their samples; arguments are those of `_pools`."""
    planned = arrangement.whole({data_set.path: names for data_set, names in reserved})
    pools = _pools(reserved, planned, fractions, seed, faults)
    planned = [each for each in planned if pools.keys() >= set(each.keys())]
    return arrangement.deal(planned, pools, None)


def _pools(
    chosen: Chosen,
    planned: Sequence[PlannedTask],
    fractions: tuple[float, float | None],
    seed: int,
    faults: Faults,
) -> Pools:
    """Returns the samples of the classes that tasks have; invalid data sets are absent.

    Args:
        chosen: Data sets and their classes.
        planned: Tasks.
        fractions: Share of a class that is split off for testing where there is no test
            part, and for validation; None: the test samples score.
        seed: Seed of the splits and of the order in which samples are taken.
        faults: Receives what is wrong with data sets.
    """
    needed = {key for task in planned for key in task.keys()}
    pools: Pools = {}
    for data_set, names in chosen:
        with faults.collecting():
            pools |= {
                (data_set.path, name): _pool(data_set, name, fractions, seed)
                for name in names
                if (data_set.path, name) in needed
            }
    return pools


def _pool(
    data_set: DataSet, name: str, fractions: tuple[float, float | None], seed: int
) -> Pool:
    test_fraction, held_out = fractions
    modality, where = data_set.modality, f"{data_set.source}: class {name!r}"
    train = data_set.samples("train", name)
    if "test" in data_set.parts:
        test = data_set.samples("test", name)
    else:
        train, test = split(train, test_fraction, seed, modality, where)
    if held_out is not None:
        # Hashed with another seed than the test split, which has taken the smallest
        # draws of its own: else nothing of the same range would be left here.
        train, test = split(train, held_out, f"validation {seed}", modality, where)
    return Pool(train, test, seed, modality)


def _unused(
    known: Known,
    planned: Sequence[PlannedTask],
    pools: Pools,
    drafts: Sequence[TaskDraft],
    limited: bool,
) -> Iterator[str]:
    """Yields what no task has: classes, and training samples of the others."""
    why = "beyond max_train_per_class" if limited else "which no task takes"
    needed = {key for task in planned for key in task.keys()}
    used = {id(each) for draft in drafts for part in draft.train for each in part}
    for path, names in known.items():
        if left := [name for name in names if (path, name) not in needed]:
            shown = ", ".join(map(repr, left[:_NAMED]))
            more = f" and {len(left) - _NAMED} more" * (len(left) > _NAMED)
            yield f"{path} (classes {shown}{more}, which no task has)"
        samples = [
            id(each)
            for name in names
            if (path, name) in pools
            for each in pools[path, name].train
        ]
        if rest := len(samples) - len(used.intersection(samples)):
            yield (
                f"{path} ({rest} of {len(samples)} training samples, {why}: they are "
                "not looked at either)"
            )
