"""Faults of the samples of a stream, found before work starts."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from mmcl_jax.errors import DataError
from mmcl_jax.streams import watchdog
from mmcl_jax.streams.base import Record, Stream
from mmcl_jax.streams.loader import Decoder, Examined

_LISTED = 10
_BLOCK = 256
_CHUNK = 8

Job = tuple[Record, str]
# the error of a sample that cannot be decoded
Answer = Examined | str


class Leak(NamedTuple):
    """A training and a test sample of the same content."""

    train: Record
    test: Record


class Verified(NamedTuple):
    """What decoding every sample once has shown, by sample id.

    Attributes:
        failures: Errors of the samples that cannot be decoded.
        oddities: Phrases on samples that are probably not what their owner believes.
        contents: Hashes of what was decoded.
    """

    failures: dict[int, str]
    oddities: dict[int, tuple[str, ...]]
    contents: dict[int, bytes]


def verify(
    decoder: Decoder,
    stream: Stream,
    progress: Callable[[int, int], None] | None = None,
    *,
    threads: int = 4,
    worker_processes: int = 0,
    collect: bool = False,
    known: Mapping[int, Examined] | None = None,
) -> Verified:
    """Decodes every sample of a stream once and looks at what was decoded.

    Args:
        decoder: Decoder, which keeps inputs as far as it has room.
        stream: Stream whose samples are decoded, those of control sets included.
        progress: Callback that receives the numbers of finished and of all samples
            after each one.
        threads: Number of samples decoded at the same time.
        worker_processes: Number of processes that decode instead of threads, so that a
            sample that kills its process is identified; 0: threads.
        collect: Whether errors are returned instead of raised.
        known: What was seen before of samples, by id, which are not decoded again.

    Raises:
        DataError: Samples cannot be decoded, unless `collect`; the message lists up to
            ten of them.
    """
    known = known or {}
    jobs = [
        (record, task.modality)
        for task in (*stream.tasks, *stream.control_sets)
        for record in (*task.train, *task.test)
        if record.id not in known
    ]
    attempt = functools.partial(_attempt, decoder)
    if worker_processes:
        answers = _in_processes(attempt, jobs, worker_processes)
    else:
        answers = _in_threads(attempt, jobs, threads)
    found = Verified({}, {}, {})
    for number, seen in known.items():
        _add(found, number, seen)
    for done, ((record, _), answer) in enumerate(zip(jobs, answers, strict=False), 1):
        if isinstance(answer, str):
            found.failures[record.id] = answer
        else:
            _add(found, record.id, answer)
        if progress:
            progress(done, len(jobs))
        if not collect and len(found.failures) == _LISTED:
            break
    if (failures := found.failures) and not collect:
        more = " or more" if len(failures) == _LISTED else ""
        total = len(known) + len(jobs)
        head = f"{len(failures)}{more} of {total} samples cannot be decoded; "
        head += (
            "repair or remove them, or leave them out by --config.data.on_error=skip:"
        )
        raise DataError("\n  ".join([head, *failures.values()]))
    return found


def _add(found: Verified, number: int, seen: Examined) -> None:
    if seen.oddities:
        found.oddities[number] = seen.oddities
    if seen.content:
        found.contents[number] = seen.content


def _attempt(decoder: Decoder, job: Job) -> Answer:
    try:
        return decoder.examine(*job)[1]
    except DataError as error:
        return str(error)


def _in_threads(
    attempt: Callable[[Job], Answer], jobs: Sequence[Job], threads: int
) -> Iterator[Answer]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(jobs), _BLOCK):
            yield from pool.map(attempt, jobs[start : start + _BLOCK])


def _in_processes(
    attempt: Callable[[Job], Answer], jobs: Sequence[Job], workers: int
) -> Iterator[Answer]:
    """Yields as `_in_threads` does; a sample that kills its worker is a failure too.

    A broken pool does not tell which sample broke it, so all that may have been in
    work are decoded again, one at a time.
    """
    done = 0
    while done < len(jobs):
        pool, suspects = _pool(workers), ()
        try:
            answers = pool.map(attempt, jobs[done:], chunksize=_CHUNK)
            for failure in watchdog.answered(answers):
                done += 1
                yield failure
        except (BrokenProcessPool, watchdog.Stalled):
            suspects = jobs[done : done + _CHUNK * workers]
        finally:
            pool.shutdown(cancel_futures=True)
        done += len(suspects)
        yield from _one_by_one(attempt, suspects)


def _one_by_one(
    attempt: Callable[[Job], Answer], jobs: Sequence[Job]
) -> Iterator[Answer]:
    pool = _pool(1)
    try:
        for record, modality in jobs:
            try:
                answers = pool.map(attempt, [(record, modality)])
                (failure,) = watchdog.answered(answers)
            except (BrokenProcessPool, watchdog.Stalled):
                failure = (
                    f"{record.reference.describe()}: the process that decoded it was "
                    "killed; the decoder has crashed or hung, or memory ran out"
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
    reserved = without(stream.reserved, failures) if stream.reserved else None
    return dataclasses.replace(stream, tasks=tuple(tasks), reserved=reserved)


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
        for task in (*stream.tasks, *stream.control_sets)
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
