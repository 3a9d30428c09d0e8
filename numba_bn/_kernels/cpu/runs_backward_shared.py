"""Gradients of batch norm over runs: sums and dx of some channels in one go, while in cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.moments import slab_of
from numba_bn._kernels.cpu.runs_backward import gradient_slab, slab_sums
from numba_bn._kernels.cpu.state import about_mean, coefficients, each_rsqrt, put_factors


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
    onward: int,
    outer: int,
    channels: int,
    inner: int,
    together: int,
) -> None:
    """Unit (slab of channels): its sums → result, then its dx while dy and x are in cache."""
    first = u * together
    slab = slab_of(0, first, together, outer, channels, inner)
    out, factors = np.empty((slab.runs, 2)), np.empty((4, slab.runs))
    slab_sums(dy, x, where, slab, mean, first, 1, out, stream)
    for j in range(slab.runs):
        k, s = first + j, out[j, 0]
        t = about_mean(s, out[j, 1], low[k])
        result[0, k], result[1, k] = s, t
        # once a channel: the divisions take as long as a run of a hundred values
        a, b, c = coefficients(gamma[k], rs[k], count[k], s, t)
        put_factors(x, dx, mean[k], low[k], a, b, c, factors, j)
    gradient_slab(dy, x, where, dx, slab, factors, stream, onward)


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
    onward: int,
    outer: int,
    channels: int,
    inner: int,
    together: int,
) -> None:
    """dy, x (outer, channels, inner) → dx, out (2, channels): Σdy, Σdy·x̂ in its dtype."""
    rs, result = each_rsqrt(m2, count, eps), np.empty(out.shape)
    for u in prange((channels + together - 1) // together):
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
            outer,
            channels,
            inner,
            together,
        )
    for c in range(rs.size):
        out[0, c], out[1, c] = result[0, c], result[1, c] * rs[c]
