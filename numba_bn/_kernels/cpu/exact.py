"""Exact sums of channels: blocks of rows of sixteen lanes.

Runs (channels-first): a row is sixteen neighbours in a run, and all lanes are of one channel.
Columns (channels-last, small planes): the lanes are columns, whose rows are brought together first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.exact_blocks import LANES, block_rows
from numba_bn._kernels.cpu.exact_lanes import move_if
from numba_bn._kernels.cpu.exact_state import add_block, finish, new_state
from numba_bn._kernels.cpu.lanes import head
from numba_bn._kernels.cpu.loops import near
from numba_bn._kernels.cpu.memory import prefetch
from numba_bn._kernels.cpu.moments import bounds

_SHORT_RUNS = 4  # runs that fit a block, from which they are brought together


@block
def _pack(
    x: Any, into: Any, at: int, stride: int, rows: int, wide: int, each: int, row: int
) -> None:
    """Rows of ``wide`` values of x → into, ``each`` apart for each value, ``row`` for each row."""
    for r in range(rows):
        i = at + r * stride
        for k in range(0, wide, LANES):
            prefetch(x, i + 8 * stride + k)
            # what is written beyond a row's end, the next one writes over
            move_if(into, k * each + r * row, x, i + k, head(min(wide - k, LANES)))


@unit
def _runs_unit(
    u: int,
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    per_chunk: int,
    blocks: int,
) -> None:
    """Unit (chunk, slab of groups) → words (chunks · groups, …)."""
    slabs = (groups + slab - 1) // slab
    c, g = u // slabs, u % slabs * slab
    wide = min(slab, groups - g)
    state = new_state(floats, deep, form, wide * LANES, words)
    owners = state[4]
    for k in range(wide * LANES):
        owners[k] = c * groups + g + k // LANES
    most, stride = block_rows(deep) * LANES, groups * length
    together = most // length if length * _SHORT_RUNS <= most else 0
    packed, masks = np.empty(most + LANES, x.dtype), where
    if where is not None:
        masks = np.empty(most + LANES, where.dtype)
    for b in range(c * per_chunk, min((c + 1) * per_chunk, blocks)):
        o0, o1, e0, e1 = bounds(b, outer, length)
        for o in range(o0, o1, max(together, 1)):
            for j in range(wide):
                start = o * stride + (g + j) * length
                if together > 0:
                    rows = min(together, o1 - o)
                    n = rows * length
                    _pack(x, packed, start, stride, rows, length, 1, length)
                    if where is not None:
                        _pack(where, masks, start, stride, rows, length, 1, length)
                    shape = 0, n // LANES, n % LANES, 0
                    add_block(packed, masks, floats, deep, form, shape, j * LANES, state)
                for e in range(start + e0, start + e1 if together == 0 else 0, most):
                    n = min(most, start + e1 - e)
                    shape = e, n // LANES, n % LANES, near(x)
                    add_block(x, where, floats, deep, form, shape, j * LANES, state)
    finish(deep, form, state)


@Kernel
def run_words(
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    chunks: int,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    per_chunk: int,
    blocks: int,
) -> None:
    """x (outer, groups, length) → words (chunks · groups, …): Σx, Σx², counts."""
    units = (groups + slab - 1) // slab * chunks
    for u in prange(units):
        _runs_unit(
            u, x, where, floats, deep, form, words, outer, groups, length, slab, per_chunk, blocks
        )


@unit
def _columns_unit(
    u: int,
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
    per_chunk: int,
) -> None:
    """Unit (chunk, tile of columns) → words (chunks · groups, …)."""
    tiles = (stride + tile - 1) // tile
    c, first = u // tiles, u % tiles * tile
    wide = min(tile, stride - first)
    lanes = (wide + LANES - 1) // LANES * LANES
    state = new_state(floats, deep, form, lanes, words)
    owners = state[4]
    for k in range(wide):
        owners[k] = c * (period // length) + (first + k) % period // length
    last, most = min((c + 1) * per_chunk, rows), block_rows(deep)
    packed, masks = np.empty(most * lanes, x.dtype), where
    if where is not None:
        masks = np.empty(most * lanes, where.dtype)
    r, end = c * per_chunk, last + (1 if last == rows and tail > first else 0)
    while r < end:
        n = min(most, last - r) if r < last else 1
        width = wide if r < last else min(wide, tail - first)
        at = r * stride + first
        _pack(x, packed, at, stride, n, width, n, LANES)
        if where is not None:
            _pack(where, masks, at, stride, n, width, n, LANES)
        for k in range(0, width, LANES):
            add_block(packed, masks, floats, deep, form, (k * n, n, 0, 0), k, state)
        r += n
    finish(deep, form, state)


@Kernel
def column_words(
    x: Any,
    where: Any,
    floats: Any,
    deep: Any,
    form: Any,
    words: Any,
    chunks: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
    per_chunk: int,
) -> None:
    """x (rows, stride) → words (chunks · groups, …): Σx, Σx², counts."""
    units = (stride + tile - 1) // tile * chunks
    for u in prange(units):
        _columns_unit(
            u,
            x,
            where,
            floats,
            deep,
            form,
            words,
            rows,
            tail,
            stride,
            period,
            length,
            tile,
            per_chunk,
        )
