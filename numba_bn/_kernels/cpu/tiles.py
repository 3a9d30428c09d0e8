"""The innermost loops over columns that write: a row at a time, sixteen columns after the other.

A tile is ``width`` neighbouring columns; what belongs to a column lies in vectors with room for
sixteen columns more. Under the last row of a tile there may be one more, of ``tail`` columns.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inline
from numba_bn._kernels.cpu.lanes import add, fill_as, fma, head, mul, select, sub
from numba_bn._kernels.cpu.loops import rectify, whole
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

_ROWS_AHEAD = 16


@inline
def segment(
    k: int, at: int, stride: int, rows: int, tail: int, width: int, lead: int, joined: bool
) -> Any:
    """k-th of four parts of a tile → its start, rows, and columns from and to.

    ``joined`` rows, side by side in memory, are walked from the first aligned column on and into
    the next row, so that no sixteen are written in two halves: that costs a fifth of the speed.
    """
    if k == 0:
        return at, (1 if joined else 0), 0, lead
    if k == 1:
        return (at, rows - 1, lead, width + lead) if joined else (at, rows, 0, width)
    if k == 2:
        return at + (rows - 1) * stride, (1 if joined else 0), lead, width
    return at + rows * stride, (1 if tail > 0 else 0), 0, tail


@inline
def ahead_of(x: Any, stride: int, width: int) -> int:
    """How many values ahead to ask for x's memory when tiles are walked row by row."""
    return near(x) if width == stride else _ROWS_AHEAD * stride


@block
def tile_apply(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    ahead: int,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
    stream: bool,
) -> None:
    """Rows of x → y = (x - m)·a + b [+ residual], [ReLU]; m, a, b (width,)."""
    lead = before_aligned(y, at) if stream else 0
    joined = lead > 0 and width == stride
    for k in range(4):
        start, count, first, end = segment(k, at, stride, rows, tail, width, lead, joined)
        for r in range(count):
            i, far = start + r * stride, min(ahead, (count - 1 - r) * stride + near(x))
            _row_apply(x, y, residual, i, first, end, lead, far, m, a, b, relu_too, stream)


@block
def tile_apply_wide(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
) -> None:
    """The same with float64 vectors; so rarely needed for short x that it is short, not fast."""
    for r in range(rows + (1 if tail > 0 else 0)):
        end = width if r < rows else tail
        for j in range(0, end, 16):
            i, part = at + r * stride + j, head(end - j)
            _part_apply(x, y, residual, i, j, part, m, a, b, relu_too)


@block
def _row_apply(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    j: int,
    end: int,
    lead: int,
    ahead: int,
    m: Any,
    a: Any,
    b: Any,
    relu_too: bool,
    stream: bool,
) -> None:
    """Columns [j, end) of the row at x[at] → y."""
    if j == 0 and lead > 0:
        j = min(lead, end)
        _part_apply(x, y, residual, at, 0, head(j), m, a, b, relu_too)
    for k in range(j, end - 15, 16):
        i, mk = at + k, load_own(m, k)
        if stream:  # from caches it costs more than it gives
            prefetch(x, i + ahead)
        v = fma(sub(load_as(x, i, mk), mk), load_own(a, k), load_own(b, k))
        if residual is not None:
            v = add(v, load_as(residual, i, mk))
        if not stream:
            claim(y, i + near(y) // 4)
        store(y, i, rectify(v, relu_too), stream)
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
    mj = load_own(m, j)
    v = fma(sub(load_as_if(x, i, part, mj), mj), load_own(a, j), load_own(b, j))
    if residual is not None:
        v = add(v, load_as_if(residual, i, part, mj))
    store_if(y, i, rectify(v, relu_too), part)


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
    lead = before_aligned(dx, at) if stream else 0
    joined = lead > 0 and width == stride
    for k in range(4):
        start, count, first, end = segment(k, at, stride, rows, tail, width, lead, joined)
        for r in range(count):
            i, far = start + r * stride, min(ahead, (count - 1 - r) * stride + near(x))
            _row_gradient(dy, x, where, dx, i, first, end, lead, far, m, a, b, c, stream)


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
    stream: bool,
) -> None:
    """Columns [j, end) of the rows at dy[at], x[at] → dx."""
    if j == 0 and lead > 0:
        j = min(lead, end)
        _part_gradient(dy, x, where, dx, at, 0, head(j), m, a, b, c)
    for k in range(j, end - 15, 16):
        i, mk = at + k, load_own(m, k)
        if stream:  # from caches it costs more than it gives
            prefetch(x, i + ahead)
            prefetch(dy, i + ahead)
        share = fma(sub(load_as(x, i, mk), mk), load_own(b, k), load_own(c, k))
        if where is not None:
            share = select(flags(where, i), share, fill_as(mk, 0.0))
        if not stream:
            claim(dx, i + near(dx) // 4)
        store(dx, i, add(mul(load_as(dy, i, mk), load_own(a, k)), share), stream)
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
