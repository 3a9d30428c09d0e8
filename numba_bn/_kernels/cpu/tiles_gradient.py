"""The innermost loops over columns that write gradients: as those of ``tiles``."""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block
from numba_bn._kernels.cpu.asking import Way, ask
from numba_bn._kernels.cpu.columns_layout import Tile, size_of
from numba_bn._kernels.cpu.gradient_loops import gradient, gradient_if, put_gradient
from numba_bn._kernels.cpu.lanes import both, either, head
from numba_bn._kernels.cpu.loops import whole
from numba_bn._kernels.cpu.memory import load_own, store, store_if
from numba_bn._kernels.cpu.precision import misfits
from numba_bn._kernels.cpu.tiles import lead_of, repeating, segment

_HELD = 96  # columns whose four factors registers hold


@block
def tile_input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    tile: Tile,
    way: Way,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
    stream: bool,
) -> None:
    """A tile of dy, x → dx = dy·a + (x-m)·b + c; a·dy alone where excluded; vectors (width,)."""
    if not stream:
        held = repeating(tile.period, _HELD)
        if 0 < held <= tile.width == tile.stride:
            _held_gradient(dy, x, where, dx, tile.at, size_of(tile), held, m, a, b, c)
        else:
            _cached_gradient(dy, x, where, dx, tile, m, a, b, c)
        return
    lead = lead_of(dx, tile, True)
    joined = lead > 0 and tile.width == tile.stride
    for k in range(4):
        start, count, first, end = segment(k, tile, lead, joined)
        for r in range(count):
            i = start + r * tile.stride
            _row_gradient(dy, x, where, dx, i, first, end, lead, way, m, a, b, c)


@block
def _held_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    count: int,
    width: int,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
) -> None:
    """``count`` values side by side, by factors that repeat after 64, 80 or 96 of them."""
    m0, m1, m2, m3 = load_own(m, 0), load_own(m, 16), load_own(m, 32), load_own(m, 48)
    a0, a1, a2, a3 = load_own(a, 0), load_own(a, 16), load_own(a, 32), load_own(a, 48)
    b0, b1, b2, b3 = load_own(b, 0), load_own(b, 16), load_own(b, 32), load_own(b, 48)
    c0, c1, c2, c3 = load_own(c, 0), load_own(c, 16), load_own(c, 32), load_own(c, 48)
    k4, k5 = 64 % width, 80 % width
    m4, a4, b4, c4 = load_own(m, k4), load_own(a, k4), load_own(b, k4), load_own(c, k4)
    m5, a5, b5, c5 = load_own(m, k5), load_own(a, k5), load_own(b, k5), load_own(c, k5)
    end = at + count // width * width
    for i in range(at, end, width):
        put_gradient(dy, x, where, dx, i, m0, a0, b0, c0)
        put_gradient(dy, x, where, dx, i + 16, m1, a1, b1, c1)
        put_gradient(dy, x, where, dx, i + 32, m2, a2, b2, c2)
        put_gradient(dy, x, where, dx, i + 48, m3, a3, b3, c3)
        if width > 64:
            put_gradient(dy, x, where, dx, i + 64, m4, a4, b4, c4)
        if width > 80:
            put_gradient(dy, x, where, dx, i + 80, m5, a5, b5, c5)
    for j in range(0, at + count - end, 16):
        _part_gradient(dy, x, where, dx, end + j, j, head(at + count - end - j), m, a, b, c)


@block
def _cached_gradient(
    dy: Any, x: Any, where: Any, dx: Any, tile: Tile, m: Any, a: Any, b: Any, c: Any
) -> None:
    """The same, as `tiles` does it in caches."""
    at, stride, rows, tail, width = tile.at, tile.stride, tile.rows, tile.tail, tile.width
    for r in range(rows + (1 if tail > 0 else 0)):
        start, end = at + r * stride, width if r < rows else tail
        for k in range(0, end - 15, 16):
            mk, ak, bk, ck = load_own(m, k), load_own(a, k), load_own(b, k), load_own(c, k)
            put_gradient(dy, x, where, dx, start + k, mk, ak, bk, ck)
        j = whole(0, end)
        if j < end:
            _part_gradient(dy, x, where, dx, start + j, j, head(end - j), m, a, b, c)


@block
def tile_gradient_wide(dy: Any, x: Any, where: Any, dx: Any, tile: Tile, v: Any, w: Any) -> None:
    """The same by vectors v, but in float64, by w, where they do not hold a factor; as `tiles`."""
    for r in range(tile.rows + (1 if tile.tail > 0 else 0)):
        end = tile.width if r < tile.rows else tile.tail
        for j in range(0, end, 16):
            i, part = tile.at + r * tile.stride + j, head(end - j)
            m, a, b, c = load_own(w[0], j), load_own(w[1], j), load_own(w[2], j), load_own(w[3], j)
            terms, scales = either(misfits(m, False), misfits(c, False)), misfits(a, True)
            wide = both(part, either(terms, either(scales, misfits(b, True))))
            dx64 = gradient_if(dy, x, where, i, part, m, a, b, c)
            _part_gradient(dy, x, where, dx, i, j, part, v[0], v[1], v[2], v[3])
            store_if(dx, i, dx64, wide)


@block
def _row_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    j: int,
    end: int,
    lead: int,
    way: Way,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
) -> None:
    """Columns [j, end) of the rows at dy[at], x[at] → dx, past the caches."""
    if j == 0 and lead > 0:
        j = min(lead, end)
        _part_gradient(dy, x, where, dx, at, 0, head(j), m, a, b, c)
    for k in range(j, end - 15, 16):
        i, mk, ak, bk, ck = at + k, load_own(m, k), load_own(a, k), load_own(b, k), load_own(c, k)
        ask(x, i, way)
        ask(dy, i, way)
        store(dx, i, gradient(dy, x, where, i, mk, ak, bk, ck), True)
    j = whole(j, end)
    if j < end:
        _part_gradient(dy, x, where, dx, at + j, j, head(end - j), m, a, b, c)


@block
def _part_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    i: int,
    j: int,
    part: Any,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
) -> None:
    mj, aj, bj, cj = load_own(m, j), load_own(a, j), load_own(b, j), load_own(c, j)
    store_if(dx, i, gradient_if(dy, x, where, i, part, mj, aj, bj, cj), part)
