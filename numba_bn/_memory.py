"""Memory of new arrays: where they begin, and what becomes of large ones when they are gone.

The operating system clears the pages of new memory as they are first written, which for a large
result takes longer than its norm (11 ms and 4 of 100 MB). So the memory of large arrays stays with
the process when they are gone, marked as free to be taken back: until that happens, another such
array is written into it at full speed.
"""

from __future__ import annotations

import _thread
import mmap
import os
from contextlib import suppress
from ctypes import addressof, c_char
from math import prod
from typing import Any
from weakref import finalize

import numpy as np

LARGE = 1 << 20
"""Bytes from which a new array begins where a page does, to be written fast."""
KEPT_FROM = 1 << 25
"""Bytes from which memory is kept: the C library returns larger blocks when they are freed."""

_PAGE = 4096
"""NumPy's large arrays begin 16 bytes into a page; to write shortly after that place in another one
keeps Intel's cores waiting: from where a page begins norms take 0.62 to 1.05 of the time."""
_ON_LINUX = hasattr(mmap, "MADV_FREE") and hasattr(mmap, "MADV_HUGEPAGE")
_HUGE = 1 << 21  # bytes of a huge page
_SHARE = 32  # this part of the machine's memory is kept at most
# the oldest first; changed by single operations, which threads do not split
_kept: list[mmap.mmap] = []


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a new array of any values."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes < LARGE:
        return np.empty(shape, dtype)
    room: Any  # an array is a buffer, which type checkers are told from Python 3.12 on
    if nbytes >= KEPT_FROM and _ON_LINUX and (block := _block(nbytes)):
        room = np.frombuffer(block, np.uint8)
        # views of an array have it as their base: it goes with the last of them
        finalize(room, _keep, block).atexit = False
        start = 0
    else:
        room = np.empty(nbytes + _PAGE, np.uint8)
        # NumPy takes twice as long to say where it is, up to 40 µs if it is no longer cached
        start = -addressof(c_char.from_buffer(room)) % _PAGE
    return np.ndarray(shape, dtype, room, start)


def _block(nbytes: int) -> mmap.mmap | None:
    """Return memory of at least that size, less than twice: kept or new, None if there is none."""
    for block in reversed(_kept):
        if nbytes <= len(block) < 2 * nbytes:
            with suppress(ValueError):  # another thread has it
                _kept.remove(block)
                return block
    try:
        block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        _kept.clear()
        return None
    with suppress(OSError):  # a system without huge pages
        block.madvise(mmap.MADV_HUGEPAGE, 0, nbytes // _HUGE * _HUGE)
    return block


def _keep(block: mmap.mmap) -> None:
    """Keep memory whose array is gone, and give back what was kept longest if it is too much."""
    try:
        with suppress(OSError):
            block.madvise(mmap.MADV_FREE)
            _kept.append(block)
        most = _most()
        while sum(map(len, _kept)) > most:
            del _kept[:1]
    except KeyboardInterrupt:
        # whatever is raised here is lost: it comes once more, by when this is over
        _thread.start_new_thread(_thread.interrupt_main, ())


def _most() -> int:
    """Return how many bytes may be kept: a share of the machine's, or of what the process may."""
    import resource  # there is none on Windows

    allowed = [resource.getrlimit(k)[0] for k in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    machine = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    return min([machine, *(n for n in allowed if n != resource.RLIM_INFINITY)]) // _SHARE
