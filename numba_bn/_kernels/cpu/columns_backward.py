"""Gradients over columns: the backward of ``columns``, cut into the same tiles and chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_layout import gather, spread_out, tile_of
from numba_bn._kernels.cpu.columns_moments import cut_rows
from numba_bn._kernels.cpu.lanes import fill
from numba_bn._kernels.cpu.memory import store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import clear
from numba_bn._kernels.cpu.tile_sums import tile_gradients


@block
def tile_chunk_sums(
    dy: Any,
    x: Any,
    where: Any,
    at: int,
    stride: int,
    first: int,
    last: int,
    tail: int,
    width: int,
    period: int,
    inner: int,
    far: int,
    m: Any,
    columns: Any,
    out: Any,
) -> None:
    """Rows [first, last) of a tile, and ``tail`` columns after → out (2, channels)."""
    s, t = columns[0], columns[1]
    for j in range(0, width, 16):
        store(s, j, fill(0.0), False)
        store(t, j, fill(0.0), False)
    tile_gradients(
        dy, x, where, at + first * stride, stride, last - first, tail, width, far, m, s, t
    )
    gather(s, width, period, inner, out[0])
    gather(t, width, period, inner, out[1])


@unit
def tile_sums_of(
    dy: Any,
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    period: int,
    inner: int,
    far: int,
    m: Any,
    columns: Any,
    out: Any,
) -> None:
    """All rows of a tile → out (2, channels), chunk by chunk in order."""
    chunks, per_chunk = cut_rows(rows, width > period)[:2]
    part = np.empty(out.shape)
    clear(out)
    for c in range(chunks):
        tile_chunk_sums(
            dy,
            x,
            where,
            at,
            stride,
            c * per_chunk,
            min((c + 1) * per_chunk, rows),
            tail if c == chunks - 1 else 0,
            width,
            period,
            inner,
            far,
            m,
            columns,
            part,
        )
        for k in range(out.shape[1]):
            out[0, k] += part[0, k]
            out[1, k] += part[1, k]


@unit
def _sums_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    parts: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
    far: int,
) -> None:
    """Unit (batch, tile, chunk) → parts (chunks · 2, batch · channels)."""
    chunks, per_chunk = cut_rows(rows, stride > period)[:2]
    c, rest, tiles = u % chunks, u // chunks, (stride + tile - 1) // tile
    b = rest // tiles
    first, width, own = tile_of(rest % tiles, tile, stride, period)
    columns, out = doubles(3, width), np.empty((2, own // inner))
    spread_out(mean, b * (period // length), first, width, own, length, columns[2])
    tile_chunk_sums(
        dy,
        x,
        where,
        b * (rows * stride + tail) + first,
        stride,
        c * per_chunk,
        min((c + 1) * per_chunk, rows),
        tail if c == chunks - 1 else 0,
        width,
        own,
        inner,
        far,
        columns[2],
        columns,
        out,
    )
    at = (b * period + first) // inner
    for i in range(2):
        for k in range(own // inner):
            parts[2 * c + i, at + k] = out[i, k]


@Kernel
def gradient_sums(
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    result: Any,
    parts: Any,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
    far: int,
) -> None:
    """dy, x (batch, rows, stride), mean (batch · groups,) → result: Σdy, Σdy·(x-mean).

    result is (2, batch · channels).
    """
    chunks = cut_rows(rows, stride > period)[0]
    for u in prange(batch * ((stride + tile - 1) // tile) * chunks):
        _sums_unit(
            u, dy, x, where, mean, parts, rows, tail, stride, period, length, inner, tile, far
        )
    clear(result)
    for c in range(chunks):
        for i in range(2):
            for k in range(batch * (period // inner)):
                result[i, k] += parts[2 * c + i, k]
