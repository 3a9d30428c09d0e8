"""Norms over columns: their moments are those of ``columns_moments``; see ``columns_layout``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import straight
from numba_bn._kernels.cpu.columns_layout import (
    channels_of,
    slices_of,
    spread_each,
    tile_of,
)
from numba_bn._kernels.cpu.columns_moments import tile_moments
from numba_bn._kernels.cpu.own import KEPT, channel_factors, own_factors
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import STATE, conclude_each, rsqrt
from numba_bn._kernels.cpu.tiles import tile_apply, tile_apply_wide, way_of_tile


@inlined
def apply_by(
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    fit: bool,
    channel: int,
    first: int,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    own: int,
    inner: int,
    way: Any,
    relu: bool,
    stream: bool,
    v: Any,
    w: Any,
) -> None:
    """Rows of a tile → y, by factors (3, …) of the channels from ``channel`` on.

    ``fit`` tells whether the arithmetic of x and y holds them. v are three vectors of columns in
    that arithmetic, w three in float64.
    """
    spread_each(factors, channel, first, width, own, inner, stream, v)
    if fit:
        m, a, b = v[0], v[1], v[2]
        tile_apply(x, y, residual, at, stride, rows, tail, width, own, way, m, a, b, relu, stream)
    else:
        spread_each(factors, channel, first, width, own, inner, stream, w)
        tile_apply_wide(x, y, residual, at, stride, rows, tail, width, v, w, relu)


@unit
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    relu: bool,
    stream: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
    per_slice: int,
) -> None:
    tiles = (stride + tile - 1) // tile
    slices = slices_of(rows, per_slice)
    b, part, which = u // (tiles * slices), u // tiles % slices, u % tiles
    first, width, own = tile_of(which, tile, stride, period)
    r0, r1 = part * per_slice, min((part + 1) * per_slice, rows)
    at = b * (rows * stride + tail) + first + r0 * stride
    last = tail if part == slices - 1 else 0
    size = (r1 - r0) * stride + last
    way = way_of_tile(x, stream, at, stride, width, size, -2 * size)
    channel = b * (period // inner)
    some = channel + first // inner, channels_of(first, own, inner)
    apply_by(
        x,
        y,
        residual,
        factors,
        all_fit(x, y, factors, some[0], some[1]),
        channel,
        first,
        at,
        stride,
        r1 - r0,
        last,
        width,
        own,
        inner,
        way,
        relu,
        stream,
        vectors_as(x, y, 3, width),
        doubles(3, width),
    )


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
    per_slice: int,
) -> None:
    """x, per (batch·groups,) mean, low, var → y; from the end, where x may still be cached."""
    factors = channel_factors(x, y, gamma, beta, mean, low, var, eps, length // inner)
    tiles = (stride + tile - 1) // tile
    units = batch * tiles * slices_of(rows, per_slice)
    for u in prange(units):
        _normalize_unit(
            units - 1 - u,
            x,
            y,
            residual,
            factors,
            relu,
            stream,
            rows,
            tail,
            stride,
            period,
            inner,
            tile,
            per_slice,
        )


@block
def _factors(
    x: Any,
    y: Any,
    states: Any,
    result: Any,
    t: int,
    gamma: Any,
    beta: Any,
    channel: int,
    eps: float,
    kept: Any,
    out: Any,
) -> None:
    """States of a tile's groups → result[:, t :], and out (3, channels): mean, factor, shift."""
    groups = states.shape[1]
    here = slice(t, t + groups)
    count, mean, low, m2 = result[0, here], result[1, here], result[2, here], result[3, here]
    for g in range(groups):
        count[g], mean[g], low[g], m2[g] = states[0, g], states[1, g], states[2, g], states[3, g]
    conclude_each(count, mean, low, m2)
    for g in range(groups):
        kept[0, g], kept[1, g], kept[2, g] = mean[g], low[g], rsqrt(m2[g] / count[g], eps)
    own_factors(x, y, gamma, beta, channel, kept, groups, out.shape[1] // groups, out)


@unit
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
    onward: bool,
    result: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
    far: int,
) -> None:
    """Unit (batch, tile): its moments, then its y while x is still in cache."""
    tiles = (stride + tile - 1) // tile
    b = u // tiles
    first, width, own = tile_of(u % tiles, tile, stride, period)
    at = b * (rows * stride + tail) + first
    columns, states = doubles(4, width), np.empty((STATE, own // length))
    tile_moments(x, where, at, stride, rows, tail, width, own, length, far, columns, states)
    kept, factors = np.empty((KEPT, own // length)), np.empty((3, own // inner))
    t = (b * period + first) // length
    if result.size == 0:
        result, t = np.empty((STATE, own // length)), 0
    _factors(x, y, states, result, t, gamma, beta, first // inner, eps, kept, factors)
    apply_by(
        x,
        y,
        residual,
        factors,
        all_fit(x, y, factors, 0, own // inner),
        0,
        0,
        at,
        stride,
        rows,
        tail,
        width,
        own,
        inner,
        straight(width if onward else 0),
        relu,
        stream,
        vectors_as(x, y, 3, width),
        doubles(3, width),
    )


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
    onward: bool,
    result: Any,
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
    """x → y by its own statistics; result (4, batch·groups), or (4, 0) if nobody asks."""
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
            onward,
            result,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
            far,
        )
