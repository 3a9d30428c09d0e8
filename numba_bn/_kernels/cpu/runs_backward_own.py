"""Gradients of instance and group norm over runs: moments, sums and dx of a sample in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.moments import channels_of, slab_moments, slab_of
from numba_bn._kernels.cpu.own import clear_sums
from numba_bn._kernels.cpu.runs_backward import gradient_slab, slab_sums
from numba_bn._kernels.cpu.state import (
    STATE,
    about_mean,
    coefficients,
    conclude,
    put_factors,
    rsqrt,
)


@unit
def _own_unit(
    u: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    together: int,
) -> None:
    """Unit (chunk of the batch, slab of groups) → dx, its share of sums."""
    slabs = (groups + together - 1) // together
    chunk, g = u // slabs, (u % slabs) * together
    wide, part = min(together, groups - g), sums[chunk]
    clear_sums(part, g * size, wide * size)
    states, result = np.empty((wide, STATE)), np.empty((STATE, wide))
    out, factors = np.empty((wide * size, 2)), np.empty((4, wide * size))
    for b in range(batch * chunk // chunks, batch * (chunk + 1) // chunks):
        slab = slab_of(b, g, wide, outer, groups, size * inner)
        slab_moments(x, None, slab, states, stream)
        for j in range(wide):
            conclude(states, j, result, j)
        own = channels_of(slab, size)
        slab_sums(dy, x, None, own, result[1], 0, size, out, stream)
        _put_terms(x, dx, gamma, eps, part, g * size, result, out, factors)
        # nothing is asked for, which takes 0.9 of the time, even of groups no core's cache holds
        gradient_slab(dy, x, None, dx, own, factors, stream, 0)


@block
def _put_terms(
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    channel: int,
    result: Any,
    out: Any,
    factors: Any,
) -> None:
    """Moments of groups (4, groups) and sums of their channels → factors (4, channels), sums."""
    groups = result.shape[1]
    size = out.shape[0] // groups
    for j in range(groups):
        n, mean, low = result[0, j], result[1, j], result[2, j]
        r = rsqrt(result[3, j] / n, eps)
        s, t = 0.0, 0.0
        for h in range(j * size, (j + 1) * size):
            own = about_mean(out[h, 0], out[h, 1], low)
            s += gamma[channel + h] * out[h, 0]
            t += gamma[channel + h] * own
            sums[channel + h] += out[h, 0]
            sums[gamma.size + channel + h] += own * r
        b, c = coefficients(1.0, r, n, s, t)[1:]
        for h in range(j * size, (j + 1) * size):
            put_factors(x, dx, mean, low, gamma[channel + h] * r, b, c, factors, h)


@Kernel
def backward_own(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    together: int,
) -> None:
    """dy, x (batch, outer, groups, size, inner) → dx; sums (chunks, 2·channels)."""
    for u in prange(chunks * ((groups + together - 1) // together)):
        _own_unit(
            u,
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            batch,
            outer,
            groups,
            size,
            inner,
            chunks,
            together,
        )
