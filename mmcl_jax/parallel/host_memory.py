"""Memory that the C library keeps for later although nothing is held.

What is decoded and compiled before the first task takes many times what a task does.
The GNU library keeps it, in pieces, for each of dozens of threads, and a long run then
takes more with every task. Other libraries are left alone.
"""

import ctypes
import sys
from typing import Any

_M_ARENA_MAX = -8
# each keeps what its threads have freed
_ARENAS = 2


def bound() -> None:
    """Lets all threads of the process share a few arenas; to be called before them."""
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
