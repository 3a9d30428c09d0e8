"""Norms over columns: their moments are those of ``columns_moments``, and so is their layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._launch import Kernel, block
from numba_bn._kernels.cpu.columns_moments import padded, tile_moments, tile_of
from numba_bn._kernels.cpu.moments import conclude
from numba_bn._kernels.cpu.state import STATE, rsqrt
from numba_bn._kernels.cpu.tiles import tile_apply

APPLY_ROWS = 128  # rows of a tile that one unit normalizes


@block
def apply_vectors(
    first: int,
    width: int,
    period: int,
    length: int,
    inner: int,
    mean: Any,
    low: Any,
    var: Any,
    t: int,
    var_from: int,
    eps: float,
    gamma: Any,
    beta: Any,
    vectors: Any,
) -> None:
    """Columns from ``first`` on → vectors (3, width): mean, factor, shift; var[0] is var_from's."""
    m, a, b = vectors[0], vectors[1], vectors[2]
    j = 0
    while j < min(width, period):
        g, c = (first + j) // length, (first + j) // inner
        factor = gamma[c] * rsqrt(var[t + g - var_from], eps)
        shift = beta[c] - low[t + g] * factor
        stop = min(min((c + 1) * inner, (g + 1) * length) - first, min(width, period))
        for k in range(j, stop):
            m[k], a[k], b[k] = mean[t + g], factor, shift
        j = stop
    for k in range(period, width):
        m[k], a[k], b[k] = m[k - period], a[k - period], b[k - period]
    for k in range(width, padded(width)):
        m[k], a[k], b[k] = 0.0, 0.0, 0.0


@block
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    low: Any,
    var: Any,
    eps: float,
    relu: bool,
    stream: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    tiles = (stride + tile - 1) // tile
    slices = max((rows + APPLY_ROWS - 1) // APPLY_ROWS, 1)
    b, part, which = u // (tiles * slices), u // tiles % slices, u % tiles
    first, width, own = tile_of(which, tile, stride, period)
    vectors = np.empty((3, padded(width)))
    apply_vectors(
        first,
        width,
        own,
        length,
        inner,
        mean,
        low,
        var,
        b * (period // length),
        0,
        eps,
        gamma,
        beta,
        vectors,
    )
    m, f, s = vectors[0], vectors[1], vectors[2]
    at = b * (rows * stride + tail) + first
    r0, r1 = part * APPLY_ROWS, min((part + 1) * APPLY_ROWS, rows)
    tile_apply(x, y, residual, at + r0 * stride, stride, r1 - r0, width, m, f, s, relu, stream)
    if tail > 0 and part == slices - 1:
        tile_apply(x, y, residual, at + rows * stride, stride, 1, tail, m, f, s, relu, False)


@Kernel
def normalize(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    low: Any,
    var: Any,
    eps: float,
    relu: bool,
    stream: bool,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """x, and per (batch·groups,) mean, low, var → y; from the end, where x may still be cached."""
    tiles = (stride + tile - 1) // tile
    units = batch * tiles * max((rows + APPLY_ROWS - 1) // APPLY_ROWS, 1)
    for u in prange(units):
        _normalize_unit(
            units - 1 - u,
            x,
            y,
            residual,
            gamma,
            beta,
            mean,
            low,
            var,
            eps,
            relu,
            stream,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
        )


@block
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """Unit (batch, tile): its moments, then its y while x is still in cache."""
    tiles = (stride + tile - 1) // tile
    b = u // tiles
    first, width, own = tile_of(u % tiles, tile, stride, period)
    groups, t = own // length, b * (period // length)
    at = b * (rows * stride + tail) + first
    columns, states = np.empty((4, padded(width))), np.empty((groups, STATE))
    tile_moments(x, where, at, stride, rows, tail, width, own, length, columns, states)
    variances = np.empty(groups)
    for g in range(groups):
        h = t + first // length + g
        conclude(states, g, result, h)
        variances[g] = result[3, h] / result[0, h]
    apply_vectors(
        first,
        width,
        own,
        length,
        inner,
        result[1],
        result[2],
        variances,
        t,
        t + first // length,
        eps,
        gamma,
        beta,
        columns,
    )
    m, f, s = columns[0], columns[1], columns[2]
    if tail > 0:
        tile_apply(x, y, residual, at + rows * stride, stride, 1, tail, m, f, s, relu, False)
    tile_apply(x, y, residual, at, stride, rows, width, m, f, s, relu, stream)


@Kernel
def forward(
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """x → y by its own statistics, which go to result (4, batch·groups)."""
    for u in prange(batch * ((stride + tile - 1) // tile)):
        _forward_unit(
            u,
            x,
            y,
            where,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
        )
