"""Who may write into a workdir."""

import os
import pathlib
import socket

import filelock

from mmcl_jax.errors import WorkdirError
from mmcl_jax.workdir.layout import LOCK


class Lock:
    """Lets one run at a time write into a workdir; the lock ends with its process."""

    def __init__(self, workdir: pathlib.Path, flag: str = "--workdir") -> None:
        """Takes the lock.

        Args:
            workdir: Folder that is written into.
            flag: Flag that names it, for messages.

        Raises:
            WorkdirError: Another process has it, or the file system has no locks.
        """
        path = workdir / LOCK
        # a folder without write access fails here, not as one without locks below
        path.touch()
        # filelock's fallback, a marker file, would outlive a killed process
        self._lock = filelock.FileLock(
            path, blocking=False, thread_local=False, fallback_to_soft=False
        )
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            owner = path.read_text().strip() or "another process"
            raise WorkdirError(
                f"{flag}: {workdir} is in use by {owner}; stop it or choose another "
                "folder"
            ) from error
        except OSError as error:
            raise WorkdirError(
                f"{flag}: {workdir} is on a file system without locks ({error}), so "
                "that two runs could write there at once; choose another folder"
            ) from error
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")

    def release(self) -> None:
        """Releases the lock."""
        self._lock.release()
