"""Gradients of instance and group norm over columns: a sample's tile in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_backward import gradient_of_tile, tile_sums_of
from numba_bn._kernels.cpu.columns_moments import (
    padded,
    spread_out,
    tile_moments,
    tile_of,
)
from numba_bn._kernels.cpu.state import STATE, coefficients, conclude, put_factors, rsqrt


@block
def _own_coefficients(
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    into: int,
    channel: int,
    moments: Any,
    out: Any,
    factors: Any,
) -> None:
    """Moments (4, groups) and sums out (2, channels) → factors (4, channels): mean, a, b, c."""
    groups = moments.shape[1]
    size = out.shape[1] // groups
    for g in range(groups):
        n, r = moments[0, g], rsqrt(moments[3, g] / moments[0, g], eps)
        s, t = 0.0, 0.0
        for k in range(g * size, (g + 1) * size):
            s += gamma[channel + k] * out[0, k]
            t += gamma[channel + k] * out[1, k]
            sums[0, into + k] += out[0, k]
            sums[1, into + k] += out[1, k] * r
        b, c = coefficients(1.0, r, n, s, t)[1:]
        for k in range(g * size, (g + 1) * size):
            put_factors(x, dx, moments[1, g], gamma[channel + k] * r, b, c, factors, k)


@unit
def _own_unit(
    u: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
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
    groups, channels = own // length, own // inner
    columns, states = np.empty((4, padded(width))), np.empty((groups, STATE))
    moments, out, factors = np.empty((4, groups)), np.empty((2, channels)), np.empty((4, channels))
    m = np.empty(padded(width))
    for b in range(batch * chunk // chunks, batch * (chunk + 1) // chunks):
        at = b * (rows * stride + tail) + first
        tile_moments(x, None, at, stride, rows, tail, width, own, length, columns, states)
        for g in range(groups):
            conclude(states, g, moments, g)
        spread_out(moments[1], 0, 0, width, own, length, m)
        tile_sums_of(dy, x, None, at, stride, rows, tail, width, own, inner, m, columns, out)
        channel = first // inner
        into = chunk * (period // inner) + channel
        _own_coefficients(x, dx, gamma, eps, sums, into, channel, moments, out, factors)
        gradient_of_tile(
            dy, x, None, dx, factors, 0, at, stride, rows, tail, width, own, inner, 0, False
        )


@Kernel
def backward_own(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
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
        _own_unit(
            u,
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
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
