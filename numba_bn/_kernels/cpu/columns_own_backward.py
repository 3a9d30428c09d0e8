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
from numba_bn._kernels.cpu.columns_layout import gather, spread_out, tile_of
from numba_bn._kernels.cpu.columns_own import better_pivots, first_pivots, samples_at_once
from numba_bn._kernels.cpu.own import KEPT_BACKWARD, own_gradients, spreads
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import spread
from numba_bn._kernels.cpu.tile_sums import tile_own_sums
from numba_bn._kernels.cpu.tiles import way_of_tile


@block
def _sums(
    dy: Any,
    x: Any,
    at: int,
    count: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    own: int,
    length: int,
    inner: int,
    n: float,
    in_order: bool,
    columns: Any,
    kept: Any,
    out: Any,
) -> None:
    """Tiles of samples from x[at] on → kept: p, Σ(x-p), Σ(x-mean)²; out: Σdy, Σdy·(x-p)."""
    groups, channels, every = own // length, own // inner, columns[0]
    s, q, g, t = columns[1], columns[2], columns[3], columns[4]
    for attempt in range(2):
        for k in range(count):
            start, here = at + k * (rows * stride + tail), slice(k * groups, (k + 1) * groups)
            p, ps, m2 = kept[0, here], kept[1, here], kept[2, here]
            if attempt == 0:
                first_pivots(x, start, stride, rows, length, p)
            elif not better_pivots(x, n, p, ps, m2):
                continue
            spread_out(p, 0, 0, width, own, length, every)
            tile_own_sums(dy, x, start, stride, rows, tail, width, in_order, every, s, q, g, t)
            gather(s, width, own, length, ps)
            gather(q, width, own, length, m2)
            there = slice(k * channels, (k + 1) * channels)
            gather(g, width, own, inner, out[0, there])
            gather(t, width, own, inner, out[1, there])
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
    into: int,
    stream: bool,
    b0: int,
    b1: int,
    some: int,
    stride: int,
    rows: int,
    tail: int,
    period: int,
    first: int,
    width: int,
    own: int,
    length: int,
    inner: int,
    columns: Any,
    kept: Any,
    out: Any,
    factors: Any,
    v: Any,
    w: Any,
) -> None:
    """A tile of samples [b0, b1), ``some`` at a time → dx, and their share of sums."""
    sample, size, channels, channel = (
        rows * stride + tail,
        length // inner,
        own // inner,
        first // inner,
    )
    n = float(sample // period * length)
    for b in range(b0, b1, some):
        at, count = b * sample + first, min(some, b1 - b)
        groups = count * (own // length)
        _sums(
            dy,
            x,
            at,
            count,
            stride,
            rows,
            tail,
            width,
            own,
            length,
            inner,
            n,
            width == stride and rows_in_order(stream),
            columns,
            kept,
            out,
        )
        own_gradients(x, dx, gamma, channel, eps, sums, into, n, kept, groups, size, out, factors)
        fit = all_fit(x, dx, factors, 0, count * channels)
        for k in range(count):
            gradient_by(
                dy,
                x,
                None,
                dx,
                factors,
                fit or all_fit(x, dx, factors, k * channels, channels),
                k * channels,
                0,
                at + k * sample,
                stride,
                rows,
                tail,
                width,
                own,
                inner,
                way_of_tile(x, stream, at + k * sample, stride, width, sample, 0),
                stream,
                v,
                w,
            )


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
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
    chunks: int,
) -> None:
    """Unit (chunk of the batch, tile) → dx, and its share of sums (2, chunks · channels)."""
    tiles = (stride + tile - 1) // tile
    chunk = u // tiles
    first, width, own = tile_of(u % tiles, tile, stride, period)
    b0, b1 = batch * chunk // chunks, batch * (chunk + 1) // chunks
    some = samples_at_once(2 * (rows * width + tail), b1 - b0, tiles)
    channels = some * (own // inner)
    _backward_samples(
        dy,
        x,
        dx,
        gamma,
        eps,
        sums,
        chunk * (period // inner),
        stream,
        b0,
        b1,
        some,
        stride,
        rows,
        tail,
        period,
        first,
        width,
        own,
        length,
        inner,
        doubles(5, width),
        np.empty((KEPT_BACKWARD, some * (own // length))),
        np.empty((2, channels)),
        np.empty((4, channels)),
        vectors_as(x, dx, 4, width),
        doubles(4, width),
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
    tile: int,
    chunks: int,
) -> None:
    """dy, x (batch, rows, stride) → dx; sums (2, chunks · channels), zero before."""
    for u in prange(chunks * ((stride + tile - 1) // tile)):
        _backward_unit(
            u,
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            batch,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
            chunks,
        )
