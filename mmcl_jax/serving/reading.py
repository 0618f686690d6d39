"""Samples on their way to a classifier: recognized, decoded, grouped by modality."""

import concurrent.futures
import contextlib
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import FileReference, Inputs, Reference, TextReference
from mmcl_jax.serving import file_types, sample_files
from mmcl_jax.serving.answers import Labelled
from mmcl_jax.serving.sample_files import Sample


class Read(NamedTuple):
    """A sample that was decoded.

    Attributes:
        modality: Name of its modality.
        inputs: What `Modality.preprocess` made of it.
        oddities: See `Modality.oddities`.
    """

    modality: str
    inputs: Inputs
    oddities: tuple[str, ...]


class Group(NamedTuple):
    """Samples of one modality.

    Attributes:
        modality: Name of the modality.
        places: Place of each sample among all.
        inputs: Their inputs `[n ...]`.
        oddities: Oddities of each sample.
    """

    modality: str
    places: tuple[int, ...]
    inputs: Inputs
    oddities: tuple[tuple[str, ...], ...]


# the source of each sample, and its prediction or error
Said = Generator[tuple[str, Labelled | DataError], None, None]


def windows(
    samples: Iterable[Sample], size: int
) -> Generator[list[Reference], None, None]:
    """Yields references to samples, so many at a time.

    A sample in memory is written to a file, which is there until the next window is
    asked for, or the generator is closed.

    Raises:
        DataError: A sample is of no kind that `sample_files.write` takes.
    """
    rest = enumerate(samples)
    while window := list(itertools.islice(rest, size)):
        with tempfile.TemporaryDirectory() as folder:
            yield [
                sample_files.reference(sample, pathlib.Path(folder), i)
                for i, sample in window
            ]


def labelled(
    samples: Iterable[Sample],
    size: int,
    decode: Callable[[Reference], Read],
    threads: int,
    label: Callable[[Group, list[str]], Iterable[Labelled]],
) -> Said:
    """Yields the source of each sample and its prediction or error, in order.

    Args:
        samples: Samples of the kinds that `sample_files.write` takes.
        size: Number of samples in memory at a time.
        decode: Decodes a sample; raises `DataError`.
        threads: Number of samples that are decoded at the same time.
        label: Predictions of the samples of a group, given their sources.
    """
    with contextlib.closing(windows(samples, size)) as parts:
        for references in parts:
            groups, failures = in_groups(references, decode, threads)
            said: dict[int, Labelled | DataError] = dict(failures)
            for group in groups:
                sources = [references[place].describe() for place in group.places]
                said |= zip(group.places, label(group, sources), strict=True)
            for place, reference in enumerate(references):
                yield reference.describe(), said[place]


def all_of(said: Said) -> list[Labelled]:
    """Returns the predictions of all samples; raises the first error."""
    found = []
    with contextlib.closing(said):  # files of samples in memory go with it
        for _, each in said:
            if isinstance(each, DataError):
                raise each
            found.append(each)
    return found


def modality_of(reference: Reference, given: str | None) -> str:
    """Returns the name of the modality that a sample is read as.

    Args:
        reference: The sample.
        given: Modality that the user has given; None: it is recognized.

    Raises:
        DataError: It is a sentence, and another modality was given; or none can be
            recognized.
    """
    source = reference.describe()
    if isinstance(reference, TextReference):
        if given not in (None, "text"):
            raise DataError(f"{source}: a sentence is not a sample of {given}")
        return "text"
    if given is None and isinstance(reference, FileReference):
        return file_types.modality_of(reference.path)
    if given is None:
        raise DataError(f"{source}: its modality cannot be recognized; give it")
    return given


def in_groups(
    references: Sequence[Reference], decode: Callable[[Reference], Read], threads: int
) -> tuple[list[Group], dict[int, DataError]]:
    """Decodes samples; returns them by modality, and the failures by place."""

    def read(reference: Reference) -> Read | DataError:
        try:
            return decode(reference)
        except DataError as error:
            return _named(error, reference)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(read, references))
    failures = {i: f for i, f in enumerate(found) if isinstance(f, DataError)}
    groups: dict[str, dict[int, Read]] = {}
    for place, item in enumerate(found):
        if not isinstance(item, DataError):
            groups.setdefault(item.modality, {})[place] = item
    return [
        Group(
            name,
            tuple(rows),
            _stack([row.inputs for row in rows.values()]),
            tuple(row.oddities for row in rows.values()),
        )
        for name, rows in groups.items()
    ], failures


def _named(error: DataError, reference: Reference) -> DataError:
    """Returns an error that names the sample as its owner knows it."""
    message, source = str(error), reference.describe()
    if isinstance(reference, FileReference):
        message = message.replace(reference.path, source)
    return DataError(message if source in message else f"{source}: {message}")


def _stack(samples: list[Inputs]) -> Inputs:
    return {name: np.stack([s[name] for s in samples]) for name in samples[0]}
