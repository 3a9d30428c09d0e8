"""Gradients of norms over rows: the backward of ``rows``; moments, sums and dx in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inline, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.lanes import fill
from numba_bn._kernels.cpu.memory import nearest, scalar, store
from numba_bn._kernels.cpu.moments import BLOCK
from numba_bn._kernels.cpu.precision import arithmetic, centre, fits, vectors_as
from numba_bn._kernels.cpu.row_loops import (
    TERMS,
    pick_up,
    put_down,
    row_sums,
    rows_input_gradient,
)
from numba_bn._kernels.cpu.rows import standard
from numba_bn._kernels.cpu.state import STATE, finish, is_far, take

_AT_ONCE = 2048  # values of rows that share what belongs to a column: all of it stays in the L1


@block
def _row_sums(dy: Any, x: Any, gamma: Any, at: int, n: int, j: int, states: Any) -> Any:
    """Row from x[at] on → count, mean, low, m2, Σgamma·dy, Σgamma·dy·(x-pivot), that pivot."""
    pivot, g, t = scalar(x, at + n // 2), 0.0, 0.0
    for i in range(STATE):
        states[0, i] = 0.0
    for e in range(0, n, BLOCK):
        k = min(BLOCK, n - e)
        p = scalar(x, at + e + k // 2)
        s, q, own_g, own_t = row_sums(dy, x, gamma, at + e, k, j + e, fill(p))
        if is_far(float(k), s, q):
            p = nearest(x, p + s / k)
            s, q, own_g, own_t = row_sums(dy, x, gamma, at + e, k, j + e, fill(p))
        take(states, 0, float(k), p, s, q)
        g += own_g
        t += own_t + (p - pivot) * own_g
    n0, mean, low, m2 = finish(states[0, 0], states[0, 1], states[0, 2], states[0, 3])
    return n0, mean, low, m2, g, t, pivot


@inline
def _put_terms(terms: Any, k: int, m: float, b: float, c: float, r: float, z: float) -> None:
    """What row k is computed with → terms[k], each in sixteen places."""
    at = k * TERMS
    store(terms, at, fill(m), False)
    store(terms, at + 16, fill(b), False)
    store(terms, at + 32, fill(c), False)
    store(terms, at + 48, fill(r), False)
    store(terms, at + 64, fill(z), False)


@block
def _row_terms(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    at: int,
    n: int,
    j: int,
    eps: float,
    centred: bool,
    states: Any,
    terms: Any,
    wide: Any,
    k: int,
) -> bool:
    """Row from x[at] on → what its dx is computed with; tell whether the arithmetic holds it."""
    count, mean, low, m2, g, t, pivot = _row_sums(dy, x, gamma, at, n, j, states)
    mean, low, r = standard(count, mean, low, m2, eps, centred)
    t -= ((mean - pivot) + low) * g
    b, c = -(r * t) * r / n, (-g / n if centred else 0.0)
    m, lost = centre(x, dx, mean, low)
    c, z = c - lost * b, -lost * r
    _put_terms(terms, k, m, b, c, r, z)
    _put_terms(wide, k, m, b, c, r, z)
    return bool(fits(x, dx, m, r, b, c) and fits(x, dx, z, r, b, c))


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
    states, some, own = np.empty((1, STATE)), max(_AT_ONCE // length, 2), sums[chunk]
    terms, wide = vectors_as(x, dx, some, TERMS), np.empty((some, TERMS))
    carry = arithmetic(x, dx)
    if groups > 1 or (stream and length % 16 > 0):
        some = 1  # neighbours have other columns, or begin otherwise in their lines
    start, last = batch * chunk // chunks * groups, batch * (chunk + 1) // chunks * groups
    for first in range(start, last, some):
        stop, fit = min(first + some, last), True
        at, j = first * length, first % groups * length
        for t in range(first, stop):
            fit &= _row_terms(
                dy,
                x,
                dx,
                gamma,
                t * length,
                length,
                j,
                eps,
                centred,
                states,
                terms,
                wide,
                t - first,
            )
        joined, more, rows = first > start, stop < last, stop - first
        if fit:
            carry = rows_input_gradient(
                dy, x, gamma, dx, own, at, rows, length, j, terms, stream, carry, joined, more
            )
        else:
            if stream and joined:
                put_down(dx, at, carry)
            like = fill(0.0)
            rows_input_gradient(
                dy, x, gamma, dx, own, at, rows, length, j, wide, False, like, False, False
            )
            carry = pick_up(dx, stop * length, carry)


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
