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
from numba_bn._kernels.cpu.asking import Way, by_pages, straight
from numba_bn._kernels.cpu.lanes import fill_as
from numba_bn._kernels.cpu.loops import apply_values, run_apply
from numba_bn._kernels.cpu.moments import BLOCK, Slab, channels_of, pieces_of, slab_moments, slab_of
from numba_bn._kernels.cpu.own import KEPT, channel_factors, own_factors
from numba_bn._kernels.cpu.precision import all_fit, arithmetic
from numba_bn._kernels.cpu.state import STATE, finish, rsqrt


@inlined
def apply_runs(
    x: Any,
    y: Any,
    residual: Any,
    at: int,
    runs: int,
    inner: int,
    way: Way,
    factors: Any,
    fit: bool,
    relu: bool,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Runs side by side from x[at] on, by factors (3, runs) → y.

    ``fit`` tells that the arithmetic of x and y holds them all, and that nothing is streamed: not
    to ask it of each takes 0.85 to 0.95 of the time if runs are short.
    """
    if fit:
        for k in range(runs):
            mv, av = fill_as(carry, factors[0, k]), fill_as(carry, factors[1, k])
            bv, i = fill_as(carry, factors[2, k]), at + k * inner
            run_apply(x, y, residual, i, inner, way, mv, av, bv, relu, False, carry, False, False)
        return carry
    for k in range(runs):
        m, a, b = factors[0, k], factors[1, k], factors[2, k]
        i, before, after = at + k * inner, joined or k > 0, more or k + 1 < runs
        carry = apply_values(
            x, y, residual, i, inner, way, m, a, b, relu, stream, carry, before, after
        )
    return carry


@block
def _apply_slab(
    x: Any,
    y: Any,
    residual: Any,
    slab: Slab,
    factors: Any,
    relu: bool,
    stream: bool,
    onward: int,
) -> None:
    """A slab of channels, by factors (3, channels) → y; from the end."""
    at, stride, rows, inner, runs = slab
    carry, fit = arithmetic(x, y), not stream and all_fit(x, y, factors, 0, runs)
    for back in range(rows):
        o = rows - 1 - back
        i, way = at + o * stride, straight(runs * inner if o < onward else 0)
        carry = apply_runs(
            x, y, residual, i, runs, inner, way, factors, fit, relu, stream, carry, False, False
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
    together: int,
) -> None:
    """Unit (batch, slab of groups): its moments, then its y while x is still in cache."""
    slabs = (groups + together - 1) // together
    b, g = u // slabs, (u % slabs) * together
    slab = slab_of(b, g, together, outer, groups, length)
    wide = slab.runs
    states = np.empty((wide, STATE))
    slab_moments(x, where, slab, states, stream)
    kept = np.empty((KEPT, wide))
    for j in range(wide):
        n, mean, low, m2 = finish(states[j, 0], states[j, 1], states[j, 2], states[j, 3])
        kept[0, j], kept[1, j], kept[2, j] = mean, low, rsqrt(m2 / n, eps)
        if result.size > 0:
            t = b * groups + g + j
            result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
    # once a channel: divisions and roots take as long as a run of a hundred values
    factors = np.empty((3, wide * size))
    own_factors(x, y, gamma, beta, g % period * size, kept, wide, size, factors)
    _apply_slab(x, y, residual, channels_of(slab, size), factors, relu, stream, onward)


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
    together: int,
) -> None:
    """x → y by its own statistics; result (4, batch·groups), or (4, 0) if nobody asks."""
    for u in prange(batch * ((groups + together - 1) // together)):
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
            together,
        )


@block
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    factors: Any,
    fit: bool,
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
    run, last, carry = first, min(first + together, runs), arithmetic(x, y)
    row, k = first // channels, first % channels
    size = (last - first - 1) * inner + n
    way = by_pages(x, stream, first * inner + e0, size, -2 * size)
    while run < last:  # to divide for each run takes up to a fifth of the time
        t, count = row // outer * channels + k, min(channels - k, last - run)
        here, at = factors[:, t : t + count], run * inner + e0
        joined, more = run > first, run + count < last
        carry = apply_runs(
            x, y, residual, at, count, n, way, here, fit, relu, stream, carry, joined, more
        )
        run, row, k = run + count, row + 1, 0


@Kernel
def normalize(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    moments: Any,
    eps: float,
    relu: bool,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    channels: int,
    inner: int,
) -> None:
    """x, by `channel_factors` of statistics → y; from the end, where x may still be cached."""
    factors = channel_factors(x, y, gamma, beta, mean, var, moments, eps, channels // groups)
    fit = not stream and all_fit(x, y, factors, 0, factors.shape[1])
    runs = batch * outer * channels
    units = pieces_of(runs, inner)[0]
    for u in prange(units):
        _normalize_unit(
            units - 1 - u,
            x,
            y,
            residual,
            factors,
            fit,
            relu,
            stream,
            runs,
            outer,
            channels,
            inner,
        )
