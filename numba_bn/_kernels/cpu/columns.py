"""Norms over columns: their moments are those of ``columns_moments``; see ``columns_layout``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import Way, straight
from numba_bn._kernels.cpu.columns_layout import (
    Tile,
    channels_in,
    part_of,
    slices_of,
    spread_each,
    tile_of,
    tiles_of,
)
from numba_bn._kernels.cpu.columns_moments import tile_moments
from numba_bn._kernels.cpu.own import KEPT, channel_factors, own_factors
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import STATE, conclude_each, rsqrt
from numba_bn._kernels.cpu.tiles import lead_of, tile_apply, tile_apply_wide, way_of_tile


@inlined
def apply_by(
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    fit: bool,
    channel: int,
    first: int,
    tile: Tile,
    way: Way,
    relu: bool,
    stream: bool,
    v: Any,
    w: Any,
) -> None:
    """A tile → y, by factors (3, …) of the channels from ``channel`` on.

    ``fit`` tells whether the arithmetic of x and y holds them. v are three vectors of columns in
    that arithmetic, w three in float64.
    """
    spread_each(factors, channel, first, tile, stream, v)
    if fit:
        tile_apply(x, y, residual, tile, way, v[0], v[1], v[2], relu, stream)
    else:
        spread_each(factors, channel, first, tile, stream, w)
        tile_apply_wide(x, y, residual, tile, v, w, relu)


@unit
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    relu: bool,
    stream: bool,
    sample: Tile,
    columns: int,
    per_slice: int,
) -> None:
    """Unit (batch, slice of rows, tile)."""
    tiles, slices = tiles_of(sample, columns), slices_of(sample, per_slice)
    b, part = u // (tiles * slices), u // tiles % slices
    first, whole = tile_of(sample, b, u % tiles, columns)
    tile = part_of(whole, part * per_slice, per_slice)
    channel, inner = b * (sample.period // sample.inner), sample.inner
    apply_by(
        x,
        y,
        residual,
        factors,
        all_fit(x, y, factors, channel + first // inner, channels_in(tile, first)),
        channel,
        first,
        tile,
        way_of_tile(x, stream, tile, True),
        relu,
        stream,
        vectors_as(x, y, 3, tile.width, lead_of(y, tile, stream)),
        doubles(3, tile.width),
    )


@Kernel
def normalize(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    moments: Any,
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
    columns: int,
    per_slice: int,
) -> None:
    """x, by `channel_factors` of statistics → y; from the end, where x may still be cached."""
    factors = channel_factors(x, y, gamma, beta, mean, var, moments, eps, length // inner)
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    units = batch * tiles_of(sample, columns) * slices_of(sample, per_slice)
    for u in prange(units):
        _normalize_unit(
            units - 1 - u, x, y, residual, factors, relu, stream, sample, columns, per_slice
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
    sample: Tile,
    columns: int,
    far: int,
) -> None:
    """Unit (batch, tile): its moments, then its y while x is still in cache."""
    tiles, length, inner = tiles_of(sample, columns), sample.length, sample.inner
    b = u // tiles
    first, tile = tile_of(sample, b, u % tiles, columns)
    width, own = tile.width, tile.period
    states = np.empty((STATE, own // length))
    tile_moments(x, where, tile, far, doubles(4, width), states)
    kept, factors = np.empty((KEPT, own // length)), np.empty((3, own // inner))
    t = (b * sample.period + first) // length
    if result.size == 0:
        result, t = np.empty((STATE, own // length)), 0
    _factors(x, y, states, result, t, gamma, beta, first // inner, eps, kept, factors)
    fit, way = all_fit(x, y, factors, 0, own // inner), straight(width if onward else 0)
    v, w = vectors_as(x, y, 3, width, lead_of(y, tile, stream)), doubles(3, width)
    apply_by(x, y, residual, factors, fit, 0, 0, tile, way, relu, stream, v, w)


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
    columns: int,
    far: int,
) -> None:
    """x → y by its own statistics; result (4, batch·groups), or (4, 0) if nobody asks."""
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange(batch * tiles_of(sample, columns)):
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
            sample,
            columns,
            far,
        )
