"""Norms over rows with a scale and a shift per value: layer and RMS norm, flat group norm.

x is flat, (rows, length), rows = batch · groups; gamma and beta have groups · length values, those
of a row begin at (row % groups) · length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inline
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.lanes import fill, nearest, scalar, total
from numba_bn._kernels.cpu.loops import near, row_apply, row_gradients, row_input_gradient, run_sums
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of, slab_moments
from numba_bn._kernels.cpu.state import STATE, coefficients, finish, is_far, rsqrt, spread


@inline
def standard(n: float, mean: float, m2: float, eps: float, centred: bool) -> Any:
    """Count, mean, m2 → mean to subtract, 1/std; RMS norm has the mean held at zero."""
    if centred:
        return mean, rsqrt(m2 / n, eps)
    return 0.0, rsqrt(m2 / n + mean * mean, eps)


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
    first = u * together
    wide = min(together, rows - first)
    states = np.empty((1, STATE))
    for t in range(first, first + wide):
        n, mean, low, m2 = _row_moments(x, t * length, length, states)
        result[0, t], result[1, t], result[2, t], result[3, t] = n, mean, low, m2
        mean, r = standard(n, mean, m2, eps, centred)
        row_apply(
            x, y, t * length, length, fill(mean), fill(r), gamma, beta, t % groups * length, stream
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
    """x (rows, length) → y, result (4, rows), each row in one go."""
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
        mean, r = standard(result[0, t], result[1, t], result[3, t], eps, centred)
        row_apply(
            x,
            y,
            t * length + e0,
            n,
            fill(mean),
            fill(r),
            gamma,
            beta,
            t % groups * length + e0,
            stream,
        )


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
    states = np.empty((1, STATE))
    first, last = batch * chunk // chunks, batch * (chunk + 1) // chunks
    for t in range(first * groups, last * groups):
        at, j = t * length, t % groups * length
        n, mean, _, m2 = _row_moments(x, at, length, states)
        mean, r = standard(n, mean, m2, eps, centred)
        sv, qv = row_gradients(dy, x, gamma, at, length, j, fill(mean), fill(0.0), fill(0.0))
        b, c = coefficients(1.0, r, n, total(sv), total(qv))[1:]
        row_input_gradient(
            dy,
            x,
            gamma,
            dx,
            sums[chunk],
            at,
            length,
            j,
            fill(mean),
            fill(r),
            fill(b),
            fill(c if centred else 0.0),
            stream,
        )


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
