"""Statistics on their way: a state is (count, pivot, Σ(x - pivot), Σ(x - mean)²).

Blocks of values are summed about a pivot, one of their own values, and merge by Chan's formula in
a fixed order. Sums stay relative to a pivot all the way, so that a large mean costs no digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels.cpu.lanes import (
    add,
    div,
    head,
    mul,
    positive,
    remainder,
    select,
    set_bits,
    sub,
)
from numba_bn._kernels.cpu.memory import load_if, store_if
from numba_bn._kernels.cpu.precision import centre, gradient_terms

STATE = 4
DIGITS = 256.0  # (mean - pivot)²/variance above which a block is summed again, about its mean


@inlined
def is_off(n: float, s: float, m2: float) -> bool:
    """Σ(x-p), Σ(x-mean)² → whether p was too far from the mean for a good Σ(x-mean)²."""
    return s * s > DIGITS * n * m2


@inlined
def is_far(n: float, s: float, q: float) -> bool:
    """Σ(x-p), Σ(x-p)² → the same."""
    return bool(is_off(n, s, q - s * (s / n)))


@block
def clear(states: Any) -> None:
    """(STATE, groups), or sums of them → nothing taken yet."""
    for i in range(states.shape[0]):
        for g in range(states.shape[1]):
            states[i, g] = 0.0


@block
def merge(states: Any, at: int, n: float, p: float, s: float, m2: float) -> None:
    """Take (n, p, s, m2) into states[at], (…, 4)."""
    n0, p0, s0, m0 = states[at, 0], states[at, 1], states[at, 2], states[at, 3]
    if n == 0.0:
        return
    if n0 == 0.0:
        states[at, 0], states[at, 1], states[at, 2], states[at, 3] = n, p, s, m2
        return
    s += n * (p - p0)
    apart = s / n - s0 / n0
    states[at, 0] = n0 + n
    states[at, 2] = s0 + s
    states[at, 3] = m0 + m2 + apart * apart * (n0 * n / (n0 + n))


@block
def merge_each(states: Any, counts: Any, pivots: Any, sums: Any, squares: Any) -> None:
    """Take n, p, s, m2 of each group, (groups,), into states (STATE, groups): as `merge` does.

    In lanes, as four divisions a group take longer than all else that is done for it.
    """
    n0s, p0s, s0s, m0s = states[0], states[1], states[2], states[3]
    for k in range(0, counts.size, 16):
        part = head(counts.size - k)
        n, p = load_if(counts, k, part), load_if(pivots, k, part)
        s, m = load_if(sums, k, part), load_if(squares, k, part)
        n0, s0, m0 = load_if(n0s, k, part), load_if(s0s, k, part), load_if(m0s, k, part)
        some, more = positive(n0), positive(n)
        if set_bits(some) > 0:  # else all is first: to divide took half of the time of statistics
            p0, both = load_if(p0s, k, part), add(n0, n)
            moved = add(s, mul(n, sub(p, p0)))
            apart = sub(div(moved, n), div(s0, n0))
            joined = add(add(m0, m), mul(mul(apart, apart), div(mul(n0, n), both)))
            p, s, m = select(some, p0, p), select(some, add(s0, moved), s), select(some, joined, m)
        store_if(n0s, k, add(n0, n), part)
        store_if(p0s, k, p, part)
        store_if(s0s, k, select(more, s, s0), part)
        store_if(m0s, k, select(more, m, m0), part)


@inlined
def spread(n: float, s: float, q: float) -> float:
    """Σ(x-p), Σ(x-p)² → Σ(x-mean)², never negative, infinite where only the squares overflow."""
    m2 = q - s * (s / n)
    if m2 != m2 and s - s == 0.0 and q == q:
        return math.inf
    return 0.0 if m2 < 0.0 else m2


@inlined
def take(states: Any, at: int, n: float, p: float, s: float, q: float) -> None:
    """Take the sums of a block about p into states[at]."""
    if n > 0.0:
        merge(states, at, n, p, s, spread(n, s, q))


@inlined
def finish(n: float, p: float, s: float, m2: float) -> Any:
    """A state → count, mean, what the mean lost to rounding, Σ(x - mean)²."""
    if n == 0.0 or m2 != m2:
        return n, math.nan, 0.0, (0.0 if n == 0.0 else m2)
    step = s / n
    rest = remainder(s, step, n) / n
    high = p + step
    back = high - p
    low = (p - (high - back)) + (step - back) + rest
    mean = high + low
    if mean - mean != 0.0:
        return n, mean, 0.0, m2
    return n, mean, (high - mean) + low, m2


@inlined
def conclude(states: Any, j: int, result: Any, at: int) -> None:
    """states[j] → result[:, at]: count, mean, low, m2."""
    n, mean, low, m2 = finish(states[j, 0], states[j, 1], states[j, 2], states[j, 3])
    result[0, at], result[1, at], result[2, at], result[3, at] = n, mean, low, m2


@block
def conclude_each(count: Any, mean: Any, low: Any, m2: Any) -> None:
    """The same of states in four vectors, in their place."""
    for k in range(count.size):
        count[k], mean[k], low[k], m2[k] = finish(count[k], mean[k], low[k], m2[k])


@block
def conclude_parts(parts: Any, result: Any) -> None:
    """States of parts (chunks · STATE, groups), in order → result: count, mean, low, m2."""
    clear(result)
    for i in range(0, parts.shape[0], STATE):
        merge_each(result, parts[i], parts[i + 1], parts[i + 2], parts[i + 3])
    conclude_each(result[0], result[1], result[2], result[3])


@block
def add_parts(parts: Any, result: Any) -> None:
    """Two sums of each part (chunks · 2, channels), in order → result (2, channels)."""
    clear(result)
    for i in range(parts.shape[0]):
        part, sums = parts[i], result[i % 2]
        for k in range(sums.size):
            sums[k] += part[k]


@inlined
def rsqrt(var: float, eps: float) -> float:
    """1/√(var + eps), and 0 where that is 1/0: a constant group is normalized to zero."""
    v = var + eps
    return 0.0 if v == 0.0 else 1.0 / math.sqrt(v)


@unit
def each_rsqrt(m2: Any, count: Any, eps: float) -> Any:
    """The same of the variances m2/count, (channels,)."""
    rs = np.empty(m2.size)
    for k in range(m2.size):
        rs[k] = rsqrt(m2[k] / (1.0 if count[k] < 1.0 else count[k]), eps)
    return rs


@inlined
def coefficients(gamma: float, r: float, n: float, s: float, t: float) -> Any:
    """Σdy, Σdy·(x-mean) of n values → a, b, c of dx = dy·a + (x-mean)·b + c."""
    a = gamma * r
    return a, -a * (r * t) * r / n, -a * s / n  # r cubed need not fit float64


@inlined
def about_mean(s: float, t: float, low: float) -> float:
    """Σdy, Σdy·(x-m) → Σdy·(x-mean), ``low`` being what m, the mean, lost to rounding.

    What is infinite stays so.
    """
    lost = low * s
    return t - lost if lost - lost == 0.0 else t


@inlined
def affine(x: Any, y: Any, mean: float, low: float, r: float, gamma: float, beta: float) -> Any:
    """→ m, a, b of y = (x - m)·a + b.

    What the mean lost to rounding goes into the shift: x - m itself is exact or nearly so. Where it
    lost nothing, an infinite factor spoils no shift.
    """
    m, lost = centre(x, y, mean, low)
    a = gamma * r
    return m, a, (beta if lost == 0.0 else beta - lost * a)


@inlined
def put_factors(
    x: Any, dx: Any, mean: float, low: float, a: float, b: float, c: float, factors: Any, k: int
) -> None:
    """→ factors[:, k]: m, a, b, c of dx = dy·a + (x - m)·b + c."""
    m, a, b, c = gradient_terms(x, dx, mean, low, a, b, c)
    factors[0, k], factors[1, k], factors[2, k], factors[3, k] = m, a, b, c


@unit
def centred(x: Any, dx: Any, mean: Any, low: Any, terms: Any) -> Any:
    """Mean, low, terms a, b, c of dx = dy·a + (x - mean)·b + c → factors (4, channels)."""
    a, b, c, factors = terms[0], terms[1], terms[2], np.empty((4, mean.size))
    for k in range(mean.size):
        put_factors(x, dx, mean[k], low[k], a[k], b[k], c[k], factors, k)
    return factors
