"""A run that is asked to leave finishes its move, saves, and says "run me again"."""

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Any

from mmcl_jax.errors import RUN_AGAIN

_INTERRUPTED = 128 + signal.SIGINT
# variable with the process of a sweep, without which its runs should not go on
PARENT = "MMCL_JAX_PARENT"
_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG of prctl


class Interrupt:
    """Remembers SIGTERM and SIGINT; a second SIGINT ends the process at once.

    The handler only sets a flag: a state can be saved between two moves, but not in the
    middle of one.

    Attributes:
        requested: Whether a signal has come.
        nothing_to_save: Whether the process may leave at once, with `RUN_AGAIN`.
    """

    def __init__(self) -> None:
        """Handles no signal until `catch` is called."""
        self.requested = False
        self.nothing_to_save = True

    def catch(self) -> None:
        """Handles both signals of this process from now on."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def follow_parent(self) -> None:
        """Leaves, as on SIGTERM, when the process that `PARENT` names is killed.

        Otherwise the runs of a sweep that was killed would go on unseen, and a second
        start of the sweep would find their workdirs in use. Linux alone can do it.
        """
        parent = os.environ.get(PARENT, "")
        if not parent.isdecimal() or not sys.platform.startswith("linux"):
            return
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGTERM)
        if os.getppid() != int(parent):  # it was killed before
            self._handle(signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        del frame
        again, self.requested = self.requested, True
        if self.nothing_to_save:
            sys.exit(RUN_AGAIN)
        if again and number == signal.SIGINT:
            # without the clean-up, which would wait for states that are being written
            os._exit(_INTERRUPTED)
