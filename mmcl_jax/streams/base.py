"""Tasks and streams: what is learnt, and in which order."""

import dataclasses
import difflib
import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mmcl_jax.modalities.base import Reference

ORDERS = ("by_modality", "interleaved", "random", "recurring")

# `validation` is for choosing hyper-parameters, and never overlaps the test part.
EvaluateOn = Literal["test", "validation"]

# Tasks of a run in the order "recurring".
_RUN = 2

# Marks at which a line may break or not, that of byte order among them, and marks of
# direction. Joiners are left, since words of several scripts are spelt with them, but
# none ends a word.
_UNSEEN: Mapping[int, None] = dict.fromkeys(
    (0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF)
    + (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
_JOINERS = "\u200c\u200d"


class Record(NamedTuple):
    """One sample: its origin, its class slot, and an id unique in the stream."""

    reference: Reference
    label: int
    id: int


@dataclasses.dataclass(frozen=True)
class ClassSlot:
    """One class name in one modality of one data set.

    Attributes:
        name: Display name, with spaces for underscores.
        modality: Name of the modality.
        dataset: Name of the data set.
        canonical: Number that slots of equal names share: predicting any of them is
            correct.
    """

    name: str
    modality: str
    dataset: str
    canonical: int


@dataclasses.dataclass(frozen=True)
class Task:
    """New classes in one modality, with their training and test samples."""

    name: str
    modality: str
    classes: tuple[int, ...]
    train: Sequence[Record]
    test: Sequence[Record]


@dataclasses.dataclass(frozen=True)
class Stream:
    """An ordered tuple of tasks.

    Attributes:
        classes: Every class slot, indexed by `Record.label`.
        tasks: Tasks in the order in which they are met.
        modalities: Modalities in the order in which they are first met; the index of a
            modality is its place here.
        stages: Tasks that are learnt together, in order: one task a stage, except in
            the joint stream, whose only stage holds them all.
        reserved: Control sets, with class slots of their own, see `streams.reserve`.
        retired: Class slots that are not answered any more, each with the number of
            stages that had been learnt by then, see `streams.retirement`.
    """

    classes: tuple[ClassSlot, ...]
    tasks: tuple[Task, ...]
    modalities: tuple[str, ...]
    stages: tuple[tuple[int, ...], ...]
    reserved: "Stream | None" = None
    retired: tuple[tuple[int, int], ...] = ()

    @property
    def control_sets(self) -> tuple[Task, ...]:
        """Returns the tasks that are scored and never learnt."""
        return self.reserved.tasks if self.reserved else ()


class Required(NamedTuple):
    """The option that tells a source where its data are.

    Attributes:
        field: Name of the option.
        what: Meaning of the value, for messages.
        example: Example of a value.
    """

    field: str
    what: str
    example: str


class StreamSource(NamedTuple):
    """A kind of stream: an entry of `streams.registry`.

    Attributes:
        options: Frozen dataclass with a default for each field, `kind` among them: the
            section `stream` of a config.
        build: Function that returns the stream for the options, `order_seed` and
            `data_seed`, all given as keywords; it decodes no sample. Where samples are
            files, it is also given `faults`, which receives what is wrong with them.
        required: The option that has no useful default; None if there is none.
        check: Function that raises `ConfigError` for options that contradict each
            other.
        of_files: Whether samples are files that may be damaged.
        remote: Function that returns the names in the options that would be downloaded;
            None: nothing is ever downloaded.
    """

    options: type
    build: Callable[..., "Stream"]
    required: Required | None = None
    check: Callable[[Any], None] | None = None
    of_files: bool = True
    remote: Callable[[Any], list[str]] | None = None


@dataclasses.dataclass(frozen=True)
class TaskDraft:
    """A task before slots and sample ids are numbered.

    Attributes:
        name: Name of the task.
        modality: Name of the modality of all its samples.
        classes: A pair `(class name, data set)` for each class.
        train: Training references, a sequence for each class.
        test: Test references, a sequence for each class.
    """

    name: str
    modality: str
    classes: tuple[tuple[str, str], ...]
    train: tuple[Sequence[Reference], ...]
    test: tuple[Sequence[Reference], ...]


def arrange(drafts: Sequence[TaskDraft], order: str, seed: int) -> list[TaskDraft]:
    """Puts drafts into the order in which they will be met.

    The result depends only on the order of `drafts` and on `seed`.

    Args:
        drafts: Every task once.
        order: One of `ORDERS`:
            `by_modality`: all tasks of one modality, then all of the next; the seed
            permutes the modalities, tasks of a modality keep their order.
            `interleaved`: round robin over the modalities, skipping those that have no
            task left; the seed permutes the modalities and the tasks of each.
            `random`: a uniform draw from the permutations whose first task is not
            text, unless all tasks are text. This is our reading of "text is not
            alone": the other modalities are aligned to text, so a stream of several
            modalities does not start with it.
            `recurring`: as `interleaved`, but a modality's turn is a run of two tasks,
            so each returns after all the others.
        seed: Seed of the permutations.

    Returns:
        The same drafts, rearranged.

    Raises:
        ValueError: `order` is not one of `ORDERS`.
    """
    if order not in ORDERS:
        near = difflib.get_close_matches(str(order), ORDERS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown order {order!r}: expected one of {ORDERS}; nearest: {near!r}"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, ORDERS.index(order)]))
    if order == "random":
        return _arrange_random(drafts, rng)
    groups: dict[str, list[TaskDraft]] = {}
    for draft in drafts:
        groups.setdefault(draft.modality, []).append(draft)
    names = list(groups)
    shuffled = [groups[names[i]] for i in rng.permutation(len(names))]
    if order == "by_modality":
        return list(itertools.chain.from_iterable(shuffled))
    shuffled = [[group[i] for i in rng.permutation(len(group))] for group in shuffled]
    size = _RUN if order == "recurring" else 1
    runs = [
        [group[i : i + size] for i in range(0, len(group), size)] for group in shuffled
    ]
    rounds = itertools.zip_longest(*runs, fillvalue=())
    return [draft for turns in rounds for run in turns for draft in run]


def first(drafts: Sequence[TaskDraft], count: int | None) -> Sequence[TaskDraft]:
    """Returns the first `count` drafts, or all for None.

    Raises:
        ValueError: There are fewer drafts.
    """
    if count is not None and count > len(drafts):
        raise ValueError(f"first_tasks is {count}, but there are {len(drafts)} tasks")
    return drafts[:count]


def _arrange_random(
    drafts: Sequence[TaskDraft], rng: np.random.Generator
) -> list[TaskDraft]:
    allowed = [i for i, draft in enumerate(drafts) if draft.modality != "text"]
    if not allowed:
        return [drafts[i] for i in rng.permutation(len(drafts))]
    first = allowed[rng.integers(len(allowed))]
    rest = [i for i in range(len(drafts)) if i != first]
    return [drafts[first], *(drafts[rest[i]] for i in rng.permutation(len(rest)))]


def visible(text: str) -> str:
    r"""Returns a text as a reader sees it: NFC, single spaces, no marks of width zero.

    >>> visible("\ufeffcafe\u0301  au lait ")
    'café au lait'
    """
    words = unicodedata.normalize("NFC", text).translate(_UNSEEN).split()
    return " ".join(filter(None, (word.strip(_JOINERS) for word in words)))


def display_name(name: str) -> str:
    """Returns a class name as it is displayed: no underscores, single spaces, NFC.

    Marks of width zero that nobody sees are dropped.

    >>> display_name("fire_truck ")
    'fire truck'
    """
    return " ".join(visible(name).replace("_", " ").split())


def canonical_ids(names: Iterable[str]) -> tuple[int, ...]:
    """Numbers names in the order in which they are met; equal names share a number.

    Names that differ only in underscores, case, white space or Unicode form are equal.
    Two data sets with a class "fire truck" would otherwise have two identical text
    embeddings, of which the argmax always takes the first.

    >>> canonical_ids(["Fire_truck", "cat", "fire  truck"])
    (0, 1, 0)
    """
    known: dict[str, int] = {}
    keys = [display_name(name).casefold() for name in names]
    return tuple(known.setdefault(key, len(known)) for key in keys)


def build_stream(drafts: Sequence[TaskDraft]) -> Stream:
    """Numbers class slots and samples of drafts that are in their final order.

    Slots and sample ids are numbered in the order in which they are met: a sample's id
    is its index over all tasks in order, training before test samples, class by class.
    A class that an earlier task had in the same modality and data set keeps its slot.

    Args:
        drafts: The tasks in order, at least one.

    Returns:
        The stream, with a stage for every task.

    Raises:
        ValueError: There is no draft, a draft has no classes, two tasks have the same
            name, a task has a class twice, or the numbers of classes and of lists of
            references differ.
    """
    if not drafts:
        raise ValueError("a stream needs at least one task, got none")
    names: set[str] = set()
    slots: dict[tuple[str, str, str], int] = {}
    slot_names: list[str] = []
    tasks: list[Task] = []
    ids = itertools.count()
    for draft in drafts:
        _check(draft, names)
        names.add(draft.name)
        labels: list[int] = []
        for name, dataset in draft.classes:
            shown = display_name(name)
            key = (shown.casefold(), draft.modality, dataset)
            if key not in slots:
                slots[key] = len(slots)
                slot_names.append(shown)
            if slots[key] in labels:
                raise ValueError(
                    f"task {draft.name!r}: class {shown!r} of data set {dataset!r} "
                    "occurs twice (underscores, case, white space and Unicode form "
                    "do not count)"
                )
            labels.append(slots[key])
        train, test = (
            tuple(
                Record(reference, label, next(ids))
                for label, references in zip(labels, part, strict=True)
                for reference in references
            )
            for part in (draft.train, draft.test)
        )
        tasks.append(Task(draft.name, draft.modality, tuple(labels), train, test))
    classes = tuple(
        ClassSlot(name, modality, dataset, canonical)
        for name, (_, modality, dataset), canonical in zip(
            slot_names, slots, canonical_ids(slot_names), strict=True
        )
    )
    modalities = tuple(dict.fromkeys(task.modality for task in tasks))
    stages = tuple((i,) for i in range(len(tasks)))
    return Stream(classes, tuple(tasks), modalities, stages)


def _check(draft: TaskDraft, names: set[str]) -> None:
    if draft.name in names:
        raise ValueError(f"two tasks are named {draft.name!r}; names must differ")
    if not draft.classes:
        raise ValueError(f"task {draft.name!r} has no classes")
    for part, references in (("train", draft.train), ("test", draft.test)):
        if len(references) != len(draft.classes):
            raise ValueError(
                f"task {draft.name!r}: {len(draft.classes)} classes but "
                f"{len(references)} lists of {part} references"
            )


def joint(stream: Stream) -> Stream:
    """Returns the stream with one stage that holds all tasks: the joint upper bound."""
    return dataclasses.replace(stream, stages=(tuple(range(len(stream.tasks))),))


def stream_hash(stream: Stream) -> str:
    """Returns the SHA-256 of what is learnt and in which order, as 64 hex digits.

    It covers, in order, the class slots, the name, modality and classes of every task,
    and the description, label and id of every sample; then those of control sets.
    Stages are left out, so that `joint(stream)` can be paired with runs over `stream`.
    The hash is equal in every process.
    """
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values).encode() + b"\n")

    for each in (stream, stream.reserved):
        if each is None:
            break
        for slot in each.classes:
            add("class", slot.name, slot.modality, slot.dataset, slot.canonical)
        for task in each.tasks:
            add("task", task.name, task.modality, task.classes)
            for part, records in (("train", task.train), ("test", task.test)):
                for record in records:
                    add(part, record.reference.describe(), record.label, record.id)
    return digest.hexdigest()


def scored_tasks(
    stream: Stream, stage: int, upcoming: Literal["next", "all"]
) -> tuple[list[int], list[int]]:
    """Returns the seen and the upcoming tasks that are scored after a stage.

    Args:
        stream: The stream that is learnt.
        stage: Index of the stage, counted from 0.
        upcoming: Tasks that are scored before they are learnt: those of the `next`
            stage, or `all` that follow.
    """
    last = None if upcoming == "all" else stage + 2
    seen, later = stream.stages[: stage + 1], stream.stages[stage + 1 : last]
    return [i for each in seen for i in each], [i for each in later for i in each]
