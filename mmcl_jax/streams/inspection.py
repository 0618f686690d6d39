"""The contents of a stream and its faults, before anything is learnt."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from mmcl_jax.errors import Faults
from mmcl_jax.streams.base import ClassSlot, Record, Stream
from mmcl_jax.streams.description import describe_tasks
from mmcl_jax.streams.plausibility import Oddity, Twins, oddities, twins
from mmcl_jax.streams.verification import Leak, Verified, leaks

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


class Row(NamedTuple):
    """A finding as a line of a table.

    Attributes:
        severity: "error", which must be repaired, or "warning".
        kind: What sort of finding it is, in a word or two.
        message: What was found, and where.
    """

    severity: str
    kind: str
    message: str


class Findings(NamedTuple):
    """The findings of an inspection.

    Attributes:
        counts: Number of samples of each class slot.
        faults: Faults of folders and tables, because of which something was left out.
        damaged: Error of each sample that cannot be decoded.
        leaks: Test samples that are training samples too.
        contradictions: Pairs of equal content and different classes in one part.
        oddities: What is probably not what its owner believes.
        twins: Pairs of different bytes that are decoded to the same.
        repeated: Pairs of equal content and the same class in one part.
        remarks: Lines on classes with few samples, or far fewer than others.
        unused: Entries of folders and tables that are not used.
        notes: What is no fault but should be known, each a sentence.
    """

    counts: tuple[ClassCount, ...]
    faults: tuple[str, ...]
    damaged: tuple[str, ...]
    leaks: tuple[Leak, ...]
    contradictions: tuple[Pair, ...]
    oddities: tuple[Oddity, ...]
    twins: tuple[Twins, ...]
    repeated: tuple[Pair, ...]
    remarks: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def wrong(self) -> int:
        """Returns the number of faults that must be repaired before training."""
        return sum(
            map(len, (self.faults, self.damaged, self.leaks, self.contradictions))
        )

    def rows(self) -> Iterator[Row]:
        """Yields all findings, errors first."""
        for message in self.faults:
            yield Row("error", "layout", message)
        for message in self.damaged:
            yield Row("error", "damaged", message)
        for leak in self.leaks:
            one, other = leak.test.reference, leak.train.reference
            yield Row(
                "error",
                "leak",
                f"{one.describe()} is a test sample and {other.describe()} a training "
                "sample of the same content",
            )
        for pair in self.contradictions:
            yield Row(
                "error",
                "contradiction",
                f"{_both(pair)} have the same content but different classes",
            )
        for oddity in self.oddities:
            yield Row("warning", "implausible", str(oddity))
        for pair in self.twins:
            message = f"{_both(pair)} differ as files, but are decoded to the same"
            yield Row("warning", "same content", message)
        for pair in self.repeated:
            yield Row("warning", "duplicate", f"{_both(pair)} have the same content")
        for remark in self.remarks:
            yield Row("warning", "imbalance", remark)
        for entry in self.unused:
            yield Row("warning", "not used", entry)
        for note in self.notes:
            yield Row("warning", "note", note)


def _both(pair: Pair | Twins) -> str:
    return f"{pair.first.reference.describe()} and {pair.second.reference.describe()}"


def inspect(stream: Stream, verified: Verified, faults: Faults) -> Findings:
    """Inspects a stream; every file is read once, to compare contents.

    Args:
        stream: Stream whose samples may be damaged.
        verified: What decoding its samples has shown.
        faults: Faults that were met when the stream was built.
    """
    counts = _counts(stream)
    whole = _without(stream, verified.failures.keys())
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
        tuple(faults.errors),
        tuple(verified.failures.values()),
        tuple(leaks(whole)),
        tuple(contradictions),
        tuple(oddities(whole, verified)),
        tuple(twins(whole, verified)),
        tuple(repeated),
        tuple(_remarks(counts)),
        tuple(faults.unused),
        tuple(faults.notes),
    )


def without_stream(faults: Faults) -> Findings:
    """Returns the findings where there is no stream, since nothing valid is left."""
    nothing = Findings(*((),) * len(Findings._fields))
    return nothing._replace(faults=tuple(faults.errors), unused=tuple(faults.unused))


def to_json(stream: Stream | None, findings: Findings) -> dict[str, Any]:
    """Returns findings as JSON values; samples are given by their descriptions."""

    def pairs(found: Iterable[Pair | Twins]) -> list[list[str]]:
        return [[r.reference.describe() for r in pair] for pair in found]

    return {
        "wrong": findings.wrong,
        "tasks": describe_tasks(stream) if stream else [],
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
        "faults": list(findings.faults),
        "damaged": list(findings.damaged),
        "leaks": [
            {name: getattr(leak, name).reference.describe() for name in Leak._fields}
            for leak in findings.leaks
        ],
        "contradictions": pairs(findings.contradictions),
        "implausible": [oddity._asdict() for oddity in findings.oddities],
        "same_when_decoded": pairs(findings.twins),
        "repeated": pairs(findings.repeated),
        "remarks": list(findings.remarks),
        "unused": list(findings.unused),
        "notes": list(findings.notes),
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
