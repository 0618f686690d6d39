"""Faults of the samples of a stream, found before work starts."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.streams.loader import Decoder

_LISTED = 10
_BLOCK = 256
_CHUNK = 8

Job = tuple[Record, str]


class Leak(NamedTuple):
    """A training and a test sample of the same content."""

    train: Record
    test: Record


def verify(
    decoder: Decoder,
    stream: Stream,
    progress: Callable[[int, int], None] | None = None,
    *,
    threads: int = 4,
    worker_processes: int = 0,
    collect: bool = False,
) -> dict[int, str]:
    """Decodes every sample of a stream once.

    Args:
        decoder: Decoder, which keeps inputs as far as it has room.
        stream: Stream whose training and test samples are decoded.
        progress: Callback that receives the numbers of finished and of all samples
            after each one.
        threads: Number of samples decoded at the same time.
        worker_processes: Number of processes that decode instead of threads, so that a
            sample that kills its process is identified; 0: threads.
        collect: Whether errors are returned instead of raised.

    Returns:
        Errors of the samples that cannot be decoded, by id.

    Raises:
        DataError: Samples cannot be decoded, unless `collect`; the message lists up to
            ten of them.
    """
    jobs = [
        (record, task.modality)
        for task in stream.tasks
        for record in (*task.train, *task.test)
    ]
    attempt = functools.partial(_failure, decoder)
    if worker_processes:
        failures = _in_processes(attempt, jobs, worker_processes)
    else:
        failures = _in_threads(attempt, jobs, threads)
    found: dict[int, str] = {}
    for done, ((record, _), failure) in enumerate(zip(jobs, failures, strict=False), 1):
        if failure:
            found[record.id] = failure
        if progress:
            progress(done, len(jobs))
        if not collect and len(found) == _LISTED:
            break
    if found and not collect:
        more = " or more" if len(found) == _LISTED else ""
        head = f"{len(found)}{more} of {len(jobs)} samples cannot be decoded; "
        raise DataError("\n  ".join([head + "repair or remove them:", *found.values()]))
    return found


def _failure(decoder: Decoder, job: Job) -> str | None:
    try:
        decoder(*job)
    except DataError as error:
        return str(error)
    return None


def _in_threads(
    attempt: Callable[[Job], str | None], jobs: Sequence[Job], threads: int
) -> Iterator[str | None]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(jobs), _BLOCK):
            yield from pool.map(attempt, jobs[start : start + _BLOCK])


def _in_processes(
    attempt: Callable[[Job], str | None], jobs: Sequence[Job], workers: int
) -> Iterator[str | None]:
    """Yields as `_in_threads` does; a sample that kills its worker is a failure too.

    A broken pool does not tell which sample broke it, so all that may have been in
    work are decoded again, one at a time.
    """
    done = 0
    while done < len(jobs):
        pool, suspects = _pool(workers), ()
        try:
            for failure in pool.map(attempt, jobs[done:], chunksize=_CHUNK):
                done += 1
                yield failure
        except BrokenProcessPool:
            suspects = jobs[done : done + _CHUNK * workers]
        finally:
            pool.shutdown(cancel_futures=True)
        done += len(suspects)
        yield from _one_by_one(attempt, suspects)


def _one_by_one(
    attempt: Callable[[Job], str | None], jobs: Sequence[Job]
) -> Iterator[str | None]:
    pool = _pool(1)
    try:
        for record, modality in jobs:
            try:
                failure = pool.submit(attempt, (record, modality)).result()
            except BrokenProcessPool:
                failure = (
                    f"{record.reference.describe()}: the process that decoded it was "
                    "killed; the decoder has crashed or memory ran out"
                )
                pool = _pool(1)
            yield failure
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    # A process in which JAX has started threads cannot be forked.
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, context)


def without(stream: Stream, failures: Mapping[int, str]) -> Stream:
    """Returns a stream without some samples; the others keep their ids.

    Args:
        stream: Stream whose classes have training and test samples.
        failures: Errors of the samples to leave out, by id.

    Raises:
        DataError: A class would have no training or no test sample; the message names
            its samples.
    """
    tasks = []
    for task in stream.tasks:
        parts = {}
        for part, records in (("train", task.train), ("test", task.test)):
            parts[part] = tuple(r for r in records if r.id not in failures)
            for label in {r.label for r in records} - {r.label for r in parts[part]}:
                slot = stream.classes[label]
                lost = [failures[r.id] for r in records if r.label == label]
                head = (
                    f"{slot.modality}/{slot.dataset}: no {part} sample of class "
                    f"{slot.name!r} can be decoded; repair some or leave the class out:"
                )
                raise DataError("\n  ".join([head, *lost[:_LISTED]]))
        tasks.append(dataclasses.replace(task, **parts))
    return dataclasses.replace(stream, tasks=tuple(tasks))


def leaks(stream: Stream) -> list[Leak]:
    """Returns the test samples whose content is that of a training sample, with it.

    The content is that of a file, byte for byte, or the words of a sentence.

    Raises:
        DataError: A file cannot be read.
    """
    known = {
        record.reference.identity(): record
        for task in reversed(stream.tasks)
        for record in reversed(task.train)
    }
    return [
        Leak(known[content], record)
        for task in stream.tasks
        for record in task.test
        if (content := record.reference.identity()) in known
    ]


def describe_leaks(found: Sequence[Leak]) -> list[str]:
    """Returns a line for each of the first ten leaks, and one for the rest."""
    lines = [
        f"warning: {leak.test.reference.describe()} is a test sample and "
        f"{leak.train.reference.describe()} a training sample of the same content"
        for leak in found[:_LISTED]
    ]
    if rest := len(found) - len(lines):
        lines.append(f"warning: {rest} more test samples are training samples too")
    return lines
