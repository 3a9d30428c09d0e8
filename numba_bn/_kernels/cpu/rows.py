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
from numba_bn._kernels.cpu.precision import (
    additive,
    arithmetic,
    centre,
    fits,
    is_single,
    vector_like,
)
from numba_bn._kernels.cpu.row_loops import row_apply, row_apply_wide
from numba_bn._kernels.cpu.short_rows import LANES, ROWS, at_once, forward_terms
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


@inline
def _row_terms(x: Any, y: Any, mean: float, low: float, r: float, terms: Any, k: int) -> None:
    """→ terms[:, k]: m, r, z of y = ((x - m)·r + z)·gamma + beta, whether its arithmetic fits."""
    m, lost = centre(x, y, mean, low)
    z = -lost * r
    terms[k], terms[ROWS + k], terms[2 * ROWS + k] = m, r, z
    terms[3 * ROWS + k] = 1.0 if fits(x, y, m, r, r, z) else 0.0


@inlined
def _apply(
    x: Any,
    y: Any,
    i: int,
    n: int,
    terms: Any,
    k: int,
    gamma: Any,
    beta: Any,
    j: int,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Values of a row → y by terms[:, k]; what of a line is left to the next row."""
    m, r, z = terms[k], terms[ROWS + k], terms[2 * ROWS + k]
    if terms[3 * ROWS + k] > 0.0:
        mv, rv, zv = fill_as(carry, m), fill_as(carry, r), fill_as(carry, z)
        return row_apply(x, y, i, n, mv, rv, zv, gamma, beta, j, stream, carry, joined, more)
    if stream and joined:
        put_down(y, i, carry)
    row_apply_wide(x, y, i, n, m, r, z, gamma, beta, j)
    return pick_up(y, i + n, carry) if stream else carry


@block
def _each_terms(
    x: Any,
    y: Any,
    eps: float,
    centred: bool,
    result: Any,
    first: int,
    count: int,
    length: int,
    plain: int,
    states: Any,
    kept: Any,
    terms: Any,
) -> None:
    """Those of ``count`` rows from the ``first`` on that are not plain → result, terms."""
    for k in range(count):
        if plain >> k & 1 == 0:
            row_moments(x, (first + k) * length, length, states, kept, k)
    for k in range(count):  # apart, as the long way to a root waits for nothing here
        if plain >> k & 1 == 0:
            n, mean, low, m2 = finish(float(length), kept[k, 0], kept[k, 1], kept[k, 2])
            if result.size > 0:
                t = first + k
                result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
            mean, low, r = standard(n, mean, low, m2, eps, centred)
            _row_terms(x, y, mean, low, r, terms, k)
        else:
            terms[3 * ROWS + k] = 1.0


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
    lines: Any,
    terms: Any,
) -> None:
    """Rows [start, last), as many at a time as ``kept`` holds → y, result."""
    carry, zero, some = arithmetic(x, y), additive(x, x), kept.shape[0]
    for first in range(start, last, some):
        count, plain = min(some, last - first), 0
        if at_once(length, zero) and not (is_single(zero) and result.size > 0):
            # what is returned has all digits of float64, what only y is made of need not
            plain = forward_terms(
                x, carry, zero, eps, centred, result, first, count, length, lines, terms
            )
        _each_terms(x, y, eps, centred, result, first, count, length, plain, states, kept, terms)
        for k in range(count):
            t = first + k
            at, j, joined, more = t * length, t % groups * length, t > start, t + 1 < last
            carry = _apply(x, y, at, length, terms, k, gamma, beta, j, stream, carry, joined, more)


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
    some = min(max(AT_ONCE // length, 1), ROWS)
    states, kept, terms = np.empty((1, STATE)), np.empty((some, 3)), np.empty(4 * ROWS)
    lines = vector_like(additive(x, x), 2 * LANES)
    start, last = u * together, min((u + 1) * together, rows)
    _forward_rows(
        x,
        y,
        gamma,
        beta,
        eps,
        centred,
        stream,
        result,
        start,
        last,
        groups,
        length,
        states,
        kept,
        lines,
        terms,
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


@unit
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
    last, carry, terms = min(first + together, rows), arithmetic(x, y), np.empty(4 * ROWS)
    for t in range(first, last):
        mean, low, r = standard(
            result[0, t], result[1, t], result[2, t], result[3, t], eps, centred
        )
        i, j = t * length + e0, t % groups * length + e0
        joined, more = t > first, t + 1 < last
        _row_terms(x, y, mean, low, r, terms, 0)
        carry = _apply(x, y, i, n, terms, 0, gamma, beta, j, stream, carry, joined, more)


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
