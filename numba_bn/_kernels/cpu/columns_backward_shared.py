"""Gradients of a training step over columns, in one go: sums of a tile, then its dx from cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import straight
from numba_bn._kernels.cpu.columns_backward import tile_sums_of
from numba_bn._kernels.cpu.columns_input_gradient import gradient_by
from numba_bn._kernels.cpu.columns_layout import Tile, spread_out, tile_of, tiles_of
from numba_bn._kernels.cpu.precision import all_fit, gradient_terms
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.state import about_mean, coefficients, each_rsqrt
from numba_bn._kernels.cpu.tiles import lead_of


@block
def _shared_factors(
    x: Any,
    dx: Any,
    mean: Any,
    low: Any,
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
    means, lows, r, g, n = mean[here], low[here], rs[here], gamma[here], count[here]
    all_s, all_t = result[0, here], result[1, here]
    m, a, b, c = factors[0], factors[1], factors[2], factors[3]
    for k in range(s.size):
        all_s[k], all_t[k] = s[k], about_mean(s[k], t[k], lows[k])
    for k in range(s.size):
        ak, bk, ck = coefficients(g[k], r[k], n[k], s[k], all_t[k])
        m[k], a[k], b[k], c[k] = gradient_terms(x, dx, means[k], lows[k], ak, bk, ck)


@unit
def _shared_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    low: Any,
    rs: Any,
    gamma: Any,
    count: Any,
    result: Any,
    stream: bool,
    onward: bool,
    sample: Tile,
    columns: int,
) -> None:
    """Unit (tile): its sums → result, then its dx while dy and x are still in cache."""
    first, tile = tile_of(sample, 0, u, columns)
    width, inner, channels = tile.width, tile.inner, tile.period // tile.inner
    vectors, sums, factors = doubles(3, width), np.empty((2, channels)), np.empty((4, channels))
    spread_out(mean, 0, first, tile, inner, vectors[2])
    tile_sums_of(dy, x, where, tile, 1, vectors[2], vectors, sums)
    _shared_factors(x, dx, mean, low, rs, gamma, count, first // inner, sums, result, factors)
    fit, way = all_fit(x, dx, factors, 0, channels), straight(width if onward else 0)
    v, w = vectors_as(x, dx, 4, width, lead_of(dx, tile, stream)), doubles(4, width)
    gradient_by(dy, x, where, dx, factors, fit, 0, 0, tile, way, stream, v, w)


@Kernel
def backward_shared(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    low: Any,
    m2: Any,
    count: Any,
    gamma: Any,
    eps: float,
    out: Any,
    stream: bool,
    onward: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    columns: int,
) -> None:
    """dy, x (rows, stride) → dx, out (2, channels): Σdy, Σdy·x̂ in its dtype, tile by tile."""
    rs, result = each_rsqrt(m2, count, eps), np.empty(out.shape)
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange(tiles_of(sample, columns)):
        _shared_unit(
            u,
            dy,
            x,
            where,
            dx,
            mean,
            low,
            rs,
            gamma,
            count,
            result,
            stream,
            onward,
            sample,
            columns,
        )
    for c in range(rs.size):
        out[0, c], out[1, c] = result[0, c], result[1, c] * rs[c]
