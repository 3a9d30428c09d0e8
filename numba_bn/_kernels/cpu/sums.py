"""Exact sums on the CPU: which loops, how many parts, how many words."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from numba_bn._kernels.cpu import exact, exact_words
from numba_bn._kernels.cpu.arrays import Array, optional
from numba_bn._kernels.cpu.caches import l2_bytes
from numba_bn._kernels.cpu.elements import kernel_array
from numba_bn._kernels.cpu.exact_blocks import DEEP_GRID, KEPT, SHORT_GRID
from numba_bn._kernels.cpu.moments import BLOCK, cut
from numba_bn._words import BITS, ExactSums, Words

_UNITS, _UNIT_BYTES = 32, 1 << 19  # enough for all threads, and enough to do for each
_LEAST_TILE, _TILE, _DEEP_TILE = 64, 256, 128  # columns; wider ones are read slower
_UNIT_ROWS = 1024  # worth beginning and ending a column for
_LONG_RUN = 32  # values from which a run is better summed by itself than as columns
_MOST = 1 << 26  # values of a lane that a part may have, so that words do not overflow
_SPARE_BYTES = 1 << 22
_spare: list[Array] = []
"""What a call left as it was, all 0: to clear as much takes as long as to sum some MB."""
_FLOATS = {
    "float16": (10, 15, 0x7C00, -13, 16),
    "bfloat16": (7, 127, 0x7F80, -125, 128),
    "float32": (23, 127, 0x7F800000, -125, 128),
    "float64": (52, 1023, 0x7FF << 52, -1003, 1024),  # with its grid at the least number
}


class _Form(NamedTuple):
    """How sums of a dtype are held."""

    floats: bool | None
    deep: bool | None
    grid: int
    numbers: tuple[int, ...]
    """What the kernels call form."""
    words: int
    """Of both sums."""


@cache
def _form_of(dtype: np.dtype[Any]) -> _Form:
    bits = dtype.itemsize * 8
    floats = dtype.kind not in "iu"
    *numbers, least, largest = _FLOATS[dtype.name] if floats else (0, 0, 0, bits, bits)
    deep = bits == 64
    grid = DEEP_GRID if deep else SHORT_GRID
    bases = [power * (least - grid) // BITS * BITS for power in (1, 2)]
    form = _Form(
        True if floats else None, True if deep else None, grid, (*numbers, least, *bases, 0), 0
    )
    first, second = (
        exact_words.span.py_func(power, base, grid, least, largest)[1]
        for power, base in zip((1, 2), bases, strict=True)
    )
    return form._replace(numbers=(*form.numbers[:-1], first), words=first + second)


def exact_sums(x5: Array, where5: Array | None = None) -> ExactSums:
    """x (five axes, batch of one) → exact Σx, Σx² (groups,)."""
    _, outer, groups, size, inner = x5.shape
    length, form = size * inner, _form_of(x5.dtype)
    given = kernel_array(x5), optional(where5), form.floats, form.deep, form.numbers
    columns = length < _LONG_RUN
    kernel = exact.column_words if columns else exact.run_words
    chunks, *shape = (_columns if columns else _runs)(x5.nbytes, outer, groups, length)
    # words apart: most are 0 for all channels, and their memory is never touched
    room = _zeros((form.words + KEPT) * chunks * groups)
    parts = room.reshape(form.words + KEPT, chunks, groups)
    kernel(x5.nbytes, *given, parts.reshape(-1, chunks * groups), chunks, *shape)
    # a row of each sum's own for what is carried out of its last word
    totals, ends = np.empty((form.words + 4, groups), np.int64), np.empty((2, 3), np.int64)
    exact_words.conclude_words(0, parts, form.numbers, form.grid, totals, ends)
    if room.nbytes <= _SPARE_BYTES:
        _spare[:] = [room]
    sums = [Words(place, totals[first:last].copy()) for first, last, place in ends.tolist()]
    count = totals[-2] if where5 is not None else np.full(groups, x5.size // groups)
    return ExactSums(count.copy(), totals[-1].copy(), *sums)


def _zeros(size: int) -> Array:
    """Return zeros: those of the last call, if they are as many and no other call has them."""
    try:
        room = _spare.pop()
    except IndexError:
        return np.zeros(size, np.int64)
    return room if room.size == size else np.zeros(size, np.int64)


def _wanted(nbytes: int) -> int:
    """Return how many units are enough for all threads, where that is worthwhile."""
    return min(max(nbytes // _UNIT_BYTES, 1), _UNITS)


def _parts(nbytes: int, units: int, steps: int, most: int) -> tuple[int, int]:
    """Return how many parts channels are cut into, if need be, and how many steps each has."""
    wanted = -(-_wanted(nbytes) // units)
    each = max(min(-(-steps // wanted), most), 1)
    return -(-steps // each), each


def _runs(nbytes: int, outer: int, groups: int, length: int) -> tuple[int, ...]:
    """Return parts, outer, groups, length, slab, blocks in a part, blocks."""
    row = nbytes // (outer * groups)
    together = max(min(l2_bytes() // 16 // row, -(-groups // _UNITS)), 1)
    blocks = int(cut.py_func(outer, length)[2])
    parts, each = _parts(nbytes, -(-groups // together), blocks, _MOST // BLOCK)
    return parts, outer, groups, length, together, each, blocks


def _columns(nbytes: int, outer: int, groups: int, length: int) -> tuple[int, ...]:
    """Return parts, wide rows, tail, stride, period, length, tile, rows in a part."""
    width = groups * length
    # narrow rows are taken several at a time, so that few lanes are idle
    fold = min(16 // gcd(width, 16), max(_TILE // width, 1), outer)
    rows, stride = outer // fold, width * fold
    # small arrays: narrow tiles of many rows; from memory, wide tiles are read faster
    tile = rows * stride // (_wanted(nbytes) * _UNIT_ROWS) // 16 * 16
    deep = nbytes >= 8 * outer * width
    tile = min(max(tile, _LEAST_TILE), _DEEP_TILE if deep else _TILE, stride)
    # a group is in one tile: threads that both add to its words would lose what the other adds
    tile = stride if fold > 1 else max(tile // length, 1) * length
    parts, each = _parts(nbytes, -(-stride // tile), rows, _MOST)
    return parts, rows, outer % fold * width, stride, width, length, tile, each
