"""The pages that part of a memory map lies on: which they are, and having them mapped."""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
from collections.abc import Iterator
from functools import cache
from math import prod

import numpy as np

from numba_bn._arrays import Array

UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EINTR, errno.EAGAIN)
"""What leaves open whether pages are there: another system, an older one, a signal."""

AROUND = 1 << 16
"""Bytes: where a page is read, Linux maps those around it too, if it has them."""

_POPULATE_READ, _POPULATE_WRITE = 22, 23  # Linux's, since 5.14


def spread(part: Array) -> int:
    """Return about how many bytes of pages are mapped where a part is read."""
    length, outer = _runs(part)
    return prod(n for _, n in outer) * (length + AROUND) if outer else length


def is_scattered(part: Array) -> bool:
    """Tell whether far more is mapped where a part is read than it has."""
    return spread(part) > 2 * part.nbytes


def ranges(part: Array) -> Iterator[tuple[int, int]]:
    """Yield from which address to which the values lie, from the beginning of a page on."""
    length, outer = _runs(part)
    starts = np.array([np.lib.array_utils.byte_bounds(part)[0]])
    for stride, n in outer:
        starts = np.add.outer(np.arange(n) * stride, starts).ravel()
    ends = starts + length
    return zip((starts - starts % mmap.PAGESIZE).tolist(), ends.tolist(), strict=True)


def _runs(part: Array) -> tuple[int, list[tuple[int, int]]]:
    """Return how long runs of values are, in bytes, and the strides and numbers of what repeats.

    A gap of less than a page is part of a run, as there is no page in it that has no values.
    """
    length, outer = part.itemsize, list[tuple[int, int]]()
    for stride, n in sorted((abs(s), n) for s, n in zip(part.strides, part.shape, strict=True)):
        if n > 1 and not outer and stride < length + mmap.PAGESIZE:
            length += stride * (n - 1)
        elif n > 1:
            outer.append((stride, n))
    return length, outer


def populate(address: int, nbytes: int, writing: bool) -> int:
    """Let Linux map pages; return the number of the error, or 0.

    By way of ctypes, as `mmap.madvise` lets no other thread of Python run while it reads a disk.
    """
    if sys.platform != "linux":
        return errno.ENOSYS
    advice = _POPULATE_WRITE if writing else _POPULATE_READ
    failed = _libc().madvise(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), advice)
    return ctypes.get_errno() if failed else 0


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
