"""Gradients of instance and group norm: the backward of ``runs_own``, of groups of a block at most.

x is flat, (batch, groups, length); a group holds ``size`` channels of equal length. One pass over
dy and x gives all sums, about one of x's values; dx follows while both are still in the L1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.gradient_loops import gradient_values
from numba_bn._kernels.cpu.lanes import add, fill, total
from numba_bn._kernels.cpu.memory import near, nearest, scalar
from numba_bn._kernels.cpu.precision import arithmetic
from numba_bn._kernels.cpu.row_loops import row_sums
from numba_bn._kernels.cpu.state import coefficients, finish, is_far, put_factors, rsqrt, spread

_AT_ONCE = 2048  # values of x taken to each step before the next


@inlined
def _group_sums(
    dy: Any, x: Any, at: int, size: int, inner: int, kept: Any, k: int, out: Any
) -> None:
    """Group from x[at] → kept[k]: a pivot, Σ(x-p), Σ(x-mean)²; out per channel: Σdy, Σdy·(x-p)."""
    n = size * inner
    p, s, q = scalar(x, at + n // 2), 0.0, 0.0
    for attempt in range(2):
        sv, qv = fill(0.0), fill(0.0)
        for h in range(size):
            u, v, g, t = row_sums(dy, x, None, at + h * inner, inner, 0, fill(p))
            sv, qv = add(sv, u), add(qv, v)
            out[0, k * size + h], out[1, k * size + h] = total(g), total(t)
        s, q = total(sv), total(qv)
        if attempt == 1 or not is_far(float(n), s, q):
            break
        p = nearest(x, p + s / n)
    kept[k, 0], kept[k, 1], kept[k, 2] = p, s, spread(float(n), s, q)


@block
def _factors(
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    into: int,
    channel: int,
    count: int,
    size: int,
    length: int,
    kept: Any,
    out: Any,
    factors: Any,
) -> None:
    """Sums of ``count`` groups → factors (4, channels); their channels' shares to sums[:, into]."""
    for k in range(count):
        n, mean, low, m2 = finish(float(length), kept[k, 0], kept[k, 1], kept[k, 2])
        apart, r = (mean - kept[k, 0]) + low, rsqrt(m2 / n, eps)
        s, t = 0.0, 0.0
        for h in range(k * size, (k + 1) * size):
            g, own = gamma[channel + h], out[1, h] - apart * out[0, h]
            s += g * out[0, h]
            t += g * own
            sums[0, into + h] += out[0, h]
            sums[1, into + h] += own * r
        b, c = coefficients(1.0, r, n, s, t)[1:]
        for h in range(k * size, (k + 1) * size):
            put_factors(x, dx, mean, gamma[channel + h] * r, b, c, factors, h)


@block
def _own_groups(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    at: int,
    groups: int,
    size: int,
    inner: int,
    into: int,
    channel: int,
    kept: Any,
    out: Any,
    factors: Any,
) -> None:
    """Neighbouring groups of a sample from x[at], as many at a time as ``kept`` holds → dx."""
    carry, some, length = arithmetic(x, dx), kept.shape[0], size * inner
    for first in range(0, groups, some):
        count, h = min(some, groups - first), first * size
        for k in range(count):
            _group_sums(dy, x, at + (first + k) * length, size, inner, kept, k, out)
        _factors(
            x,
            dx,
            gamma,
            eps,
            sums,
            into + h,
            channel + h,
            count,
            size,
            length,
            kept,
            out,
            factors,
        )
        runs = count * size
        for k in range(runs):
            m, a, b, c = factors[0, k], factors[1, k], factors[2, k], factors[3, k]
            i, joined, more = at + (h + k) * inner, h + k > 0, h + k + 1 < groups * size
            carry = gradient_values(
                dy, x, None, dx, i, inner, near(x), m, a, b, c, stream, carry, joined, more
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
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    slab: int,
) -> None:
    """Unit (chunk of the batch, slab of groups) → dx, its share of sums (2, chunks·channels)."""
    slabs, length, channels = (groups + slab - 1) // slab, size * inner, groups * size
    chunk, g = u // slabs, u % slabs * slab
    some = max(_AT_ONCE // length, 1)
    kept, out, factors = np.empty((some, 3)), np.empty((2, some * size)), np.empty((4, some * size))
    for b in range(batch * chunk // chunks, batch * (chunk + 1) // chunks):
        _own_groups(
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            (b * groups + g) * length,
            min(slab, groups - g),
            size,
            inner,
            chunk * channels + g * size,
            g * size,
            kept,
            out,
            factors,
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
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    slab: int,
) -> None:
    """dy, x (batch, groups, size, inner) → dx; sums (2, chunks·channels), zero before."""
    for u in prange(chunks * ((groups + slab - 1) // slab)):
        _own_unit(u, dy, x, dx, gamma, eps, sums, stream, batch, groups, size, inner, chunks, slab)
