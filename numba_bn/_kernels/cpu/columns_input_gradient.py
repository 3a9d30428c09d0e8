"""dx over columns, by sums that are known; the layout is that of ``columns_layout``."""

from __future__ import annotations

from typing import Any

from numba import prange

from numba_bn._kernels._compile import inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_layout import (
    channels_of,
    slices_of,
    spread_each,
    tile_of,
)
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import centred
from numba_bn._kernels.cpu.tiles import way_of_tile
from numba_bn._kernels.cpu.tiles_gradient import tile_gradient_wide, tile_input_gradient


@inlined
def gradient_by(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
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
    stream: bool,
    v: Any,
    w: Any,
) -> None:
    """Rows of a tile → dx, by factors (4, …) of the channels from ``channel`` on.

    They are m, a, b, c of dx = dy·a + (x-m)·b + c, and ``fit`` tells whether the arithmetic of x
    and dx holds them. v are four vectors of columns in that arithmetic, w four in float64.
    """
    spread_each(factors, channel, first, width, own, inner, stream, v)
    if fit:
        m, a, b, c = v[0], v[1], v[2], v[3]
        tile_input_gradient(
            dy, x, where, dx, at, stride, rows, tail, width, own, way, m, a, b, c, stream
        )
    else:
        spread_each(factors, channel, first, width, own, inner, stream, w)
        tile_gradient_wide(dy, x, where, dx, at, stride, rows, tail, width, v, w)


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
    per_slice: int,
) -> None:
    tiles = (stride + tile - 1) // tile
    slices = slices_of(rows, per_slice)
    b, part = u // (tiles * slices), u // tiles % slices
    first, width, own = tile_of(u % tiles, tile, stride, period)
    r0, r1 = part * per_slice, min((part + 1) * per_slice, rows)
    last = tail if part == slices - 1 else 0
    at = b * (rows * stride + tail) + first + r0 * stride
    size = (r1 - r0) * stride + last
    way = way_of_tile(x, stream, at, stride, width, size, -2 * size)
    channel = b * (period // inner)
    some = channel + first // inner, channels_of(first, own, inner)
    gradient_by(
        dy,
        x,
        where,
        dx,
        factors,
        all_fit(x, dx, factors, some[0], some[1]),
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
        stream,
        vectors_as(x, dx, 4, width),
        doubles(4, width),
    )


@Kernel
def input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    low: Any,
    a: Any,
    b: Any,
    c: Any,
    stream: bool,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    inner: int,
    tile: int,
    per_slice: int,
) -> None:
    """dy, x (batch, rows, stride) → dx = dy·a + (x-mean)·b + c, per (batch · channels,)."""
    tiles = (stride + tile - 1) // tile
    factors = centred(x, dx, mean, low, a, b, c)
    units = batch * tiles * slices_of(rows, per_slice)
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
            per_slice,
        )
