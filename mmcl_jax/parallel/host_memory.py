"""Freed memory that the C library keeps instead of returning it to the system.

Decoding and compiling before the first task take many times the memory of a task. The
GNU library keeps it, fragmented, for each of dozens of threads, so that a long run
would grow with every task. Other libraries are left alone.
"""

import ctypes
import sys
from typing import Any

_M_ARENA_MAX = -8
# each arena keeps the memory that its threads have freed
_ARENAS = 2


def bound() -> None:
    """Lets all threads of the process share a few arenas; call it before they start."""
    _call("mallopt", _M_ARENA_MAX, _ARENAS)


def trim() -> None:
    """Gives freed memory back to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *args: Any) -> None:
    if sys.platform != "linux":
        return
    function = getattr(ctypes.CDLL(None), name, None)
    if function:
        function(*args)
