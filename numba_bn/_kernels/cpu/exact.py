"""Exact sums of channels, sixteen lanes at a time.

Runs (channels-first): the lanes are neighbours in a run, all of one channel.
Columns (channels-last, small planes): the lanes are columns.
"""

from __future__ import annotations

from typing import Any

from numba import prange

from numba_bn._kernels._compile import unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import near
from numba_bn._kernels.cpu.exact_blocks import LANES, block_rows
from numba_bn._kernels.cpu.exact_state import add_block, finish, new_state
from numba_bn._kernels.cpu.moments import bounds

# of a block: more of them, far apart, would drive each other out of the caches
_FAR_RUNS, _FAR_ROWS = 16, 32


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
    """Unit (chunk, slab of groups) → words (…, chunks · groups)."""
    slabs = (groups + slab - 1) // slab
    c, g = u // slabs, u % slabs * slab
    wide = min(slab, groups - g)
    state = new_state(floats, deep, form, wide * LANES, words)
    owners = state[4]
    for j in range(wide):
        owners[j * LANES] = c * groups + g + j
    most, stride = block_rows(deep), groups * length
    for b in range(c * per_chunk, min((c + 1) * per_chunk, blocks)):
        o0, o1, e0, e1 = bounds(b, outer, length)
        rows = (e1 - e0 + LANES - 1) // LANES
        together = max(min(most // max(rows, 1), _FAR_RUNS), 1)
        ahead = together * stride if o1 - o0 > 1 else near(x)
        for o in range(o0, o1, together):
            for j in range(wide):
                for e in range(e0, e1, most * LANES):
                    n = min(most * LANES, e1 - e)
                    at = o * stride + (g + j) * length + e
                    shape = at, min(together, o1 - o), stride, n // LANES, n % LANES, ahead
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
    """x (outer, groups, length) → words (…, chunks · groups): Σx, Σx², counts."""
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
    """Unit (chunk, tile of columns) → words (…, chunks · groups)."""
    tiles = (stride + tile - 1) // tile
    c, first = u // tiles, u % tiles * tile
    wide = min(tile, stride - first)
    lanes = (wide + LANES - 1) // LANES * LANES
    state = new_state(floats, deep, form, lanes, words)
    owners = state[4]
    for k in range(wide):
        owners[k] = c * (period // length) + (first + k) % period // length
    last, most = min((c + 1) * per_chunk, rows), min(block_rows(deep), _FAR_ROWS)
    r, end = c * per_chunk, last + (1 if last == rows and tail > first else 0)
    while r < end:
        n = min(most, last - r) if r < last else 1
        width = wide if r < last else min(wide, tail - first)
        at = r * stride + first
        for k in range(0, width, LANES):
            part = min(width - k, LANES)
            shape = at + k, n, stride, part // LANES, part % LANES, n * stride
            add_block(x, where, floats, deep, form, shape, k, state)
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
    """x (rows, stride) → words (…, chunks · groups): Σx, Σx², counts."""
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
