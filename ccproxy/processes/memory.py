"""The C library's memory: one arena for all threads, and what many clients took given back when they left.

A connection's thread ends with it, and what was read of a long prompt is remembered: with an arena for each thread
there are holes between such texts everywhere, which threads of other arenas cannot fill. With prompts of 300 kB from
eight clients at once a process had 147 MiB after a minute, and more each minute; 90 in one arena, and no more. It costs
a start 3 ms and a request nothing: most memory is asked for by one thread at a time, under the interpreter's lock.

A thousand streams take some 60 MB in small pieces, and when these are free, the allocators keep nearly all of it. The
interpreter takes memory by the MiB, and has lists of freed tuples, dicts and the like to use again, a few in each MiB;
a full collection empties them. What lives on there stays where it is and holds a MiB. So what requests leave behind is
let go (``App.forget``), or is no object (``metrics.py``), and six or seven MiB are left, at ten small things of the
interpreter. Before Python 3.11 each function keeps a frame and what makes its code faster, 20 MiB of holes more.
The C library keeps what is free between its pieces in use until it is told to trim them.
"""

from __future__ import annotations

import gc
import sys
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

_M_ARENA_MAX = -8
"""Of mallopt(3)."""


@lru_cache(maxsize=1)
def _libc() -> Any:
    """Return the C library, or None where it is none with glibc's calls, or cannot be called."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except (ImportError, OSError, MemoryError):  # a bare interpreter; a hardened system
        return None


def share_arena() -> None:
    """Let threads that begin from now on share glibc's arenas that are there."""
    if _libc() is not None:
        _libc().mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give back what is free. It takes some milliseconds."""
    gc.collect()
    if sys.version_info < (3, 11):
        _renew_functions()
    if _libc() is not None:
        _libc().malloc_trim(0)


def _renew_functions() -> None:
    """Give each function a copy of its code: what the interpreter keeps with the old one goes with it."""
    gc.unfreeze()  # what is frozen is not told
    functions = [one for one in gc.get_objects() if type(one) is FunctionType]
    gc.freeze()
    for function in functions:
        function.__code__ = _copy(function.__code__)


def _copy(code: CodeType) -> CodeType:
    """Return a copy, with copies of the functions in it; a tuple made anew is a hole, so only where it must be."""
    if any(isinstance(one, CodeType) for one in code.co_consts):
        return code.replace(co_consts=tuple(_copy(one) if isinstance(one, CodeType) else one for one in code.co_consts))
    return code.replace()
