"""Norms over rows with a scale and a shift per value: layer and RMS norm, flat group norm.

x is flat, (rows, length), rows = batch · groups; gamma and beta have groups · length values, those
of a row begin at (row % groups) · length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import Way, by_pages
from numba_bn._kernels.cpu.lanes import fill_as
from numba_bn._kernels.cpu.loops import pick_up, put_down
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of
from numba_bn._kernels.cpu.precision import arithmetic, centre, fits
from numba_bn._kernels.cpu.row_loops import row_apply, row_apply_wide
from numba_bn._kernels.cpu.short_rows import ROWS
from numba_bn._kernels.cpu.state import rsqrt

AT_ONCE = 4096  # values of rows taken to each step before the next: short ones need not wait


@inlined
def standard(n: float, mean: float, low: float, m2: float, eps: float, centred: bool) -> Any:
    """Count, mean, low, m2 → mean to subtract, low, 1/std; RMS norm has the mean held at zero."""
    if centred:
        return mean, low, rsqrt(m2 / n, eps)
    return 0.0, 0.0, rsqrt(m2 / n + mean * mean, eps)


@inlined
def row_terms(x: Any, y: Any, mean: float, low: float, r: float, terms: Any, k: int) -> None:
    """→ terms[:, k]: m, r, z of y = ((x - m)·r + z)·gamma + beta, whether its arithmetic fits."""
    m, lost = centre(x, y, mean, low)
    z = -lost * r
    terms[k], terms[ROWS + k], terms[2 * ROWS + k] = m, r, z
    terms[3 * ROWS + k] = 1.0 if fits(x, y, m, r, r, z) else 0.0


@inlined
def apply_row(
    x: Any,
    y: Any,
    i: int,
    n: int,
    terms: Any,
    k: int,
    gamma: Any,
    beta: Any,
    j: int,
    way: Way,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Values of a row → y by terms[:, k]; what of a line is left to the next row."""
    m, r, z = terms[k], terms[ROWS + k], terms[2 * ROWS + k]
    if terms[3 * ROWS + k] > 0.0:
        mv, rv, zv = fill_as(carry, m), fill_as(carry, r), fill_as(carry, z)
        return row_apply(x, y, i, n, mv, rv, zv, gamma, beta, j, way, stream, carry, joined, more)
    if stream and joined:
        put_down(y, i, carry)
    row_apply_wide(x, y, i, n, m, r, z, gamma, beta, j)
    return pick_up(y, i + n, carry) if stream else carry


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
    size = (last - first - 1) * length + n
    way = by_pages(x, stream, first * length + e0, size, -2 * size)
    for t in range(first, last):
        mean, low, r = standard(
            result[0, t], result[1, t], result[2, t], result[3, t], eps, centred
        )
        i, j = t * length + e0, t % groups * length + e0
        joined, more = t > first, t + 1 < last
        row_terms(x, y, mean, low, r, terms, 0)
        carry = apply_row(x, y, i, n, terms, 0, gamma, beta, j, way, stream, carry, joined, more)


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
