"""Samples that can be decoded, but are probably not what their owner believes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmcl_jax.modalities.text import ENTITY, MOJIBAKE
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.streams.verification import Verified

# how pandas, R, SQL and others write a value that is missing, in lower case
_MISSING = ("nan", "na", "n/a", "none", "null", "<na>", "nil", "undefined", "#n/a")


class Oddity(NamedTuple):
    """A phrase that is true of several samples of a data set.

    Attributes:
        dataset: `<modality>/<name>`.
        phrase: What was seen, see `Modality.oddities`.
        count: Number of samples that it is true of.
        total: Number of samples of the data set.
        example: Description of the first of them.
    """

    dataset: str
    phrase: str
    count: int
    total: int
    example: str

    def __str__(self) -> str:
        """Returns it as a sentence."""
        return (
            f"{self.dataset}: {self.count} of {self.total} samples, such as "
            f"{self.example}: {self.phrase}"
        )


class Twins(NamedTuple):
    """Two samples of different bytes that are decoded to the same."""

    first: Record
    second: Record


def oddities(stream: Stream, verified: Verified) -> list[Oddity]:
    """Returns what is odd about each data set, the most frequent first."""
    totals: dict[str, int] = {}
    found: dict[tuple[str, str], list[Record]] = {}
    for record in _records(stream):
        slot = stream.classes[record.label]
        dataset = f"{slot.modality}/{slot.dataset}"
        totals[dataset] = totals.get(dataset, 0) + 1
        for phrase in (*verified.oddities.get(record.id, ()), *_of_name(slot.name)):
            found.setdefault((dataset, phrase), []).append(record)
    listed = [
        Oddity(dataset, phrase, len(own), totals[dataset], own[0].reference.describe())
        for (dataset, phrase), own in found.items()
    ]
    return sorted(listed, key=lambda oddity: -oddity.count)


def _of_name(name: str) -> Iterator[str]:
    """Yields what is odd about the name of a class."""
    if name.casefold() in _MISSING:
        yield f"class {name!r}, as which programs write a label that is missing,"
    if MOJIBAKE.search(name) or "\ufffd" in name:
        yield f"class {name!r}, whose name has characters of a wrong encoding,"
    if ENTITY.search(name):
        yield f"class {name!r}, whose name has entities of HTML,"


def twins(stream: Stream, verified: Verified) -> list[Twins]:
    """Returns pairs of samples of one modality that differ only in their encoding.

    Pairs of equal bytes are left out: `verification.leaks` and `inspection` find them.
    """
    known: dict[tuple[str, bytes], Record] = {}
    found = []
    for record in _records(stream):
        if content := verified.contents.get(record.id):
            key = (stream.classes[record.label].modality, content)
            first = known.setdefault(key, record)
            if first.reference.identity() != record.reference.identity():
                found.append(Twins(first, record))
    return found


def describe(stream: Stream, verified: Verified) -> Iterator[str]:
    """Yields one line for a log if there is something odd about the samples."""
    lines = [str(oddity) for oddity in oddities(stream, verified)]
    if pairs := twins(stream, verified):
        lines.append(
            f"samples that are decoded to the same as another file: {len(pairs)}, such "
            f"as {pairs[0].second.reference.describe()} and "
            f"{pairs[0].first.reference.describe()}"
        )
    if lines:
        yield "warning: " + "; ".join(lines)


def _records(stream: Stream) -> Iterable[Record]:
    return (record for task in stream.tasks for record in (*task.train, *task.test))
