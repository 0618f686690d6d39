"""Who may write into a workdir."""

import fcntl
import os
import pathlib
import socket

from mmcl_jax.errors import WorkdirError
from mmcl_jax.workdir.layout import LOCK


class Lock:
    """Lets one run at a time write into a workdir; it dies with its process."""

    def __init__(self, workdir: pathlib.Path) -> None:
        """Takes the lock.

        Raises:
            WorkdirError: another process has it.
        """
        path = workdir / LOCK
        self._file = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise WorkdirError(
                f"--workdir: {workdir} is in use by {owner}; stop it or choose another "
                "folder"
            ) from error
        except OSError as error:
            self._file.close()
            raise WorkdirError(
                f"--workdir: {workdir} is on a file system without locks ({error}), so "
                "that two runs could write there at once; choose another folder"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        """Gives the lock back."""
        self._file.close()
