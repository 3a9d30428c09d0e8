"""The innermost loops over columns that write gradients: as those of ``tiles``."""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block
from numba_bn._kernels.cpu.lanes import add, fill_as, fma, head, mul, select, sub
from numba_bn._kernels.cpu.loops import whole
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    claim,
    flags,
    flags_if,
    load_as,
    load_as_if,
    load_own,
    near,
    prefetch,
    store,
    store_if,
)
from numba_bn._kernels.cpu.tiles import segment


@block
def tile_input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    ahead: int,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
    stream: bool,
) -> None:
    """Rows of dy, x → dx = dy·a + (x-m)·b + c; a·dy alone where excluded; vectors (width,)."""
    if not stream:
        _cached_gradient(dy, x, where, dx, at, stride, rows, tail, width, m, a, b, c)
        return
    lead = before_aligned(dx, at)
    joined = lead > 0 and width == stride
    for k in range(4):
        start, count, first, end = segment(k, at, stride, rows, tail, width, lead, joined)
        for r in range(count):
            i, far = start + r * stride, min(ahead, (count - 1 - r) * stride + near(x))
            _row_gradient(dy, x, where, dx, i, first, end, lead, far, m, a, b, c)


@block
def _cached_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
) -> None:
    """The same, as `tiles` does it in caches."""
    for r in range(rows + (1 if tail > 0 else 0)):
        start, end = at + r * stride, width if r < rows else tail
        for k in range(0, end - 15, 16):
            i, mk = start + k, load_own(m, k)
            share = fma(sub(load_as(x, i, mk), mk), load_own(b, k), load_own(c, k))
            if where is not None:
                share = select(flags(where, i), share, fill_as(mk, 0.0))
            claim(dx, i + near(dx) // 4)
            store(dx, i, add(mul(load_as(dy, i, mk), load_own(a, k)), share), False)
        j = whole(0, end)
        if j < end:
            _part_gradient(dy, x, where, dx, start + j, j, head(end - j), m, a, b, c)


@block
def tile_gradient_wide(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    m: Any,
    a: Any,
    b: Any,
    c: Any,
) -> None:
    """The same with float64 vectors; so rarely needed for short x that it is short, not fast."""
    for r in range(rows + (1 if tail > 0 else 0)):
        end = width if r < rows else tail
        for j in range(0, end, 16):
            i, part = at + r * stride + j, head(end - j)
            _part_gradient(dy, x, where, dx, i, j, part, m, a, b, c)


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
    ahead: int,
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
        i, mk = at + k, load_own(m, k)
        prefetch(x, i + ahead)
        prefetch(dy, i + ahead)
        share = fma(sub(load_as(x, i, mk), mk), load_own(b, k), load_own(c, k))
        if where is not None:
            share = select(flags(where, i), share, fill_as(mk, 0.0))
        store(dx, i, add(mul(load_as(dy, i, mk), load_own(a, k)), share), True)
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
    mj = load_own(m, j)
    share = fma(sub(load_as_if(x, i, part, mj), mj), load_own(b, j), load_own(c, j))
    if where is not None:
        share = select(flags_if(where, i, part), share, fill_as(mj, 0.0))
    store_if(dx, i, add(mul(load_as_if(dy, i, part, mj), load_own(a, j)), share), part)
