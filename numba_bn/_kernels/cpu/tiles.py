"""The innermost loops over columns that normalize: a row at a time, sixteen columns by sixteen.

A tile is ``width`` neighbouring columns; what belongs to a column lies in vectors with room for
sixteen columns more. Under the last row of a tile there may be one more, of ``tail`` columns.
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels._compile import block, inline
from numba_bn._kernels.cpu.lanes import add, fma, head, sub
from numba_bn._kernels.cpu.loops import rectify, whole
from numba_bn._kernels.cpu.memory import (
    before_aligned,
    claim,
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
    if not stream:
        _cached_apply(x, y, residual, at, stride, rows, tail, width, m, a, b, relu_too)
        return
    lead = before_aligned(y, at)
    joined = lead > 0 and width == stride
    for k in range(4):
        start, count, first, end = segment(k, at, stride, rows, tail, width, lead, joined)
        for r in range(count):
            i, far = start + r * stride, min(ahead, (count - 1 - r) * stride + near(x))
            _row_apply(x, y, residual, i, first, end, lead, far, m, a, b, relu_too)


@block
def _cached_apply(
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
    """The same from caches, where whole lines and asking for x cost more than they give."""
    for r in range(rows + (1 if tail > 0 else 0)):
        start, end = at + r * stride, width if r < rows else tail
        for k in range(0, end - 15, 16):
            i, mk = start + k, load_own(m, k)
            v = fma(sub(load_as(x, i, mk), mk), load_own(a, k), load_own(b, k))
            if residual is not None:
                v = add(v, load_as(residual, i, mk))
            claim(y, i + near(y) // 4)
            store(y, i, rectify(v, relu_too), False)
        j = whole(0, end)
        if j < end:
            _part_apply(x, y, residual, start + j, j, head(end - j), m, a, b, relu_too)


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
) -> None:
    """Columns [j, end) of the row at x[at] → y, past the caches."""
    if j == 0 and lead > 0:
        j = min(lead, end)
        _part_apply(x, y, residual, at, 0, head(j), m, a, b, relu_too)
    for k in range(j, end - 15, 16):
        i, mk = at + k, load_own(m, k)
        prefetch(x, i + ahead)
        v = fma(sub(load_as(x, i, mk), mk), load_own(a, k), load_own(b, k))
        if residual is not None:
            v = add(v, load_as(residual, i, mk))
        store(y, i, rectify(v, relu_too), True)
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
