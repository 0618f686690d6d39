"""Every error that the package raises on purpose, and how a damaged file becomes one.

A message names the culprit (file, field or flag) and the remedy. Programs end with
exit code 2 after bad input (`ConfigError`, `WorkdirError`, `DataError`, ...) and with 1
after a run that went wrong.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator

# the class of a panic in a library written in Rust, by name as it cannot be imported
_PANIC = "PanicException"
_LISTED = 10  # faults in one message
# how Python shows an object that has no text of its own
_OBJECT = re.compile(r" ?<[^<>]* at 0x[0-9a-fA-F]+>")


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and the remedy."""


class CodeError(ValueError):
    """User-defined code that is missing, changed or invalid; the message names it."""


class DataError(ValueError):
    """Data that cannot be read; the message names the file and what is wrong."""


class WorkdirError(ValueError):
    """A workdir that cannot be used; the message names it and the remedy."""


class ComparisonError(ValueError):
    """A comparison that would be meaningless; the message says why."""


class SaveError(RuntimeError):
    """A state that cannot be written; earlier ones are unchanged."""


class DivergedError(RuntimeError):
    """Parameters or a loss that are no longer finite; the message says since when."""


class BatchDependenceError(RuntimeError):
    """A method's predictions depend on the batch; the message names it."""


# EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command resumes the run
RUN_AGAIN = 75


class Preempted(Exception):
    """The run was asked to stop; its state is saved."""


class Faults:
    """Collects the faults of data, so that all of them are reported in one go.

    Attributes:
        errors: Messages about what must be repaired, such as a folder that is probably
            misspelt.
        unused: What is there but is not used, with the reason.
        notes: What is no fault but should be known, each a sentence.
    """

    def __init__(self) -> None:
        """Creates an empty collection."""
        self.errors: list[str] = []
        self.unused: list[str] = []
        self.notes: list[str] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds a `DataError` that is raised in the `with` block to the errors."""
        try:
            yield
        except DataError as error:
            self.errors.append(str(error))

    def check(self) -> None:
        """Raises `DataError` with all errors, if there are any."""
        if len(self.errors) == 1:
            raise DataError(self.errors[0])
        if self.errors:
            head = f"{len(self.errors)} faults in the data:"
            more = len(self.errors) - _LISTED
            rest = [f"and {more} more; mmcl_jax.prepare lists them"] if more > 0 else []
            raise DataError("\n  ".join([head, *self.errors[:_LISTED], *rest]))


@contextlib.contextmanager
def reading(
    path: str, expected: str, describe: Callable[[str], str | None] | None = None
) -> Iterator[None]:
    """Turns everything that can go wrong while a file is decoded into a `DataError`.

    Decoding libraries raise a dozen kinds of exceptions on hostile files (Pillow alone:
    OSError, SyntaxError, ValueError, struct.error; a panic in Rust is not even an
    `Exception`), so every one except a lack of memory counts as a damaged file.

    Args:
        path: File that is decoded inside the `with` block.
        expected: What the file should be, for the message.
        describe: `path -> phrase`, what the file is, for the message.

    Raises:
        DataError: The file cannot be decoded; the message names it, what is wrong and
            what was expected.
    """
    file = pathlib.Path(path)
    try:
        if not file.exists():
            what = "a broken link" if file.is_symlink() else "no such file"
            raise DataError(f"{path}: {what}; expected {expected}")
        if not file.is_file():
            raise DataError(f"{path}: not an ordinary file; expected {expected}")
        if not file.stat().st_size:
            raise DataError(f"{path}: the file is empty; expected {expected}")
        yield
    except (DataError, MemoryError):
        raise
    except BaseException as error:
        # Ctrl-C and exits pass through
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        cause = _OBJECT.sub("", f"{type(error).__name__}: {error}")
        found = None
        with contextlib.suppress(OSError):
            found = describe(path) if describe else None
        raise DataError(
            f"{path}: cannot be decoded ({cause}); "
            f"{f'found {found}; ' if found else ''}expected {expected}"
        ) from error


def check_bytes(path: str | pathlib.Path, limit: int) -> None:
    """Raises `DataError` if a file is larger than `limit` bytes."""
    if (size := os.stat(path).st_size) > limit:
        raise DataError(f"{path}: {size} bytes, more than the limit of {limit}")
