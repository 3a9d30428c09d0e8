"""Norms over rows with a scale and a shift per value: layer and RMS norm, flat group norm.

x is flat, (rows, length), rows = batch · groups; gamma and beta have groups · length values, those
of a row begin at (row % groups) · length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inline, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.lanes import fill, fill_as, head, total
from numba_bn._kernels.cpu.loops import near, run_sums
from numba_bn._kernels.cpu.memory import nearest, scalar
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of, slab_moments
from numba_bn._kernels.cpu.precision import arithmetic, centre, fits
from numba_bn._kernels.cpu.row_loops import part_apply, row_apply, row_gradients, row_input_gradient
from numba_bn._kernels.cpu.state import STATE, finish, is_far, rsqrt, spread

_AT_ONCE = 4096  # values: they stay in the L1


@inline
def standard(n: float, mean: float, low: float, m2: float, eps: float, centred: bool) -> Any:
    """Count, mean, low, m2 → mean to subtract, low, 1/std; RMS norm has the mean held at zero."""
    if centred:
        return mean, low, rsqrt(m2 / n, eps)
    return 0.0, 0.0, rsqrt(m2 / n + mean * mean, eps)


@inline
def _rows_at_once(length: int) -> int:
    """Return how many rows are taken to each step before the next: short ones need not wait."""
    return max(_AT_ONCE // length, 1)


@block
def _row_moments(x: Any, at: int, n: int, states: Any) -> Any:
    """Row x[at : at + n] → count, mean, low, m2."""
    if n > BLOCK:
        slab_moments(x, None, at, n, 1, n, 1, states)
        return finish(states[0, 0], states[0, 1], states[0, 2], states[0, 3])
    p, s, q = scalar(x, at + n // 2), 0.0, 0.0
    for attempt in range(2):
        sv, qv = run_sums(x, None, at, n, near(x), fill(p), fill(0.0), fill(0.0))
        s, q = total(sv), total(qv)
        if attempt == 1 or not is_far(float(n), s, q):
            break
        p = nearest(x, p + s / n)
    return finish(float(n), p, s, spread(float(n), s, q))


@block
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
) -> None:
    """Values of a row → y, in the arithmetic that suits."""
    m, lost = centre(x, y, mean, low)
    z = -lost * r
    if fits(x, y, m, r, r, z):
        like = arithmetic(x, y)
        mv, rv, zv = fill_as(like, m), fill_as(like, r), fill_as(like, z)
        row_apply(x, y, i, n, mv, rv, zv, gamma, beta, j, stream)
    else:
        for k in range(0, n, 16):
            part_apply(x, y, i + k, head(n - k), fill(m), fill(r), fill(z), gamma, beta, j + k)


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
    states, some = np.empty((1, STATE)), _rows_at_once(length)
    kept, asked = np.empty((3, some)), result.size > 0
    last = min((u + 1) * together, rows)
    for first in range(u * together, last, some):
        stop = min(first + some, last)
        for t in range(first, stop):
            n, mean, low, m2 = _row_moments(x, t * length, length, states)
            kept[0, t - first], kept[1, t - first], kept[2, t - first] = standard(
                n, mean, low, m2, eps, centred
            )
            if asked:
                result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
        for t in range(first, stop):
            mean, low, r = kept[0, t - first], kept[1, t - first], kept[2, t - first]
            at, j = t * length, t % groups * length
            _apply(x, y, at, length, mean, low, r, gamma, beta, j, stream)


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
    for t in range(first, min(first + together, rows)):
        mean, low, r = standard(
            result[0, t], result[1, t], result[2, t], result[3, t], eps, centred
        )
        i, j = t * length + e0, t % groups * length + e0
        _apply(x, y, i, n, mean, low, r, gamma, beta, j, stream)


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


@block
def _input_gradient(
    dy: Any,
    x: Any,
    gamma: Any,
    dx: Any,
    sums: Any,
    i: int,
    n: int,
    j: int,
    mean: float,
    r: float,
    b: float,
    c: float,
    stream: bool,
) -> None:
    """Values of a row → dx, in the arithmetic that suits."""
    m, lost = centre(x, dx, mean, 0.0)
    if fits(x, dx, m, r, b, c):
        like = arithmetic(x, dx)
        mv, lv, rv = fill_as(like, m), fill_as(like, lost), fill_as(like, r)
        bv, cv = fill_as(like, b), fill_as(like, c)
        row_input_gradient(dy, x, gamma, dx, sums, i, n, j, mv, lv, rv, bv, cv, stream)
    else:
        mw, lw, rw, bw, cw = fill(m), fill(lost), fill(r), fill(b), fill(c)
        row_input_gradient(dy, x, gamma, dx, sums, i, n, j, mw, lw, rw, bw, cw, stream)


@unit
def _backward_unit(
    chunk: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    centred: bool,
    stream: bool,
    sums: Any,
    batch: int,
    groups: int,
    length: int,
    chunks: int,
) -> None:
    states, some, own = np.empty((1, STATE)), _rows_at_once(length), sums[chunk]
    kept = np.empty((4, some))
    last = batch * (chunk + 1) // chunks * groups
    for first in range(batch * chunk // chunks * groups, last, some):
        stop = min(first + some, last)
        for t in range(first, stop):
            n, mean, low, m2 = _row_moments(x, t * length, length, states)
            kept[0, t - first], _, kept[1, t - first] = standard(n, mean, low, m2, eps, centred)
        for t in range(first, stop):
            mean, r = kept[0, t - first], kept[1, t - first]
            zeros, j = fill(0.0), t % groups * length
            sv, qv = row_gradients(dy, x, gamma, t * length, length, j, fill(mean), zeros, zeros)
            kept[2, t - first] = -(r * total(qv)) * r / length
            kept[3, t - first] = -total(sv) / length if centred else 0.0
        for t in range(first, stop):
            mean, r = kept[0, t - first], kept[1, t - first]
            b, c = kept[2, t - first], kept[3, t - first]
            i, j = t * length, t % groups * length
            _input_gradient(dy, x, gamma, dx, own, i, length, j, mean, r, b, c, stream)


@Kernel
def backward(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    centred: bool,
    stream: bool,
    sums: Any,
    batch: int,
    groups: int,
    length: int,
    chunks: int,
) -> None:
    """dy, x (batch · groups, length) → dx; sums (chunks, 2·groups·length), zero before."""
    for chunk in prange(chunks):
        _backward_unit(
            chunk, dy, x, dx, gamma, eps, centred, stream, sums, batch, groups, length, chunks
        )
