"""Every error that the package raises on purpose, and how a damaged file becomes one.

A message names the culprit (file, field or flag) and the remedy. Programs end with
exit code 2 after bad input (`ConfigError`, `WorkdirError`, `DataError`, ...) and with 1
after a run that went wrong.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

# the class of a panic in a library that is written in Rust; it cannot be imported
_PANIC = "PanicException"


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and the remedy."""


class CodeError(ValueError):
    """Code that is not there, not as it was, or not what it should be; names it."""


class DataError(ValueError):
    """Data that cannot be read; the message names the file and what is wrong."""


class WorkdirError(ValueError):
    """A workdir that cannot be used; the message names it and the remedy."""


class ComparisonError(ValueError):
    """A comparison that would mean nothing; the message says why."""


class SaveError(RuntimeError):
    """A state cannot be written; those before it are as they were."""


class DivergedError(RuntimeError):
    """What is learnt is not finite any more; the message says since when."""


class BatchDependenceError(RuntimeError):
    """A method's predictions depend on the batch; the message names it."""


class Preempted(Exception):
    """The run was asked to leave; its state is saved."""


@contextlib.contextmanager
def reading(path: str, expected: str) -> Iterator[None]:
    """Turns everything that can go wrong while a file is decoded into a `DataError`.

    Decoding libraries raise a dozen kinds of exceptions on hostile files (Pillow alone:
    OSError, SyntaxError, ValueError, struct.error; a panic in Rust is not even an
    `Exception`), so every one but the lack of memory is taken for damage of the file.

    Args:
        path: file that is decoded inside the `with` block.
        expected: what the file should be, for the message.

    Raises:
        DataError: naming the path, what is wrong and what was expected.
    """
    file = pathlib.Path(path)
    try:
        if not file.exists():
            raise DataError(f"{path}: no such file; expected {expected}")
        if not file.is_file():
            raise DataError(f"{path}: not an ordinary file; expected {expected}")
        if not file.stat().st_size:
            raise DataError(f"{path}: the file is empty; expected {expected}")
        yield
    except (DataError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise DataError(
            f"{path}: cannot be decoded ({type(error).__name__}: {error}); "
            f"expected {expected}"
        ) from error


def check_bytes(path: str | pathlib.Path, limit: int) -> None:
    """Raises `DataError` if a file is larger than `limit` bytes."""
    if (size := os.stat(path).st_size) > limit:
        raise DataError(f"{path}: {size} bytes, more than the limit of {limit}")
