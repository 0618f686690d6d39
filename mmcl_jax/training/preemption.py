"""A run that is asked to leave finishes its step, saves, and says "run me again"."""

import os
import signal
import sys
from types import FrameType
from typing import Any

# EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on
RUN_AGAIN = 75
_INTERRUPTED = 128 + signal.SIGINT


class Interrupt:
    """Remembers SIGTERM and SIGINT; a second SIGINT ends the process at once.

    Attributes:
        requested: whether one has come.
        nothing_to_save: whether the process may leave right away, with `RUN_AGAIN`.
    """

    def __init__(self) -> None:
        """Catches nothing until `catch` is called."""
        self.requested = False
        self.nothing_to_save = True

    def catch(self) -> None:
        """Takes over both signals of this process."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> Any:
        del frame
        again, self.requested = self.requested, True
        if self.nothing_to_save:
            sys.exit(RUN_AGAIN)
        if again and number == signal.SIGINT:
            os._exit(_INTERRUPTED)
