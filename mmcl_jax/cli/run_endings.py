"""How a program that trains ends: its exit codes, and what it says of an error."""

import contextlib
import errno
import sys
from collections.abc import Iterator

from mmcl_jax.cli import command_line
from mmcl_jax.errors import (
    RUN_AGAIN,
    BatchDependenceError,
    CodeError,
    ConfigError,
    DataError,
    DivergedError,
    Preempted,
    SaveError,
    WorkdirError,
)

# A full disk, a quota, a limit of the file size.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns an error into a message and an exit code.

    The code is 2 for bad input; 1 for a method that breaks the rules or diverges, and
    for a full disk; `RUN_AGAIN` for a run that was preempted and should be started
    again.
    """
    try:
        yield
    except (CodeError, ConfigError, WorkdirError, DataError) as error:
        sys.exit(command_line.complain(error))
    except (BatchDependenceError, DivergedError) as error:
        sys.exit(f"error: {error}")
    except Preempted:
        print("preempted: saved; the same command resumes", file=sys.stderr)
        sys.exit(RUN_AGAIN)
    except (SaveError, OSError) as error:
        if not isinstance(error, SaveError) and error.errno not in NO_ROOM:
            sys.exit(f"error: {error}")
        sys.exit(
            f"error: {error}. What was saved before is intact; once this is repaired, "
            "the same command resumes"
        )
