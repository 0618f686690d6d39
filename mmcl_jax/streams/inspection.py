"""What there is in a stream, and what is wrong with it, before anything is learnt."""

import collections
import dataclasses
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from mmcl_jax.streams.base import ClassSlot, Record, Stream
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.streams.verification import Leak, leaks

# of the training samples of two classes of a data set, beyond which a line says so
_UNEVEN = 10
_FEW = 5  # training or test samples of a class


class ClassCount(NamedTuple):
    """A class, and how many samples it has in the tasks of a stream."""

    slot: ClassSlot
    train: int
    test: int


class Pair(NamedTuple):
    """Two samples of the same content."""

    first: Record
    second: Record


class Findings(NamedTuple):
    """What was found.

    Attributes:
        counts: of each class slot.
        damaged: what is wrong with each sample that cannot be decoded.
        leaks: test samples that are training samples, too.
        contradictions: samples of one content and two classes in one part.
        repeated: samples of one content and one class in one part.
        remarks: lines on classes with few samples, or far fewer than others.
    """

    counts: tuple[ClassCount, ...]
    damaged: tuple[str, ...]
    leaks: tuple[Leak, ...]
    contradictions: tuple[Pair, ...]
    repeated: tuple[Pair, ...]
    remarks: tuple[str, ...]

    @property
    def wrong(self) -> int:
        """Returns how much there is that should be mended before training."""
        return len(self.damaged) + len(self.leaks) + len(self.contradictions)


def inspect(stream: Stream, failures: dict[int, str]) -> Findings:
    """Looks at a stream; every file is read once, to compare what is in them.

    Args:
        stream: of which samples may be damaged.
        failures: what is wrong with samples, by their ids, as `verification.verify`
            finds it.
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
    """Returns findings as JSON has them; samples are named as they are described."""

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
    """Returns a stream that lacks some samples, all of a class perhaps."""
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
