"""Memory of the process that nothing uses any more."""

import ctypes
import sys


def trim() -> None:
    """Gives freed memory back to the system, where the C library is one that keeps it.

    What is decoded and compiled before the first task takes many times what a task
    does. The GNU library keeps it for later, in pieces, and a long run then takes more
    with each task although nothing is held.
    """
    if sys.platform != "linux":
        return
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release:
        release(0)
