"""Gradients over columns: the backward of ``columns``, cut into the same tiles and chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_input_gradient import gradient_by
from numba_bn._kernels.cpu.columns_layout import padded, spread_out, tile_of
from numba_bn._kernels.cpu.columns_moments import cut_rows
from numba_bn._kernels.cpu.lanes import add, fill, head
from numba_bn._kernels.cpu.memory import load_if, scalar, store, store_if
from numba_bn._kernels.cpu.precision import gradient_terms, vectors_as
from numba_bn._kernels.cpu.state import coefficients, each_rsqrt
from numba_bn._kernels.cpu.tile_sums import tile_gradients


@block
def _fold(s: Any, t: Any, width: int, period: int, inner: int, out: Any) -> None:
    """Two values per column → their sums per channel (2, channels), in the order of the columns."""
    channels = out.shape[1]
    if inner == 1:
        for c in range(0, channels, 16):
            sv, tv, own = fill(0.0), fill(0.0), head(channels - c)
            for start in range(c, width, period):
                part = head(width - start)
                sv, tv = add(sv, load_if(s, start, part)), add(tv, load_if(t, start, part))
            store_if(out[0], c, sv, own)
            store_if(out[1], c, tv, own)
        return
    for c in range(channels):
        sum_s, sum_t = 0.0, 0.0  # side by side, as each addition waits for the one before
        for start in range(c * inner, width, period):
            for k in range(start, min(start + inner, width)):
                sum_s += scalar(s, k)
                sum_t += scalar(t, k)
        out[0, c], out[1, c] = sum_s, sum_t


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
    m: Any,
    columns: Any,
    out: Any,
) -> None:
    """Rows [first, last) of a tile, and ``tail`` columns after → out (2, channels)."""
    s, t = columns[0], columns[1]
    for j in range(0, width, 16):
        store(s, j, fill(0.0), False)
        store(t, j, fill(0.0), False)
    tile_gradients(dy, x, where, at + first * stride, stride, last - first, tail, width, m, s, t)
    _fold(s, t, width, period, inner, out)


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
    m: Any,
    columns: Any,
    out: Any,
) -> None:
    """All rows of a tile → out (2, channels), chunk by chunk in order."""
    chunks, per_chunk = cut_rows(rows)[:2]
    part = np.empty(out.shape)
    for c in range(out.shape[1]):
        out[0, c], out[1, c] = 0.0, 0.0
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
) -> None:
    """Unit (batch, tile, chunk) → parts (batch · channels · chunks, 2)."""
    chunks, per_chunk = cut_rows(rows)[:2]
    c, rest, tiles = u % chunks, u // chunks, (stride + tile - 1) // tile
    b = rest // tiles
    first, width, own = tile_of(rest % tiles, tile, stride, period)
    columns, m, out = (
        np.empty((2, padded(width))),
        np.empty(padded(width)),
        np.empty((2, own // inner)),
    )
    spread_out(mean, b * (period // length), first, width, own, length, m)
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
        m,
        columns,
        out,
    )
    for k in range(own // inner):
        at = ((b * period + first) // inner + k) * chunks + c
        parts[at, 0], parts[at, 1] = out[0, k], out[1, k]


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
) -> None:
    """dy, x (batch, rows, stride), mean (batch · groups,) → result: Σdy, Σdy·(x-mean).

    result is (2, batch · channels).
    """
    chunks = cut_rows(rows)[0]
    for u in prange(batch * ((stride + tile - 1) // tile) * chunks):
        _sums_unit(u, dy, x, where, mean, parts, rows, tail, stride, period, length, inner, tile)
    for c in range(batch * (period // inner)):
        result[0, c] = 0.0
        result[1, c] = 0.0
        for k in range(c * chunks, (c + 1) * chunks):
            result[0, c] += parts[k, 0]
            result[1, c] += parts[k, 1]


@block
def _shared_factors(
    x: Any,
    dx: Any,
    mean: Any,
    rs: Any,
    gamma: Any,
    count: Any,
    channel: int,
    sums: Any,
    result: Any,
    factors: Any,
) -> None:
    """Σdy, Σdy·(x-mean) of channels from ``channel`` on → result, factors (4, channels).

    Slices, as LLVM makes gathers of indices that might be negative.
    """
    s, t, here = sums[0], sums[1], slice(channel, channel + sums.shape[1])
    means, r, g, n = mean[here], rs[here], gamma[here], count[here]
    all_s, all_t = result[0, here], result[1, here]
    m, a, b, c = factors[0], factors[1], factors[2], factors[3]
    for k in range(s.size):
        all_s[k], all_t[k] = s[k], t[k]
    for k in range(s.size):
        ak, bk, ck = coefficients(g[k], r[k], n[k], s[k], t[k])
        m[k], a[k], b[k], c[k] = gradient_terms(x, dx, means[k], ak, bk, ck)


@unit
def _shared_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    rs: Any,
    gamma: Any,
    count: Any,
    result: Any,
    stream: bool,
    onward: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
) -> None:
    """Unit (tile): its sums → result, then its dx while dy and x are still in cache."""
    first, width, own = tile_of(u, tile, stride, period)
    columns, sums = np.empty((3, padded(width))), np.empty((2, own // inner))
    spread_out(mean, 0, first, width, own, inner, columns[2])
    tile_sums_of(
        dy, x, where, first, stride, rows, tail, width, own, inner, columns[2], columns, sums
    )
    factors = np.empty((4, own // inner))
    _shared_factors(x, dx, mean, rs, gamma, count, first // inner, sums, result, factors)
    gradient_by(
        dy,
        x,
        where,
        dx,
        factors,
        0,
        0,
        first,
        stride,
        rows,
        tail,
        width,
        own,
        inner,
        width if onward else 0,
        stream,
        vectors_as(x, dx, 4, padded(width)),
        np.empty((4, padded(width))),
    )


@Kernel
def backward_shared(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    m2: Any,
    count: Any,
    gamma: Any,
    eps: float,
    result: Any,
    stream: bool,
    onward: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
) -> None:
    """dy, x (rows, stride) → dx, result (2, channels): Σdy, Σdy·x̂, tile by tile."""
    rs = each_rsqrt(m2, count, eps)
    for u in prange((stride + tile - 1) // tile):
        _shared_unit(
            u,
            dy,
            x,
            where,
            dx,
            mean,
            rs,
            gamma,
            count,
            result,
            stream,
            onward,
            rows,
            tail,
            stride,
            period,
            inner,
            tile,
        )
    for c in range(rs.size):
        result[1, c] *= rs[c]
