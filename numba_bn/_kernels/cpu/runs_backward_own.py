"""Gradients of instance and group norm over runs: moments, sums and dx of a sample in one go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.gradient_loops import gradient_about
from numba_bn._kernels.cpu.memory import near
from numba_bn._kernels.cpu.moments import slab_moments
from numba_bn._kernels.cpu.precision import arithmetic
from numba_bn._kernels.cpu.runs_backward import slab_sums
from numba_bn._kernels.cpu.state import STATE, coefficients, conclude, rsqrt


@unit
def _own_unit(
    u: int,
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    slab: int,
) -> None:
    """Unit (chunk of the batch, slab of groups) → dx, its share of sums (2, chunks·channels)."""
    slabs = (groups + slab - 1) // slab
    chunk, g = u // slabs, (u % slabs) * slab
    wide = min(slab, groups - g)
    length, channels = size * inner, groups * size
    stride = groups * length
    states, result = np.empty((wide, STATE)), np.empty((STATE, wide))
    out = np.empty((wide * size, 2))
    for b in range(batch * chunk // chunks, batch * (chunk + 1) // chunks):
        at = b * outer * stride + g * length
        slab_moments(x, None, at, stride, outer, length, wide, states)
        for j in range(wide):
            conclude(states, j, result, j)
        slab_sums(dy, x, None, at, stride, outer, inner, wide * size, result[1], 0, size, out)
        _own_slab(
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            at,
            stride,
            outer,
            size,
            inner,
            result,
            out,
            chunk * channels,
            g * size,
        )


@block
def _own_slab(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    at: int,
    stride: int,
    outer: int,
    size: int,
    inner: int,
    result: Any,
    out: Any,
    into: int,
    channel: int,
) -> None:
    """Neighbouring groups of one sample, moments and channel sums known → their dx and sums."""
    wide, carry = result.shape[1], arithmetic(x, dx)
    for j in range(wide):
        carry = _own_group(
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            at + j * size * inner,
            stride,
            outer,
            size,
            inner,
            result,
            j,
            out,
            into + channel + j * size,
            channel + j * size,
            carry,
            outer == 1 and j > 0,
            outer == 1 and j + 1 < wide,
        )


@inlined
def _own_group(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    at: int,
    stride: int,
    outer: int,
    size: int,
    inner: int,
    result: Any,
    j: int,
    out: Any,
    into: int,
    channel: int,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """One group of one sample, its moments and channel sums known → its dx and sums."""
    n, mean = result[0, j], result[1, j]
    r = rsqrt(result[3, j] / n, eps)
    s, t = 0.0, 0.0
    for k in range(size):
        h = j * size + k
        s += gamma[channel + k] * out[h, 0]
        t += gamma[channel + k] * out[h, 1]
        sums[0, into + k] += out[h, 0]
        sums[1, into + k] += out[h, 1] * r
    b, c = coefficients(1.0, r, n, s, t)[1:]
    for o in range(outer):
        for k in range(size):
            carry = gradient_about(
                dy,
                x,
                None,
                dx,
                at + o * stride + k * inner,
                inner,
                near(x),
                mean,
                gamma[channel + k] * r,
                b,
                c,
                stream,
                carry,
                joined or k > 0,
                more or k + 1 < size,
            )
    return carry


@Kernel
def backward_own(
    dy: Any,
    x: Any,
    dx: Any,
    gamma: Any,
    eps: float,
    sums: Any,
    stream: bool,
    batch: int,
    outer: int,
    groups: int,
    size: int,
    inner: int,
    chunks: int,
    slab: int,
) -> None:
    """dy, x (batch, outer, groups, size, inner) → dx; sums (2, chunks·channels), zero before."""
    for u in prange(chunks * ((groups + slab - 1) // slab)):
        _own_unit(
            u,
            dy,
            x,
            dx,
            gamma,
            eps,
            sums,
            stream,
            batch,
            outer,
            groups,
            size,
            inner,
            chunks,
            slab,
        )
