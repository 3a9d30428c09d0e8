"""Norms over runs with a scale and a shift per run: channels-first data, planes of some size.

x is flat, (batch, outer, groups, length); a run of ``length`` holds ``size`` channels of equal
length; channel (g, k) has parameters number (g % period)·size + k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.loops import apply_values
from numba_bn._kernels.cpu.memory import near
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of, slab_moments
from numba_bn._kernels.cpu.own import channel_factors
from numba_bn._kernels.cpu.precision import arithmetic
from numba_bn._kernels.cpu.state import STATE, affine, conclude, rsqrt


@inlined
def apply_run(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    e0: int,
    e1: int,
    first: int,
    inner: int,
    ahead: int,
    mean: float,
    low: float,
    r: float,
    gamma: Any,
    beta: Any,
    relu: bool,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Values [e0, e1) of the run at x[at], whose first channel is ``first`` → y."""
    while e0 < e1:
        k = e0 // inner
        stop = min((k + 1) * inner, e1)
        m, a, b = affine(x, y, mean, low, r, gamma[first + k], beta[first + k])
        go_on = more or stop < e1
        carry = apply_values(
            x, y, residual, at + e0, stop - e0, ahead, m, a, b, relu, stream, carry, joined, go_on
        )
        e0, joined = stop, True
    return carry


@block
def _apply_slab(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    gamma: Any,
    beta: Any,
    relu: bool,
    stream: bool,
    onward: int,
    result: Any,
    first: int,
    rs: Any,
    outer: int,
    stride: int,
    length: int,
    size: int,
    g: int,
    period: int,
) -> None:
    """Neighbouring groups from x[at] and the g-th on, moments in result[:, first :] → y."""
    wide, carry = rs.size, arithmetic(x, y)
    for back in range(outer):
        o = outer - 1 - back
        start, ahead = at + o * stride, wide * length if o < onward else 0
        for j in range(wide):
            carry = apply_run(
                x,
                y,
                residual,
                start + j * length,
                0,
                length,
                ((g + j) % period) * size,
                length // size,
                ahead,
                result[1, first + j],
                result[2, first + j],
                rs[j],
                gamma,
                beta,
                relu,
                stream,
                carry,
                j > 0,
                j + 1 < wide,
            )


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    onward: int,
    result: Any,
    outer: int,
    groups: int,
    length: int,
    size: int,
    period: int,
    slab: int,
) -> None:
    """Unit (batch, slab of groups): its moments, then its y while x is still in cache."""
    slabs = (groups + slab - 1) // slab
    b, g = u // slabs, (u % slabs) * slab
    wide = min(slab, groups - g)
    stride = groups * length
    at = b * outer * stride + g * length
    states = np.empty((wide, STATE))
    slab_moments(x, where, at, stride, outer, length, wide, states)
    rs, first = np.empty(wide), b * groups + g
    if result.size == 0:
        result, first = np.empty((STATE, wide)), 0
    for j in range(wide):
        t = first + j
        conclude(states, j, result, t)
        rs[j] = rsqrt(result[3, t] / result[0, t], eps)
    _apply_slab(
        x,
        y,
        residual,
        at,
        gamma,
        beta,
        relu,
        stream,
        onward,
        result,
        first,
        rs,
        outer,
        stride,
        length,
        size,
        g,
        period,
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
    onward: int,
    result: Any,
    batch: int,
    outer: int,
    groups: int,
    length: int,
    size: int,
    period: int,
    slab: int,
) -> None:
    """x → y by its own statistics; result (4, batch·groups), or (4, 0) if nobody asks."""
    for u in prange(batch * ((groups + slab - 1) // slab)):
        _forward_unit(
            u,
            x,
            y,
            where,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            onward,
            result,
            outer,
            groups,
            length,
            size,
            period,
            slab,
        )


@block
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    relu: bool,
    stream: bool,
    runs: int,
    outer: int,
    channels: int,
    inner: int,
) -> None:
    together, pieces = pieces_of(runs, inner)[1:]
    first = u // pieces * together
    e0 = u % pieces * BLOCK if pieces > 1 else 0
    n = min(BLOCK, inner - e0) if pieces > 1 else inner
    last, carry = min(first + together, runs), arithmetic(x, y)
    for run in range(first, last):
        t = run // (outer * channels) * channels + run % channels
        m, f, s = factors[0, t], factors[1, t], factors[2, t]
        at, joined, more = run * inner + e0, run > first, run + 1 < last
        carry = apply_values(
            x, y, residual, at, n, near(x), m, f, s, relu, stream, carry, joined, more
        )


@Kernel
def normalize(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    low: Any,
    var: Any,
    eps: float,
    relu: bool,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    channels: int,
    inner: int,
) -> None:
    """x, per (batch·groups,) mean, low, var → y; from the end, where x may still be cached."""
    factors = channel_factors(x, y, gamma, beta, mean, low, var, eps, channels // groups)
    runs = batch * outer * channels
    units = pieces_of(runs, inner)[0]
    for u in prange(units):
        _normalize_unit(
            units - 1 - u,
            x,
            y,
            residual,
            factors,
            relu,
            stream,
            runs,
            outer,
            channels,
            inner,
        )
