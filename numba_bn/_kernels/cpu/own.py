"""Many groups at a time: from their sums to what their channels are scaled and shifted by.

``kept`` has a row for each quantity and a column for each group, in the order of memory: samples
side by side, whose parameters are the same. The loops run over groups or over channels and none
waits for another's end, so that LLVM makes vectors of them: one small group after the other, the
roots and divisions would take longer than the values do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels.cpu.precision import gradient_terms
from numba_bn._kernels.cpu.state import (
    affine,
    coefficients,
    finish,
    is_off,
    rsqrt,
    spread,
)

KEPT, KEPT_BACKWARD = 3, 4  # the backward also keeps what means lost to rounding


@inlined
def groups_at_once(values: int, length: int) -> int:
    """Values, those of a group → groups: whole sixteens, up to twice the values, or fewer.

    Of short groups that takes 0.95 to 0.98 of the time; of longer ones more values leave the L1.
    """
    some = max(values // length, 1)
    whole = (some + 15) // 16 * 16
    return whole if whole * length <= 2 * values else some


@block
def spreads(kept: Any, count: int, n: float) -> bool:
    """Σ(x-p)² in kept[2] → Σ(x-mean)²; tell whether some pivot was too far from the mean."""
    far = 0
    for k in range(count):
        kept[2, k] = spread(n, kept[1, k], kept[2, k])
        far += 1 if is_off(n, kept[1, k], kept[2, k]) else 0
    return far > 0


@block
def standards(kept: Any, count: int, n: float, eps: float, result: Any, t: int) -> None:
    """kept: p, Σ(x-p), Σ(x-mean)² → mean, low, 1/std; result[:, t :]: count, mean, low, m2."""
    for k in range(count):
        _, kept[0, k], kept[1, k], kept[2, k] = finish(n, kept[0, k], kept[1, k], kept[2, k])
    if result.size > 0:
        here = slice(t, t + count)
        counts, means, lows, m2 = result[0, here], result[1, here], result[2, here], result[3, here]
        for k in range(count):
            counts[k], means[k], lows[k], m2[k] = n, kept[0, k], kept[1, k], kept[2, k]
    for k in range(count):
        kept[2, k] = rsqrt(kept[2, k] / n, eps)


@block
def own_factors(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    channel: int,
    kept: Any,
    count: int,
    size: int,
    factors: Any,
) -> None:
    """Mean, low, 1/std of groups → factors (3, channels): m, a, b of y = (x - m)·a + b."""
    if size == 1:
        m, a, b = factors[0], factors[1], factors[2]
        _repeat(gamma, channel, a[:count])
        _repeat(beta, channel, b[:count])
        means, lows, rs = kept[0], kept[1], kept[2]
        for k in range(count):
            m[k], a[k], b[k] = affine(x, y, means[k], lows[k], rs[k], a[k], b[k])
        return
    for k in range(count):
        here, there = slice(k * size, (k + 1) * size), slice(channel, channel + size)
        m, a, b = factors[0, here], factors[1, here], factors[2, here]
        g, shift = gamma[there], beta[there]
        mean, low, r = kept[0, k], kept[1, k], kept[2, k]
        for h in range(size):
            m[h], a[h], b[h] = affine(x, y, mean, low, r, g[h], shift[h])
        channel = channel + size if channel + size < gamma.size else 0


@unit
def channel_factors(
    x: Any, y: Any, gamma: Any, beta: Any, mean: Any, var: Any, moments: Any, eps: float, size: int
) -> Any:
    """Mean, var (groups,) → factors (3, channels) of the same, ``size`` a group.

    Or it is of moments (4, groups), count, mean, low, m2: to divide them here and not with NumPy,
    whose code the sums have driven from the caches, takes a tenth off training on 2 MB.
    """
    count = 0  # no else below: of an argument that is None, Numba leaves out what is not for it
    if mean is not None:
        count = mean.size
    if moments is not None:
        count = moments.shape[1]
    kept, factors = np.empty((KEPT, count)), np.empty((3, count * size))
    if mean is not None:
        for k in range(count):
            kept[0, k], kept[1, k], kept[2, k] = mean[k], 0.0, rsqrt(var[k], eps)
    if moments is not None:
        counts, means, lows, m2 = moments[0], moments[1], moments[2], moments[3]
        for k in range(count):
            v = m2[k] / (1.0 if counts[k] < 1.0 else counts[k])
            kept[0, k], kept[1, k], kept[2, k] = means[k], lows[k], rsqrt(v, eps)
    own_factors(x, y, gamma, beta, 0, kept, count, size, factors)
    return factors


@block
def clear_sums(sums: Any, channel: int, count: int) -> None:
    """Sums of one part (2 · channels,): nothing yet of so many channels."""
    half = sums.size // 2
    for k in range(channel, channel + count):
        sums[k], sums[half + k] = 0.0, 0.0


@block
def own_gradients(
    x: Any,
    dx: Any,
    gamma: Any,
    channel: int,
    eps: float,
    sums: Any,
    n: float,
    kept: Any,
    count: int,
    size: int,
    out: Any,
    factors: Any,
) -> None:
    """kept: p, Σ(x-p), Σ(x-mean)², out per channel: Σdy, Σdy·(x-p) → factors (4, channels).

    They are m, a, b, c of dx = dy·a + (x - m)·b + c; sums, of one part, take Σdy and Σdy·x̂.
    """
    for k in range(count):
        p = kept[0, k]
        _, mean, low, m2 = finish(n, p, kept[1, k], kept[2, k])
        kept[0, k], kept[1, k], kept[2, k] = mean, (mean - p) + low, rsqrt(m2 / n, eps)
        kept[3, k] = low
    if size == 1:
        _repeat(gamma, channel, factors[1, :count])
        _each_gradients(x, dx, n, kept, out, factors, count)
        _add_repeated(out, count, channel, sums)
        return
    for k in range(count):
        here, there = slice(k * size, (k + 1) * size), slice(channel, channel + size)
        g, s, t = gamma[there], out[0, here], out[1, here]
        dbeta, dgamma = sums[there], sums[gamma.size :][there]
        mean, apart, r, low = kept[0, k], kept[1, k], kept[2, k], kept[3, k]
        _group_gradients(x, dx, g, s, t, dbeta, dgamma, n, mean, low, apart, r, factors, k * size)
        channel = channel + size if channel + size < gamma.size else 0


@block
def _repeat(values: Any, first: int, into: Any) -> None:
    """values from ``first`` on, and anew after the last → into."""
    at = 0
    while at < into.size:
        some = min(into.size - at, values.size - first)
        here, there = into[at : at + some], values[first : first + some]
        for k in range(some):
            here[k] = there[k]
        at, first = at + some, 0


@block
def _add_repeated(out: Any, count: int, first: int, sums: Any) -> None:
    """out (2, count), of channels from ``first`` on, over and over → onto sums (2 · channels,)."""
    channels, at = sums.size // 2, 0
    while at < count:
        some = min(count - at, channels - first)
        here = slice(at, at + some)
        s, t, dbeta, dgamma = out[0, here], out[1, here], sums[first:], sums[channels + first :]
        for k in range(some):
            dbeta[k] += s[k]
            dgamma[k] += t[k]
        at, first = at + some, 0


@block
def _each_gradients(
    x: Any, dx: Any, n: float, kept: Any, out: Any, factors: Any, count: int
) -> None:
    """`own_gradients` of groups of one channel, whose gamma is factors[1]; out[1] becomes Σdy·x̂."""
    means, aparts, rs, lows, s, t = kept[0], kept[1], kept[2], kept[3], out[0], out[1]
    m, a, b, c = factors[0], factors[1], factors[2], factors[3]
    for k in range(count):
        own, r = t[k] - aparts[k] * s[k], rs[k]
        t[k] = own * r
        b[k], c[k] = coefficients(1.0, r, n, a[k] * s[k], a[k] * own)[1:]
    for k in range(count):  # of fewer arrays at once LLVM makes vectors
        bk, ck = b[k], c[k]
        m[k], a[k], b[k], c[k] = gradient_terms(x, dx, means[k], lows[k], a[k] * rs[k], bk, ck)


@block
def _group_gradients(
    x: Any,
    dx: Any,
    gamma: Any,
    s: Any,
    t: Any,
    dbeta: Any,
    dgamma: Any,
    n: float,
    mean: float,
    low: float,
    apart: float,
    r: float,
    factors: Any,
    at: int,
) -> None:
    """The same of one group of several channels: what they have in common comes of all of them."""
    sum_g, sum_t = 0.0, 0.0
    for h in range(gamma.size):
        own = t[h] - apart * s[h]
        sum_g += gamma[h] * s[h]
        sum_t += gamma[h] * own
        dbeta[h] += s[h]
        dgamma[h] += own * r
    b, c = coefficients(1.0, r, n, sum_g, sum_t)[1:]
    here = slice(at, at + gamma.size)
    ms, als, bs, cs = factors[0, here], factors[1, here], factors[2, here], factors[3, here]
    for h in range(gamma.size):
        ms[h], als[h], bs[h], cs[h] = gradient_terms(x, dx, mean, low, gamma[h] * r, b, c)
