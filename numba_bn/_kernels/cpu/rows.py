"""Norms over rows with a scale and a shift per value: layer and RMS norm, flat group norm.

x is flat, (rows, length), rows = batch · groups; gamma and beta have groups · length values, those
of a row begin at (row % groups) · length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inline, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.lanes import fill, fill_as, total
from numba_bn._kernels.cpu.loops import pick_up, put_down, run_sums
from numba_bn._kernels.cpu.memory import near, nearest, scalar
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of, slab_moments
from numba_bn._kernels.cpu.precision import arithmetic, centre, fits
from numba_bn._kernels.cpu.row_loops import row_apply, row_apply_wide
from numba_bn._kernels.cpu.state import STATE, finish, is_far, rsqrt, spread

AT_ONCE = 4096  # values of rows taken to each step before the next: short ones need not wait


@inline
def standard(n: float, mean: float, low: float, m2: float, eps: float, centred: bool) -> Any:
    """Count, mean, low, m2 → mean to subtract, low, 1/std; RMS norm has the mean held at zero."""
    if centred:
        return mean, low, rsqrt(m2 / n, eps)
    return 0.0, 0.0, rsqrt(m2 / n + mean * mean, eps)


@inlined
def row_moments(x: Any, at: int, n: int, states: Any, kept: Any, k: int) -> None:
    """Row x[at : at + n] → kept[k]: a pivot, Σ(x-p), Σ(x-mean)²."""
    if n > BLOCK:
        slab_moments(x, None, at, n, 1, n, 1, states)
        kept[k, 0], kept[k, 1], kept[k, 2] = states[0, 1], states[0, 2], states[0, 3]
        return
    p, s, q = scalar(x, at + n // 2), 0.0, 0.0
    for attempt in range(2):
        sv, qv = run_sums(x, None, at, n, near(x), fill(p), fill(0.0), fill(0.0))
        s, q = total(sv), total(qv)
        if attempt == 1 or not is_far(float(n), s, q):
            break
        p = nearest(x, p + s / n)
    kept[k, 0], kept[k, 1], kept[k, 2] = p, s, spread(float(n), s, q)


@inlined
def _apply(
    x: Any,
    y: Any,
    i: int,
    n: int,
    mean: float,
    low: float,
    r: float,
    gamma: Any,
    beta: Any,
    j: int,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Values of a row → y, in the arithmetic that suits; what of a line is left to the next row."""
    m, lost = centre(x, y, mean, low)
    z = -lost * r
    if fits(x, y, m, r, r, z):
        mv, rv, zv = fill_as(carry, m), fill_as(carry, r), fill_as(carry, z)
        return row_apply(x, y, i, n, mv, rv, zv, gamma, beta, j, stream, carry, joined, more)
    if stream and joined:
        put_down(y, i, carry)
    row_apply_wide(x, y, i, n, m, r, z, gamma, beta, j)
    return pick_up(y, i + n, carry)


@block
def _forward_rows(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    start: int,
    last: int,
    groups: int,
    length: int,
    states: Any,
    kept: Any,
) -> None:
    """Rows [start, last), as many at a time as ``kept`` holds → y, result."""
    carry, asked, some = arithmetic(x, y), result.size > 0, kept.shape[0]
    for first in range(start, last, some):
        stop = min(first + some, last)
        for t in range(first, stop):
            row_moments(x, t * length, length, states, kept, t - first)
        for k in range(stop - first):  # apart, as the long way to a root waits for nothing here
            n, mean, low, m2 = finish(float(length), kept[k, 0], kept[k, 1], kept[k, 2])
            kept[k, 0], kept[k, 1], kept[k, 2] = standard(n, mean, low, m2, eps, centred)
            if asked:
                t = first + k
                result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
        for t in range(first, stop):
            mean, low, r = kept[t - first, 0], kept[t - first, 1], kept[t - first, 2]
            at, j, joined, more = t * length, t % groups * length, t > start, t + 1 < last
            carry = _apply(
                x, y, at, length, mean, low, r, gamma, beta, j, stream, carry, joined, more
            )


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
    together: int,
) -> None:
    states, kept = np.empty((1, STATE)), np.empty((max(AT_ONCE // length, 1), 3))
    start, last = u * together, min((u + 1) * together, rows)
    _forward_rows(
        x, y, gamma, beta, eps, centred, stream, result, start, last, groups, length, states, kept
    )


@Kernel
def forward(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
    together: int,
) -> None:
    """x (rows, length) → y, each row in one go; result (4, rows), or (4, 0) if nobody asks."""
    for u in prange((rows + together - 1) // together):
        _forward_unit(
            u, x, y, gamma, beta, eps, centred, stream, result, rows, groups, length, together
        )


@block
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
) -> None:
    together, pieces = pieces_of(rows, length)[1:]
    first = u // pieces * together
    e0 = u % pieces * BLOCK if pieces > 1 else 0
    n = min(BLOCK, length - e0) if pieces > 1 else length
    last, carry = min(first + together, rows), arithmetic(x, y)
    for t in range(first, last):
        mean, low, r = standard(
            result[0, t], result[1, t], result[2, t], result[3, t], eps, centred
        )
        i, j = t * length + e0, t % groups * length + e0
        joined, more = t > first, t + 1 < last
        carry = _apply(x, y, i, n, mean, low, r, gamma, beta, j, stream, carry, joined, more)


@Kernel
def normalize(
    x: Any,
    y: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    centred: bool,
    stream: bool,
    result: Any,
    rows: int,
    groups: int,
    length: int,
) -> None:
    """x (rows, length), result (4, rows) → y; from the end, where x may still be cached."""
    units = pieces_of(rows, length)[0]
    for u in prange(units):
        _normalize_unit(
            units - 1 - u, x, y, gamma, beta, eps, centred, stream, result, rows, groups, length
        )
