"""Instance and group norm of samples side by side, each group's values in one run.

x is flat, (groups, length); a group holds ``size`` channels of equal length, and parameters repeat
after ``period`` groups. Short runs are taken to each step many at a time: then none waits for what
the one before it needs long for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.loops import apply_values
from numba_bn._kernels.cpu.memory import near
from numba_bn._kernels.cpu.precision import arithmetic
from numba_bn._kernels.cpu.rows import AT_ONCE, row_moments
from numba_bn._kernels.cpu.state import STATE, affine, finish, rsqrt


@block
def _factors(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    result: Any,
    start: int,
    count: int,
    length: int,
    size: int,
    period: int,
    kept: Any,
    factors: Any,
) -> None:
    """Sums kept of ``count`` groups from the ``start``-th on → result, factors (3, channels)."""
    g, asked = start % period, result.size > 0
    for k in range(count):
        n, mean, low, m2 = finish(float(length), kept[k, 0], kept[k, 1], kept[k, 2])
        if asked:
            t = start + k
            result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
        r = rsqrt(m2 / n, eps)
        for h in range(size):
            c, at = g * size + h, k * size + h
            factors[0, at], factors[1, at], factors[2, at] = affine(
                x, y, mean, low, r, gamma[c], beta[c]
            )
        g = g + 1 if g + 1 < period else 0


@block
def _forward_groups(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    start: int,
    last: int,
    length: int,
    size: int,
    period: int,
    states: Any,
    kept: Any,
    factors: Any,
) -> None:
    """Groups [start, last), as many at a time as ``kept`` holds → y, result."""
    carry, some, inner = arithmetic(x, y), kept.shape[0], length // size
    for first in range(start, last, some):
        count = min(some, last - first)
        for k in range(count):
            row_moments(x, (first + k) * length, length, states, kept, k)
        _factors(x, y, gamma, beta, eps, result, first, count, length, size, period, kept, factors)
        runs = count * size
        for k in range(runs):
            m, a, b = factors[0, k], factors[1, k], factors[2, k]
            at = first * length + k * inner
            joined, more = k > 0 or first > start, k + 1 < runs or first + count < last
            carry = apply_values(
                x, y, residual, at, inner, near(x), m, a, b, relu, stream, carry, joined, more
            )


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    groups: int,
    length: int,
    size: int,
    period: int,
    slab: int,
) -> None:
    start, last = u * slab, min((u + 1) * slab, groups)
    some = max(AT_ONCE // length, 1)
    states, kept, factors = np.empty((1, STATE)), np.empty((some, 3)), np.empty((3, some * size))
    _forward_groups(
        x,
        y,
        residual,
        gamma,
        beta,
        eps,
        relu,
        stream,
        result,
        start,
        last,
        length,
        size,
        period,
        states,
        kept,
        factors,
    )


@Kernel
def forward(
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    groups: int,
    length: int,
    size: int,
    period: int,
    slab: int,
) -> None:
    """x (groups, length) → y by its own statistics; result (4, groups), or (4, 0) if not asked.

    ``where`` is None: it is here as the other forwards have it.
    """
    for u in prange((groups + slab - 1) // slab):
        _forward_unit(
            u,
            x,
            y,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            groups,
            length,
            size,
            period,
            slab,
        )
