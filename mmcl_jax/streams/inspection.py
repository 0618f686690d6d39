"""The contents of a stream and its faults, before anything is learnt."""

import collections
import dataclasses
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from mmcl_jax.streams.base import ClassSlot, Record, Stream
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.streams.verification import Leak, leaks

# Ratio of training samples of two classes of a data set, above which there is a remark.
_UNEVEN = 10
_FEW = 5  # training or test samples of a class


class ClassCount(NamedTuple):
    """A class and the number of its samples in the tasks of a stream."""

    slot: ClassSlot
    train: int
    test: int


class Pair(NamedTuple):
    """Two samples of the same content."""

    first: Record
    second: Record


class Findings(NamedTuple):
    """The findings of an inspection.

    Attributes:
        counts: Number of samples of each class slot.
        damaged: Error of each sample that cannot be decoded.
        leaks: Test samples that are training samples too.
        contradictions: Pairs of equal content and different classes in one part.
        repeated: Pairs of equal content and the same class in one part.
        remarks: Lines on classes with few samples, or far fewer than others.
    """

    counts: tuple[ClassCount, ...]
    damaged: tuple[str, ...]
    leaks: tuple[Leak, ...]
    contradictions: tuple[Pair, ...]
    repeated: tuple[Pair, ...]
    remarks: tuple[str, ...]

    @property
    def wrong(self) -> int:
        """Returns the number of faults that should be repaired before training."""
        return len(self.damaged) + len(self.leaks) + len(self.contradictions)


def inspect(stream: Stream, failures: dict[int, str]) -> Findings:
    """Inspects a stream; every file is read once, to compare contents.

    Args:
        stream: Stream whose samples may be damaged.
        failures: Errors of damaged samples by id, as `verification.verify` returns
            them.
    """
    counts = _counts(stream)
    whole = _without(stream, failures.keys())
    contradictions, repeated = [], []
    for part in ("train", "test"):
        known: dict[str, Record] = {}
        for record in (r for task in whole.tasks for r in getattr(task, part)):
            first = known.setdefault(record.reference.identity(), record)
            if first is record:
                continue
            one, other = (stream.classes[r.label] for r in (first, record))
            same = one.canonical == other.canonical
            (repeated if same else contradictions).append(Pair(first, record))
    return Findings(
        counts,
        tuple(failures.values()),
        tuple(leaks(whole)),
        tuple(contradictions),
        tuple(repeated),
        tuple(_remarks(counts)),
    )


def to_json(stream: Stream, findings: Findings) -> dict[str, Any]:
    """Returns findings as JSON values; samples are given by their descriptions."""

    def pairs(found: Iterable[Pair]) -> list[list[str]]:
        return [[r.reference.describe() for r in pair] for pair in found]

    return {
        "wrong": findings.wrong,
        "tasks": describe_tasks(stream),
        "classes": [
            {
                "name": count.slot.name,
                "modality": count.slot.modality,
                "dataset": count.slot.dataset,
                "train": count.train,
                "test": count.test,
            }
            for count in findings.counts
        ],
        "damaged": list(findings.damaged),
        "leaks": [
            {name: getattr(leak, name).reference.describe() for name in Leak._fields}
            for leak in findings.leaks
        ],
        "contradictions": pairs(findings.contradictions),
        "repeated": pairs(findings.repeated),
        "remarks": list(findings.remarks),
    }


def _counts(stream: Stream) -> tuple[ClassCount, ...]:
    train, test = (
        collections.Counter(r.label for task in stream.tasks for r in getattr(task, p))
        for p in ("train", "test")
    )
    slots = enumerate(stream.classes)
    return tuple(ClassCount(slot, train[i], test[i]) for i, slot in slots)


def _without(stream: Stream, ids: Collection[int]) -> Stream:
    """Returns a stream without some samples, possibly without all of a class."""
    tasks = [
        dataclasses.replace(
            task,
            train=tuple(r for r in task.train if r.id not in ids),
            test=tuple(r for r in task.test if r.id not in ids),
        )
        for task in stream.tasks
    ]
    return dataclasses.replace(stream, tasks=tuple(tasks))


def _remarks(counts: Iterable[ClassCount]) -> Iterable[str]:
    groups: dict[str, list[ClassCount]] = {}
    for count in counts:
        name = f"{count.slot.modality}/{count.slot.dataset}"
        groups.setdefault(name, []).append(count)
    for name, own in groups.items():
        few, many = (pick(own, key=lambda c: c.train) for pick in (min, max))
        if many.train > _UNEVEN * few.train:
            yield (
                f"{name}: class {many.slot.name!r} has {many.train} training samples, "
                f"{few.slot.name!r} has {few.train}"
            )
        for part in ("train", "test"):
            scarce = [c for c in own if getattr(c, part) < _FEW]
            if scarce:
                least = min(scarce, key=lambda c: getattr(c, part))
                yield (
                    f"{name}: {len(scarce)} of {len(own)} classes have fewer than "
                    f"{_FEW} samples to {part} with, {least.slot.name!r} has "
                    f"{getattr(least, part)}"
                )
