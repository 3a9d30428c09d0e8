"""Small kernels beside those of norms: the gradient through a ReLU, terms of dx, parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.gradient_loops import relu_gradient_run
from numba_bn._kernels.cpu.moments import BLOCK, pieces_of
from numba_bn._kernels.cpu.state import about_mean, add_parts, coefficients, each_rsqrt


@Kernel
def relu_gradient(dy: Any, y: Any, out: Any) -> None:
    """dy, y, flat → dy where y is above 0 (or NaN), else 0."""
    for u in prange(pieces_of(1, y.size)[0]):
        i = u * BLOCK
        relu_gradient_run(dy, y, out, i, min(BLOCK, y.size - i))


@Kernel
def training_terms(
    sums: Any, low: Any, m2: Any, count: Any, gamma: Any, eps: float, out: Any, terms: Any
) -> None:
    """Σdy, Σdy·(x - m) (2, channels) → out: Σdy, Σdy·x̂, in its dtype; a, b, c of dx (3, channels).

    NumPy takes 8 µs more, one thirtieth of the time of some planes of 7x7.
    """
    rs = each_rsqrt(m2, count, eps)
    for k in prange(rs.size):
        s = sums[0, k]
        t = about_mean(s, sums[1, k], low[k])
        terms[0, k], terms[1, k], terms[2, k] = coefficients(gamma[k], rs[k], count[k], s, t)
        out[0, k], out[1, k] = s, t * rs[k]


@Kernel
def total_of_parts(parts: Any, out: Any) -> None:
    """Two sums of each part (chunks · 2, channels · each) → out (2, channels), in its dtype.

    NumPy, whose code is no longer cached, takes a fifth of the time of a layer norm of 512 KB.
    """
    totals = np.empty((2, parts.shape[1]))
    add_parts(parts, totals)
    each = parts.shape[1] // out.shape[1]
    for k in prange(out.shape[1]):
        s, t = 0.0, 0.0
        for e in range(k * each, (k + 1) * each):
            s += totals[0, e]
            t += totals[1, e]
        out[0, k], out[1, k] = s, t


@Kernel
def repeat(p: Any, out: Any) -> None:
    """p (channels,) → each so many times as out has room for, in out's precision."""
    each = out.size // p.size
    for i in prange(p.size):
        for k in range(each):
            out[i * each + k] = p[i]
