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
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import row_apply, row_gradients, row_input_gradient
from numba_bn._kernels.cpu.moments import BLOCK, conclude, pieces_of, slab_moments
from numba_bn._kernels.cpu.state import STATE, coefficients, rsqrt


@inline
def standard(result: Any, t: int, eps: float, centred: bool) -> Any:
    """result[:, t] → mean to subtract, 1/std; RMS norm has the mean held at zero."""
    n, mean, m2 = result[0, t], result[1, t], result[3, t]
    if centred:
        return mean, rsqrt(m2 / n, eps)
    return 0.0, rsqrt(m2 / n + mean * mean, eps)


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
        slab_moments(x, None, t * length, length, 1, length, 1, states)
        conclude(states, 0, result, t)
        mean, r = standard(result, t, eps, centred)
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
        mean, r = standard(result, t, eps, centred)
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
    states, result = np.empty((1, STATE)), np.empty((STATE, 1))
    first, last = batch * chunk // chunks, batch * (chunk + 1) // chunks
    for t in range(first * groups, last * groups):
        at, j = t * length, t % groups * length
        slab_moments(x, None, at, length, 1, length, 1, states)
        conclude(states, 0, result, 0)
        mean, r = standard(result, 0, eps, centred)
        sv, qv = row_gradients(dy, x, gamma, at, length, j, fill(mean), fill(0.0), fill(0.0))
        b, c = coefficients(1.0, r, result[0, 0], total(sv), total(qv))[1:]
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
