"""The innermost loops over columns that normalize: a row at a time, sixteen columns by sixteen.

A tile is ``width`` neighbouring columns; what belongs to a column lies in vectors with room for
sixteen columns more. Under the last row of a tile there may be one more, of ``tail`` columns.
Where channels soon repeat, whole rows in caches are values side by side, and their factors are held
in registers: to load those anew for every row takes 1.0 to 1.5 × as long.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inlined
from numba_bn._kernels.cpu.asking import Way, ask, by_pages, prefetch, straight
from numba_bn._kernels.cpu.columns_layout import Tile, size_of
from numba_bn._kernels.cpu.lanes import both, either, head
from numba_bn._kernels.cpu.loops import applied, applied_if, put, whole
from numba_bn._kernels.cpu.memory import before_aligned, load_own, store, store_if
from numba_bn._kernels.cpu.precision import misfits

_HELD = 128  # columns whose three factors AVX-512 holds in float32; in float64 it costs nothing


@inlined
def segment(k: int, tile: Tile, lead: int, joined: bool) -> Any:
    """k-th of four parts of a tile → its start, rows, and columns from and to.

    ``joined`` rows, side by side in memory, are walked from the first aligned column on and into
    the next row, so that no sixteen are written in two halves: that costs a fifth of the speed.
    """
    at, stride, rows, tail, width = tile.at, tile.stride, tile.rows, tile.tail, tile.width
    if k == 0:
        return at, (1 if joined else 0), 0, lead
    if k == 1:
        return (at, rows - 1, lead, width + lead) if joined else (at, rows, 0, width)
    if k == 2:
        return at + (rows - 1) * stride, (1 if joined else 0), lead, width
    return at + rows * stride, (1 if tail > 0 else 0), 0, tail


@inlined
def way_of_tile(x: Any, far: bool, tile: Tile, from_end: bool) -> Any:
    """Return how to ask for x's memory when a tile of whole rows, or not, is walked row by row.

    After it comes what lies after it or, ``from_end``, before. Of a part of a row the next row is
    asked for: sixteen rows ahead takes 1.03 to 1.1 × as long.
    """
    if tile.width == tile.stride:
        size = size_of(tile)
        return by_pages(x, far, tile.at, size, -2 * size if from_end else 0)
    return straight(tile.stride)


@inlined
def lead_of(y: Any, tile: Tile, stream: bool) -> int:
    """Return how many columns of a tile come before those that begin a line of y, if that counts.

    Vectors of columns begin lines there too: of which each load takes two, as NumPy's arrays do not
    begin them, y takes 1.45 to 1.9 × as long.
    """
    return before_aligned(y, tile.at) if stream else 0


@inlined
def repeating(period: int, most: int) -> int:
    """Columns after which channels repeat → such columns in whole sixteens, at most so many, or 0.

    They are more than ``most`` / 2.
    """
    columns = period
    while columns % 16 != 0 and columns < most:
        columns += period
    return most // columns * columns if columns % 16 == 0 else 0


@block
def tile_apply(
    x: Any,
    y: Any,
    residual: Any,
    tile: Tile,
    way: Way,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
    stream: bool,
) -> None:
    """A tile of x → y = (x - m)·a + b [+ residual], [ReLU]; m, a, b (width,).

    In a tile that is whole rows, they repeat after ``tile.period`` columns.
    """
    if not stream:
        held = repeating(tile.period, _HELD)
        if 0 < held <= tile.width == tile.stride:
            _held_apply(x, y, residual, tile.at, size_of(tile), held, m, a, b, relu_too)
        else:
            _cached_apply(x, y, residual, tile, m, a, b, relu_too)
        return
    lead = lead_of(y, tile, True)
    joined = lead > 0 and tile.width == tile.stride
    for k in range(4):
        start, count, first, end = segment(k, tile, lead, joined)
        for r in range(count):
            i = start + r * tile.stride
            _row_apply(x, y, residual, i, first, end, lead, way, m, a, b, relu_too)


@block
def _held_apply(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    count: int,
    width: int,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
) -> None:
    """``count`` values side by side, by factors that repeat after 80, 96, 112 or 128 of them."""
    m0, m1, m2, m3 = load_own(m, 0), load_own(m, 16), load_own(m, 32), load_own(m, 48)
    a0, a1, a2, a3 = load_own(a, 0), load_own(a, 16), load_own(a, 32), load_own(a, 48)
    b0, b1, b2, b3 = load_own(b, 0), load_own(b, 16), load_own(b, 32), load_own(b, 48)
    k5, k6, k7 = 80 % width, 96 % width, 112 % width
    m4, m5, m6, m7 = load_own(m, 64), load_own(m, k5), load_own(m, k6), load_own(m, k7)
    a4, a5, a6, a7 = load_own(a, 64), load_own(a, k5), load_own(a, k6), load_own(a, k7)
    b4, b5, b6, b7 = load_own(b, 64), load_own(b, k5), load_own(b, k6), load_own(b, k7)
    end = at + count // width * width
    for i in range(at, end, width):
        put(x, y, residual, i, m0, a0, b0, relu_too)
        put(x, y, residual, i + 16, m1, a1, b1, relu_too)
        put(x, y, residual, i + 32, m2, a2, b2, relu_too)
        put(x, y, residual, i + 48, m3, a3, b3, relu_too)
        put(x, y, residual, i + 64, m4, a4, b4, relu_too)
        if width > 80:
            put(x, y, residual, i + 80, m5, a5, b5, relu_too)
        if width > 96:
            put(x, y, residual, i + 96, m6, a6, b6, relu_too)
        if width > 112:
            put(x, y, residual, i + 112, m7, a7, b7, relu_too)
    for j in range(0, at + count - end, 16):
        _part_apply(x, y, residual, end + j, j, head(at + count - end - j), m, a, b, relu_too)


@block
def _cached_apply(
    x: Any, y: Any, residual: Any, tile: Tile, m: Any, a: Any, b: Any, relu_too: bool
) -> None:
    """The same from caches, where whole lines and asking for x cost more than they give.

    Only where a tile is part of a row is the next row asked for: it takes 0.9 to 1.0 of the time.
    """
    at, stride, rows, tail, width = tile.at, tile.stride, tile.rows, tile.tail, tile.width
    for r in range(rows + (1 if tail > 0 else 0)):
        start, end = at + r * stride, width if r < rows else tail
        for k in range(0, end - 15, 16):
            mk, ak, bk = load_own(m, k), load_own(a, k), load_own(b, k)
            if width < stride:
                prefetch(x, start + k + stride)
            put(x, y, residual, start + k, mk, ak, bk, relu_too)
        j = whole(0, end)
        if j < end:
            _part_apply(x, y, residual, start + j, j, head(end - j), m, a, b, relu_too)


@block
def tile_apply_wide(
    x: Any, y: Any, residual: Any, tile: Tile, v: Any, w: Any, relu_too: bool
) -> None:
    """The same by vectors v, but in float64, by w, where they do not hold a factor.

    So rarely is it needed for short x that it is short, not fast.
    """
    for r in range(tile.rows + (1 if tile.tail > 0 else 0)):
        end = tile.width if r < tile.rows else tile.tail
        for j in range(0, end, 16):
            i, part = tile.at + r * tile.stride + j, head(end - j)
            m, a, b = load_own(w[0], j), load_own(w[1], j), load_own(w[2], j)
            wide = both(
                part, either(either(misfits(m, False), misfits(a, True)), misfits(b, False))
            )
            y64 = applied_if(x, residual, i, part, m, a, b, relu_too)
            _part_apply(x, y, residual, i, j, part, v[0], v[1], v[2], relu_too)
            store_if(y, i, y64, wide)


@block
def _row_apply(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    j: int,
    end: int,
    lead: int,
    way: Way,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
) -> None:
    """Columns [j, end) of the row at x[at] → y, past the caches."""
    if j == 0 and lead > 0:
        j = min(lead, end)
        _part_apply(x, y, residual, at, 0, head(j), m, a, b, relu_too)
    for k in range(j, end - 15, 16):
        i, mk, ak, bk = at + k, load_own(m, k), load_own(a, k), load_own(b, k)
        ask(x, i, way)
        store(y, i, applied(x, residual, i, mk, ak, bk, relu_too), True)
    j = whole(j, end)
    if j < end:
        _part_apply(x, y, residual, at + j, j, head(end - j), m, a, b, relu_too)


@block
def _part_apply(
    x: Any,
    y: Any,
    residual: Any,
    i: int,
    j: int,
    part: Any,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
) -> None:
    mj, aj, bj = load_own(m, j), load_own(a, j), load_own(b, j)
    store_if(y, i, applied_if(x, residual, i, part, mj, aj, bj, relu_too), part)
