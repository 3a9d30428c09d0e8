"""Gradients over runs: their sums, and dx by given sums.

A run here is the ``inner`` values of one channel, so x is flat, (batch, outer, channels, inner);
channel c belongs to group c // size. Sums are cut into chunks as the moments are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import Way, by_pages, further, straight
from numba_bn._kernels.cpu.gradient_loops import gradient_values, run_gradients, run_input_gradient
from numba_bn._kernels.cpu.lanes import fill, fill_as, total
from numba_bn._kernels.cpu.memory import load, store
from numba_bn._kernels.cpu.moments import (
    BLOCK,
    LANES,
    Slab,
    block_of,
    cut,
    pieces_of,
    slab_of,
    way_of,
)
from numba_bn._kernels.cpu.precision import all_fit, arithmetic
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import add_parts, centred


@block
def slab_chunk_sums(
    dy: Any,
    x: Any,
    where: Any,
    slab: Slab,
    first: int,
    last: int,
    mean: Any,
    t: int,
    size: int,
    sums: Any,
    out: Any,
    far: bool,
) -> None:
    """Blocks [first, last) of a slab of channels → out (channels, 2): Σdy, Σdy·(x-mean).

    mean is one for ``size`` channels, from the t-th on.
    """
    for j in range(slab.runs):
        out[j, 0] = 0.0
        out[j, 1] = 0.0
    for k in range(first, last):
        some, n = block_of(slab, k)
        for j in range(slab.runs * 2):
            store(sums, j * LANES, fill(0.0), False)
        way = way_of(x, far, some)
        for o in range(some.rows):
            for j in range(slab.runs):
                i = some.at + o * some.stride + j * some.length
                h = j * 2 * LANES
                s, q = load(sums, h), load(sums, h + LANES)
                s, q = run_gradients(dy, x, where, i, n, way, fill(mean[t + j // size]), s, q)
                store(sums, h, s, False)
                store(sums, h + LANES, q, False)
            way = further(way, some.stride)
        for j in range(slab.runs):
            out[j, 0] += total(load(sums, j * 2 * LANES))
            out[j, 1] += total(load(sums, j * 2 * LANES + LANES))


@unit
def slab_sums(
    dy: Any,
    x: Any,
    where: Any,
    slab: Slab,
    mean: Any,
    t: int,
    size: int,
    out: Any,
    far: bool,
) -> None:
    """A slab of channels → out (channels, 2), chunk by chunk in order."""
    chunks, per_chunk, blocks = cut(slab.rows, slab.length)
    sums, part = doubles(1, slab.runs * 2 * LANES)[0], np.empty((slab.runs, 2))
    for j in range(slab.runs):
        out[j, 0] = 0.0
        out[j, 1] = 0.0
    for c in range(chunks):
        first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
        slab_chunk_sums(dy, x, where, slab, first, last, mean, t, size, sums, part, far)
        for j in range(slab.runs):
            out[j, 0] += part[j, 0]
            out[j, 1] += part[j, 1]


@unit
def _sums_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    parts: Any,
    outer: int,
    channels: int,
    inner: int,
    together: int,
    far: bool,
) -> None:
    """Unit (slab, chunk) → parts (chunks · 2, channels)."""
    chunks, per_chunk, blocks = cut(outer, inner)
    c, t = u % chunks, u // chunks * together
    slab = slab_of(0, t, together, outer, channels, inner)
    sums, out = doubles(1, slab.runs * 2 * LANES)[0], np.empty((slab.runs, 2))
    first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
    slab_chunk_sums(dy, x, where, slab, first, last, mean, t, 1, sums, out, far)
    for j in range(slab.runs):
        parts[2 * c, t + j], parts[2 * c + 1, t + j] = out[j, 0], out[j, 1]


@Kernel
def gradient_sums(
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    result: Any,
    outer: int,
    channels: int,
    inner: int,
    together: int,
    far: bool,
) -> None:
    """dy, x (outer, channels, inner) → result (2, channels): Σdy, Σdy·(x-mean)."""
    chunks = cut(outer, inner)[0]
    parts = np.empty((chunks * 2, channels))
    for u in prange((channels + together - 1) // together * chunks):
        _sums_unit(u, dy, x, where, mean, parts, outer, channels, inner, together, far)
    add_parts(parts, result)


@inlined
def gradient_runs(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    at: int,
    runs: int,
    inner: int,
    way: Way,
    factors: Any,
    fit: bool,
    stream: bool,
    carry: Any,
    joined: bool,
    more: bool,
) -> Any:
    """Runs side by side from x[at] on, by factors (4, runs) → dx; ``fit`` is as in `apply_runs`."""
    if fit:
        for k in range(runs):
            mv, av = fill_as(carry, factors[0, k]), fill_as(carry, factors[1, k])
            bv, cv = fill_as(carry, factors[2, k]), fill_as(carry, factors[3, k])
            i = at + k * inner
            run_input_gradient(
                dy, x, where, dx, i, inner, way, mv, av, bv, cv, False, carry, False, False
            )
        return carry
    for k in range(runs):
        m, a, b, c = factors[0, k], factors[1, k], factors[2, k], factors[3, k]
        i, before, after = at + k * inner, joined or k > 0, more or k + 1 < runs
        carry = gradient_values(
            dy, x, where, dx, i, inner, way, m, a, b, c, stream, carry, before, after
        )
    return carry


@block
def gradient_slab(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    slab: Slab,
    factors: Any,
    stream: bool,
    onward: int,
) -> None:
    """A slab of channels, by factors (4, channels) → dx; from the end."""
    at, stride, rows, inner, runs = slab
    carry, fit = arithmetic(x, dx), not stream and all_fit(x, dx, factors, 0, runs)
    for back in range(rows):
        o = rows - 1 - back
        i, way = at + o * stride, straight(runs * inner if o < onward else 0)
        carry = gradient_runs(
            dy, x, where, dx, i, runs, inner, way, factors, fit, stream, carry, False, False
        )


@block
def _input_gradient_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    factors: Any,
    fit: bool,
    stream: bool,
    runs: int,
    inner: int,
) -> None:
    together, pieces = pieces_of(runs, inner)[1:]
    first = u // pieces * together
    e0 = u % pieces * BLOCK if pieces > 1 else 0
    n = min(BLOCK, inner - e0) if pieces > 1 else inner
    run, last, carry = first, min(first + together, runs), arithmetic(x, dx)
    channels = factors.shape[1]
    k, size = first % channels, (last - first - 1) * inner + n
    way = by_pages(x, stream, first * inner + e0, size, -2 * size)
    while run < last:  # to divide for each run takes up to a fifth of the time
        count = min(channels - k, last - run)
        here, at = factors[:, k : k + count], run * inner + e0
        joined, more = run > first, run + count < last
        carry = gradient_runs(
            dy, x, where, dx, at, count, n, way, here, fit, stream, carry, joined, more
        )
        run, k = run + count, 0


@Kernel
def input_gradient(
    dy: Any,
    x: Any,
    where: Any,
    dx: Any,
    mean: Any,
    low: Any,
    terms: Any,
    stream: bool,
    outer: int,
    channels: int,
    inner: int,
) -> None:
    """dy, x (outer, channels, inner) → dx = dy·a + (x-mean)·b + c, terms (3, channels)."""
    factors, runs = centred(x, dx, mean, low, terms), outer * channels
    fit = not stream and all_fit(x, dx, factors, 0, channels)
    units = pieces_of(runs, inner)[0]
    for u in prange(units):
        _input_gradient_unit(units - 1 - u, dy, x, where, dx, factors, fit, stream, runs, inner)
