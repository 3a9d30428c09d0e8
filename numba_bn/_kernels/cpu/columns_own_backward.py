"""Gradients of instance and group norm over columns: the backward of ``columns_own``.

One pass over dy and x gives all sums, about one of x's values a group; dx follows while both are
still in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import rows_in_order
from numba_bn._kernels.cpu.columns_input_gradient import gradient_by
from numba_bn._kernels.cpu.columns_layout import (
    Tile,
    gather,
    moved,
    size_of,
    spread_out,
    tile_of,
    tiles_of,
)
from numba_bn._kernels.cpu.columns_own import better_pivots, first_pivots, samples_at_once
from numba_bn._kernels.cpu.own import KEPT_BACKWARD, clear_sums, own_gradients, spreads
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import spread
from numba_bn._kernels.cpu.tile_sums import tile_own_sums
from numba_bn._kernels.cpu.tiles import lead_of, way_of_tile


@block
def _sums(
    dy: Any,
    x: Any,
    tile: Tile,
    count: int,
    n: float,
    in_order: bool,
    columns: Any,
    kept: Any,
    out: Any,
) -> None:
    """A tile of ``count`` samples → kept: p, Σ(x-p), Σ(x-mean)²; out: Σdy, Σdy·(x-p)."""
    length, inner, every = tile.length, tile.inner, columns[0]
    groups, channels = tile.period // length, tile.period // inner
    s, q, g, t = columns[1], columns[2], columns[3], columns[4]
    for attempt in range(2):
        for k in range(count):
            one, here = moved(tile, k * size_of(tile)), slice(k * groups, (k + 1) * groups)
            p, ps, m2 = kept[0, here], kept[1, here], kept[2, here]
            if attempt == 0:
                first_pivots(x, one, p)
            elif not better_pivots(x, n, p, ps, m2):
                continue
            spread_out(p, 0, 0, tile, length, every)
            tile_own_sums(dy, x, one, in_order, every, s, q, g, t)
            gather(s, tile, length, ps)
            gather(q, tile, length, m2)
            there = slice(k * channels, (k + 1) * channels)
            gather(g, tile, inner, out[0, there])
            gather(t, tile, inner, out[1, there])
            if attempt == 1:
                for j in range(groups):
                    m2[j] = spread(n, ps[j], m2[j])
        if attempt == 1 or not spreads(kept, count * groups, n):
            break


@block
def _backward_samples(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    tile: Tile,
    first: int,
    count: int,
    n: float,
    columns: Any,
    kept: Any,
    out: Any,
    factors: Any,
    v: Any,
    w: Any,
) -> None:
    """A tile of each of ``count`` samples → dx, and their share of sums."""
    size, channels = tile.length // tile.inner, tile.period // tile.inner
    groups, channel = count * (tile.period // tile.length), first // tile.inner
    in_order = tile.width == tile.stride and rows_in_order(stream)
    _sums(dy, x, tile, count, n, in_order, columns, kept, out)
    own_gradients(x, dx, gamma, channel, eps, sums, n, kept, groups, size, out, factors)
    fit = all_fit(x, dx, factors, 0, count * channels)
    for k in range(count):
        c, one = k * channels, moved(tile, k * size_of(tile))
        fits, way = fit or all_fit(x, dx, factors, c, channels), way_of_tile(x, stream, one, False)
        gradient_by(dy, x, None, dx, factors, fits, c, 0, one, way, stream, v, w)


@unit
def _backward_unit(
    u: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    sample: Tile,
    columns: int,
    chunks: int,
) -> None:
    """Unit (chunk of the batch, tile) → dx, and its share of sums."""
    tiles, size, length = tiles_of(sample, columns), size_of(sample), sample.length
    chunk = u // tiles
    first, tile = tile_of(sample, 0, u % tiles, columns)
    b0, b1 = batch * chunk // chunks, batch * (chunk + 1) // chunks
    some, own = samples_at_once(2 * size, b1 - b0, tiles), tile.period // sample.inner
    width, channels, part = tile.width, some * own, sums[chunk]
    clear_sums(part, first // sample.inner, own)
    vectors, kept = doubles(5, width), np.empty((KEPT_BACKWARD, some * (tile.period // length)))
    out, factors = np.empty((2, channels)), np.empty((4, channels))
    v, w = vectors_as(x, dx, 4, width, lead_of(dx, tile, stream)), doubles(4, width)
    for b in range(b0, b1, some):
        _backward_samples(
            dy,
            x,
            dx,
            gamma,
            eps,
            part,
            stream,
            moved(tile, b * size),
            first,
            min(some, b1 - b),
            float(size // sample.period * length),
            vectors,
            kept,
            out,
            factors,
            v,
            w,
        )


@Kernel
def backward(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    columns: int,
    chunks: int,
) -> None:
    """dy, x (batch, rows, stride) → dx; sums (chunks, 2·channels)."""
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange(chunks * tiles_of(sample, columns)):
        _backward_unit(u, dy, x, dx, gamma, eps, sums, stream, batch, sample, columns, chunks)
