"""Gradients over columns: the backward of ``columns``, cut into the same tiles and chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns import slices_of
from numba_bn._kernels.cpu.columns_moments import (
    channels_of,
    cut_rows,
    padded,
    spread_each,
    spread_out,
    tile_of,
)
from numba_bn._kernels.cpu.lanes import add, fill, head
from numba_bn._kernels.cpu.memory import load_if, scalar, store_if
from numba_bn._kernels.cpu.precision import all_fit, vectors_as
from numba_bn._kernels.cpu.state import centred, coefficients, each_rsqrt, put_factors
from numba_bn._kernels.cpu.tiles import (
    ahead_of,
    tile_gradient_wide,
    tile_gradients,
    tile_input_gradient,
)


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
    for j in range(padded(width)):
        s[j], t[j] = 0.0, 0.0
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
    inner: int,
    tile: int,
) -> None:
    """Unit (tile, chunk) → parts (channels · chunks, 2)."""
    chunks, per_chunk = cut_rows(rows)[:2]
    c = u % chunks
    first, width, own = tile_of(u // chunks, tile, stride, period)
    columns, m, out = (
        np.empty((2, padded(width))),
        np.empty(padded(width)),
        np.empty((2, own // inner)),
    )
    spread_out(mean, 0, first, width, own, inner, m)
    tile_chunk_sums(
        dy,
        x,
        where,
        first,
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
        parts[(first // inner + k) * chunks + c, 0] = out[0, k]
        parts[(first // inner + k) * chunks + c, 1] = out[1, k]


@Kernel
def gradient_sums(
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    result: Any,
    parts: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
) -> None:
    """dy, x (rows, stride) → result (2, channels): Σdy, Σdy·(x-mean)."""
    chunks = cut_rows(rows)[0]
    for u in prange((stride + tile - 1) // tile * chunks):
        _sums_unit(u, dy, x, where, mean, parts, rows, tail, stride, period, inner, tile)
    for c in range(period // inner):
        result[0, c] = 0.0
        result[1, c] = 0.0
        for k in range(c * chunks, (c + 1) * chunks):
            result[0, c] += parts[k, 0]
            result[1, c] += parts[k, 1]


@unit
def gradient_of_tile(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    factors: Any,
    first: int,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    own: int,
    inner: int,
    ahead: int,
    stream: bool,
) -> None:
    """Rows of a tile → dx, by factors (4, channels): m, a, b, c of dx = dy·a + (x-m)·b + c."""
    if all_fit(x, dx, factors, first // inner, channels_of(first, own, inner)):
        v = vectors_as(x, dx, 4, padded(width))
        spread_each(factors, 0, first, width, own, inner, v)
        m, a, b, c = v[0], v[1], v[2], v[3]
        tile_input_gradient(
            dy, x, where, dx, at, stride, rows, tail, width, ahead, m, a, b, c, stream
        )
    else:
        w = np.empty((4, padded(width)))
        spread_each(factors, 0, first, width, own, inner, w)
        mw, aw, bw, cw = w[0], w[1], w[2], w[3]
        tile_gradient_wide(dy, x, where, dx, at, stride, rows, tail, width, mw, aw, bw, cw)


@unit
def _input_gradient_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    factors: Any,
    stream: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
) -> None:
    tiles = (stride + tile - 1) // tile
    slices, per_slice = slices_of(rows, tiles)
    part = u // tiles
    first, width, own = tile_of(u % tiles, tile, stride, period)
    r0, r1 = part * per_slice, min((part + 1) * per_slice, rows)
    last, at = (tail if part == slices - 1 else 0), first + r0 * stride
    ahead = ahead_of(x, stride, width)
    gradient_of_tile(
        dy,
        x,
        where,
        dx,
        factors,
        first,
        at,
        stride,
        r1 - r0,
        last,
        width,
        own,
        inner,
        ahead,
        stream,
    )


@Kernel
def input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    a: Any,
    b: Any,
    c: Any,
    stream: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
) -> None:
    """dy, x (rows, stride) → dx = dy·a + (x-mean)·b + c, a, b, c per channel."""
    tiles = (stride + tile - 1) // tile
    factors = centred(x, dx, mean, a, b, c)
    units = tiles * slices_of(rows, tiles)[0]
    for u in prange(units):
        _input_gradient_unit(
            units - 1 - u,
            dy,
            x,
            where,
            dx,
            factors,
            stream,
            rows,
            tail,
            stride,
            period,
            inner,
            tile,
        )


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
    channel, channels = first // inner, own // inner
    columns, sums = np.empty((3, padded(width))), np.empty((2, channels))
    spread_out(mean, 0, first, width, own, inner, columns[2])
    tile_sums_of(
        dy, x, where, first, stride, rows, tail, width, own, inner, columns[2], columns, sums
    )
    factors = np.empty((4, channels))
    for k in range(channels):
        c = channel + k
        s, t = sums[0, k], sums[1, k]
        result[0, c], result[1, c] = s, t
        a, b, shift = coefficients(gamma[c], rs[c], count[c], s, t)
        put_factors(x, dx, mean[c], a, b, shift, factors, k)
    ahead = width if onward else 0
    gradient_of_tile(
        dy, x, where, dx, factors, 0, first, stride, rows, tail, width, own, inner, ahead, stream
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
