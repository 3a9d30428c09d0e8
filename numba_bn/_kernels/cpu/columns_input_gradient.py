"""dx over columns, by sums that are known; the layout is that of ``columns_layout``."""

from __future__ import annotations

from typing import Any

from numba import prange

from numba_bn._kernels._compile import inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import Way
from numba_bn._kernels.cpu.columns_layout import (
    Tile,
    channels_in,
    part_of,
    slices_of,
    spread_each,
    tile_of,
    tiles_of,
)
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import centred
from numba_bn._kernels.cpu.tiles import lead_of, way_of_tile
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
    tile: Tile,
    way: Way,
    stream: bool,
    v: Any,
    w: Any,
) -> None:
    """A tile → dx, by factors (4, …) of the channels from ``channel`` on.

    They are m, a, b, c of dx = dy·a + (x-m)·b + c, and ``fit`` tells whether the arithmetic of x
    and dx holds them. v are four vectors of columns in that arithmetic, w four in float64.
    """
    spread_each(factors, channel, first, tile, stream, v)
    if fit:
        tile_input_gradient(dy, x, where, dx, tile, way, v[0], v[1], v[2], v[3], stream)
    else:
        spread_each(factors, channel, first, tile, stream, w)
        tile_gradient_wide(dy, x, where, dx, tile, v, w)


@unit
def _input_gradient_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    factors: Any,
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
    fit = all_fit(x, dx, factors, channel + first // inner, channels_in(tile, first))
    way = way_of_tile(x, stream, tile, True)
    v = vectors_as(x, dx, 4, tile.width, lead_of(dx, tile, stream))
    w = doubles(4, tile.width)
    gradient_by(dy, x, where, dx, factors, fit, channel, first, tile, way, stream, v, w)


@Kernel
def input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    low: Any,
    terms: Any,
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
    """dy, x (batch, rows, stride) → dx = dy·a + (x-mean)·b + c, terms (3, batch · channels)."""
    factors = centred(x, dx, mean, low, terms)
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    units = batch * tiles_of(sample, columns) * slices_of(sample, per_slice)
    for u in prange(units):
        _input_gradient_unit(
            units - 1 - u, dy, x, where, dx, factors, stream, sample, columns, per_slice
        )
