"""Worker processes that stop answering: a decoder in a deadlock, a file server gone."""

import contextlib
import multiprocessing
import os
import pathlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 60.0
# Processor time of all workers in that time, below which they do nothing: those that
# wait for others wake up now and then.
_BUSY_SECONDS = 3.0
_END: Any = object()


class Stalled(RuntimeError):
    """No worker has answered, and none is at work."""


def answered(results: Iterator[T], seconds: float = SECONDS) -> Iterator[T]:
    """Yields what worker processes of this one give, as long as they do.

    A result may take any time while a worker computes. Where `/proc` does not tell how
    much they compute, nothing is watched.

    Args:
        results: Iterator that waits for the workers.
        seconds: Time without a result and without work, after which they are killed.

    Raises:
        Stalled: They were killed.
    """
    if not pathlib.Path("/proc/self/stat").exists():
        yield from results
        return
    asked, given = queue.SimpleQueue(), queue.SimpleQueue()
    # as a daemon, since nothing would end it while it waits
    threading.Thread(target=_serve, args=(results, asked, given), daemon=True).start()
    try:
        while True:
            asked.put(True)
            item, error = _await(given, seconds)
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        asked.put(False)


def _serve(results: Iterator[T], asked: Any, given: Any) -> None:
    while asked.get():
        try:
            given.put((next(results, _END), None))
        except BaseException as error:
            given.put((None, error))


def _await(given: Any, seconds: float) -> tuple[Any, BaseException | None]:
    since, used = time.monotonic(), _processor_seconds()
    while True:
        try:
            # in short parts, between which signals are handled
            return given.get(timeout=0.5)
        except queue.Empty:
            pass
        now, spent = time.monotonic(), _processor_seconds()
        if spent - used > _BUSY_SECONDS * seconds / SECONDS:
            since, used = now, spent
        elif now - since > seconds:
            for worker in multiprocessing.active_children():
                worker.kill()
            raise Stalled(f"no worker process has answered for {seconds:.0f} s")


def _processor_seconds() -> float:
    """Returns the processor time of all worker processes."""
    ticks = 0
    for worker in multiprocessing.active_children():
        with contextlib.suppress(OSError):  # it has ended
            stat = pathlib.Path(f"/proc/{worker.pid}/stat").read_text()
            # after the name, which may hold anything, the 12th and 13th field
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
