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
from numba_bn._kernels.cpu.asking import near, straight
from numba_bn._kernels.cpu.lanes import add, fill, total
from numba_bn._kernels.cpu.memory import nearest, scalar
from numba_bn._kernels.cpu.own import (
    KEPT_BACKWARD,
    clear_sums,
    groups_at_once,
    own_gradients,
    spreads,
)
from numba_bn._kernels.cpu.precision import all_fit, arithmetic
from numba_bn._kernels.cpu.row_blocks import row_products
from numba_bn._kernels.cpu.runs_backward import gradient_runs
from numba_bn._kernels.cpu.state import is_off, spread

_AT_ONCE = 2048  # values of x, to twice as many, taken to each step before the next


@inlined
def _group_sums(
    dy: Any, x: Any, at: int, size: int, inner: int, p: float, kept: Any, k: int, out: Any
) -> None:
    """Group from x[at] about p → kept[:, k]: p, Σ(x-p), Σ(x-p)²; out: Σdy, Σdy·(x-p)."""
    sv, qv = fill(0.0), fill(0.0)
    for h in range(size):
        u, v, g, t = row_products(dy, x, None, at + h * inner, inner, 0, fill(p), fill(0.0), True)
        sv, qv = add(sv, u), add(qv, v)
        out[0, k * size + h], out[1, k * size + h] = total(g), total(t)
    kept[0, k], kept[1, k], kept[2, k] = p, total(sv), total(qv)


@block
def _sums(dy: Any, x: Any, at: int, count: int, size: int, inner: int, kept: Any, out: Any) -> None:
    """Groups from x[at] on → kept: p, Σ(x-p), Σ(x-mean)²; out, per channel: Σdy, Σdy·(x-p)."""
    length = size * inner
    n = float(length)
    for attempt in range(2):
        for k in range(count):
            start = at + k * length
            p = scalar(x, start + length // 2)
            if attempt == 1:
                if not is_off(n, kept[1, k], kept[2, k]):
                    continue
                p = nearest(x, kept[0, k] + kept[1, k] / n)
            _group_sums(dy, x, start, size, inner, p, kept, k, out)
            if attempt == 1:
                kept[2, k] = spread(n, kept[1, k], kept[2, k])
        if attempt == 1 or not spreads(kept, count, n):
            break


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
    channel: int,
    kept: Any,
    out: Any,
    factors: Any,
) -> None:
    """Groups side by side from x[at] on, as many at a time as ``kept`` holds → dx."""
    carry, some, length = arithmetic(x, dx), kept.shape[1], size * inner
    for first in range(0, groups, some):
        count, start = min(some, groups - first), at + first * length
        _sums(dy, x, start, count, size, inner, kept, out)
        c, n = (channel + first * size) % gamma.size, float(length)
        own_gradients(x, dx, gamma, c, eps, sums, n, kept, count, size, out, factors)
        joined, more = first > 0, first + count < groups
        runs, way = count * size, straight(near(x))
        fit = not stream and all_fit(x, dx, factors, 0, runs)
        carry = gradient_runs(
            dy, x, None, dx, start, runs, inner, way, factors, fit, stream, carry, joined, more
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
    """Unit (chunk of the batch, slab of groups) → dx, its share of sums."""
    slabs, length = (groups + slab - 1) // slab, size * inner
    chunk, g = u // slabs, u % slabs * slab
    b0, b1, own = batch * chunk // chunks, batch * (chunk + 1) // chunks, min(slab, groups - g)
    part = sums[chunk]
    clear_sums(part, g * size, own * size)
    if slabs == 1:  # samples side by side
        own, b1 = groups * (b1 - b0), b0 + 1
    some = min(groups_at_once(_AT_ONCE, length), own)
    kept, out = np.empty((KEPT_BACKWARD, some)), np.empty((2, some * size))
    factors = np.empty((4, some * size))
    for b in range(b0, b1):
        _own_groups(
            dy,
            x,
            dx,
            gamma,
            eps,
            part,
            stream,
            (b * groups + g) * length,
            own,
            size,
            inner,
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
    """dy, x (batch, groups, size, inner) → dx; sums (chunks, 2·channels)."""
    for u in prange(chunks * ((groups + slab - 1) // slab)):
        _own_unit(u, dy, x, dx, gamma, eps, sums, stream, batch, groups, size, inner, chunks, slab)
