"""Norms over columns: channels-last data, and planes too small for a loop of their own.

x is flat, (batch, rows, width) and column j belongs to group j // length and channel j // inner.
Where rows are short, several are seen as one wide row (``fold`` of them), so that a tile of columns
is always worth its overhead; what is left of the last wide row is a row of fewer columns.

A group's values are cut into blocks of rows, blocks into chunks, by the shape alone: the same bits
for every tile width, strategy and number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._launch import Kernel, block, inline
from numba_bn._kernels.cpu.lanes import nearest, scalar
from numba_bn._kernels.cpu.moments import MAX_CHUNKS, conclude
from numba_bn._kernels.cpu.state import STATE, fold, is_far, merge, rsqrt, take
from numba_bn._kernels.cpu.tiles import tile_apply, tile_sums

ROWS = 512  # rows summed about one pivot
APPLY_ROWS = 128  # rows of a tile that one unit normalizes


@inline
def cut_rows(rows: int) -> Any:
    """Rows → number of chunks, rows in a chunk (whole blocks)."""
    blocks = max((rows + ROWS - 1) // ROWS, 1)
    per_chunk = (blocks + MAX_CHUNKS - 1) // MAX_CHUNKS
    return (blocks + per_chunk - 1) // per_chunk, per_chunk * ROWS


@inline
def padded(width: int) -> int:
    """Columns → room for them in whole lanes."""
    return (width + 15) // 16 * 16


@block
def spread_out(values: Any, width: int, period: int, inner: int, into: Any) -> None:
    """One value per channel of ``inner`` columns, repeating after ``period`` → one per column."""
    for j in range(min(width, period)):
        into[j] = values[j // inner]
    for j in range(period, width):
        into[j] = into[j - period]


@block
def _gather(vector: Any, width: int, period: int, length: int, sums: Any) -> None:
    """One value per column → its sum per group."""
    for g in range(sums.size):
        sums[g] = 0.0
    for start in range(0, width, period):
        stop = min(period, width - start)
        for j in range(stop):
            sums[j // length] += vector[start + j]


@block
def _sum_about(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    width: int,
    period: int,
    length: int,
    pivots: Any,
    columns: Any,
    groups: Any,
) -> None:
    """Rows of a tile about pivots (groups,) → groups (3, groups): Σ(x-p), Σ(x-p)², count."""
    p, s, q, n = columns[0], columns[1], columns[2], columns[3]
    spread_out(pivots, width, period, length, p)
    for j in range(padded(width)):
        s[j], q[j] = 0.0, 0.0
        n[j] = 0.0 if where is not None else float(rows)
    tile_sums(x, where, at, stride, rows, width, p, s, q, n)
    _gather(s, width, period, length, groups[0])
    _gather(q, width, period, length, groups[1])
    _gather(n, width, period, length, groups[2])


@block
def _take_rows(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    width: int,
    period: int,
    length: int,
    pivots: Any,
    columns: Any,
    groups: Any,
    states: Any,
) -> None:
    """Rows of a tile → states (groups, STATE); summed again where a pivot was far from the mean."""
    middle = at + rows // 2 * stride
    held = min(states.shape[0], (width + length - 1) // length)
    for g in range(pivots.size):
        pivots[g] = 0.0
        if where is None and g < held:
            pivots[g] = scalar(x, middle + g * length)
    _sum_about(x, where, at, stride, rows, width, period, length, pivots, columns, groups)
    far = False
    for g in range(held):
        far = far or (groups[2, g] > 0.0 and is_far(groups[2, g], groups[0, g], groups[1, g]))
    if far:
        for g in range(held):
            if groups[2, g] > 0.0:
                better = nearest(x, pivots[g] + groups[0, g] / groups[2, g])
                if better - better == 0.0:
                    pivots[g] = better
        _sum_about(x, where, at, stride, rows, width, period, length, pivots, columns, groups)
    for g in range(held):
        take(states, g, groups[2, g], pivots[g], groups[0, g], groups[1, g])


@block
def tile_chunk(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    first: int,
    last: int,
    tail: int,
    width: int,
    period: int,
    length: int,
    columns: Any,
    states: Any,
) -> None:
    """Rows [first, last) of a tile, and ``tail`` columns of the row after → states."""
    count = states.shape[0]
    pivots, groups = np.empty(count), np.empty((3, count))
    for g in range(count):
        for i in range(STATE):
            states[g, i] = 0.0
    for r in range(first, last, ROWS):
        _take_rows(
            x,
            where,
            at + r * stride,
            stride,
            min(ROWS, last - r),
            width,
            period,
            length,
            pivots,
            columns,
            groups,
            states,
        )
    if tail > 0:
        _take_rows(
            x,
            where,
            at + last * stride,
            stride,
            1,
            tail,
            period,
            length,
            pivots,
            columns,
            groups,
            states,
        )


@block
def tile_moments(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    period: int,
    length: int,
    columns: Any,
    states: Any,
) -> None:
    """All rows of a tile → states (groups, STATE), chunk by chunk in order."""
    chunks, per_chunk = cut_rows(rows)
    part = np.empty(states.shape)
    for g in range(states.shape[0]):
        for i in range(STATE):
            states[g, i] = 0.0
    for c in range(chunks):
        tile_chunk(
            x,
            where,
            at,
            stride,
            c * per_chunk,
            min((c + 1) * per_chunk, rows),
            tail if c == chunks - 1 else 0,
            width,
            period,
            length,
            columns,
            part,
        )
        for g in range(states.shape[0]):
            merge(states, g, part[g, 0], part[g, 1], part[g, 2], part[g, 3])


@inline
def tile_of(u: int, tile: int, stride: int, period: int) -> Any:
    """u-th tile of wide rows of ``stride`` columns → its first column, width, period within it."""
    first = u * tile
    width = min(tile, stride - first)
    return first, width, min(period, width)


@block
def _moments_unit(
    u: int,
    x: Any,
    where: Any,
    parts: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
) -> None:
    """Unit (batch, tile, chunk) → parts (batch · groups · chunks, STATE)."""
    chunks, per_chunk = cut_rows(rows)
    c, rest = u % chunks, u // chunks
    tiles = (stride + tile - 1) // tile
    b = rest // tiles
    first, width, own = tile_of(rest % tiles, tile, stride, period)
    groups = own // length
    columns, states = np.empty((4, padded(width))), np.empty((groups, STATE))
    tile_chunk(
        x,
        where,
        b * (rows * stride + tail) + first,
        stride,
        c * per_chunk,
        min((c + 1) * per_chunk, rows),
        tail if c == chunks - 1 else 0,
        width,
        own,
        length,
        columns,
        states,
    )
    for g in range(groups):
        at = (b * (period // length) + first // length + g) * chunks + c
        for i in range(STATE):
            parts[at, i] = states[g, i]


@Kernel
def moments(
    x: Any,
    where: Any,
    result: Any,
    parts: Any,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    tile: int,
) -> None:
    """x (batch, rows, stride) → result (4, batch·groups): count, mean, low, m2."""
    chunks = cut_rows(rows)[0]
    tiles = (stride + tile - 1) // tile
    for u in prange(batch * tiles * chunks):
        _moments_unit(u, x, where, parts, rows, tail, stride, period, length, tile)
    state = np.empty((1, STATE))
    for t in range(batch * (period // length)):
        fold(parts, t * chunks, chunks, state, 0)
        conclude(state, 0, result, t)


@block
def apply_vectors(
    first: int,
    width: int,
    period: int,
    length: int,
    inner: int,
    mean: Any,
    low: Any,
    var: Any,
    t: int,
    var_from: int,
    eps: float,
    gamma: Any,
    beta: Any,
    vectors: Any,
) -> None:
    """Columns from ``first`` on → vectors (3, width): mean, factor, shift; var[0] is var_from's."""
    m, a, b = vectors[0], vectors[1], vectors[2]
    j = 0
    while j < min(width, period):
        g, c = (first + j) // length, (first + j) // inner
        factor = gamma[c] * rsqrt(var[t + g - var_from], eps)
        shift = beta[c] - low[t + g] * factor
        stop = min(min((c + 1) * inner, (g + 1) * length) - first, min(width, period))
        for k in range(j, stop):
            m[k], a[k], b[k] = mean[t + g], factor, shift
        j = stop
    for k in range(period, width):
        m[k], a[k], b[k] = m[k - period], a[k - period], b[k - period]
    for k in range(width, padded(width)):
        m[k], a[k], b[k] = 0.0, 0.0, 0.0


@block
def _normalize_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    low: Any,
    var: Any,
    eps: float,
    relu: bool,
    stream: bool,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    tiles = (stride + tile - 1) // tile
    slices = max((rows + APPLY_ROWS - 1) // APPLY_ROWS, 1)
    b, part, which = u // (tiles * slices), u // tiles % slices, u % tiles
    first, width, own = tile_of(which, tile, stride, period)
    vectors = np.empty((3, padded(width)))
    apply_vectors(
        first,
        width,
        own,
        length,
        inner,
        mean,
        low,
        var,
        b * (period // length),
        0,
        eps,
        gamma,
        beta,
        vectors,
    )
    m, f, s = vectors[0], vectors[1], vectors[2]
    at = b * (rows * stride + tail) + first
    r0, r1 = part * APPLY_ROWS, min((part + 1) * APPLY_ROWS, rows)
    tile_apply(x, y, residual, at + r0 * stride, stride, r1 - r0, width, m, f, s, relu, stream)
    if tail > 0 and part == slices - 1:
        tile_apply(x, y, residual, at + rows * stride, stride, 1, tail, m, f, s, relu, False)


@Kernel
def normalize(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    low: Any,
    var: Any,
    eps: float,
    relu: bool,
    stream: bool,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """x, and per (batch·groups,) mean, low, var → y; from the end, where x may still be cached."""
    tiles = (stride + tile - 1) // tile
    units = batch * tiles * max((rows + APPLY_ROWS - 1) // APPLY_ROWS, 1)
    for u in prange(units):
        _normalize_unit(
            units - 1 - u,
            x,
            y,
            residual,
            gamma,
            beta,
            mean,
            low,
            var,
            eps,
            relu,
            stream,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
        )


@block
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """Unit (batch, tile): its moments, then its y while x is still in cache."""
    tiles = (stride + tile - 1) // tile
    b = u // tiles
    first, width, own = tile_of(u % tiles, tile, stride, period)
    groups, t = own // length, b * (period // length)
    at = b * (rows * stride + tail) + first
    columns, states = np.empty((4, padded(width))), np.empty((groups, STATE))
    tile_moments(x, where, at, stride, rows, tail, width, own, length, columns, states)
    variances = np.empty(groups)
    for g in range(groups):
        h = t + first // length + g
        conclude(states, g, result, h)
        variances[g] = result[3, h] / result[0, h]
    apply_vectors(
        first,
        width,
        own,
        length,
        inner,
        result[1],
        result[2],
        variances,
        t,
        t + first // length,
        eps,
        gamma,
        beta,
        columns,
    )
    m, f, s = columns[0], columns[1], columns[2]
    if tail > 0:
        tile_apply(x, y, residual, at + rows * stride, stride, 1, tail, m, f, s, relu, False)
    tile_apply(x, y, residual, at, stride, rows, width, m, f, s, relu, stream)


@Kernel
def forward(
    x: Any,
    y: Any,
    where: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    tile: int,
) -> None:
    """x → y by its own statistics, which go to result (4, batch·groups)."""
    for u in prange(batch * ((stride + tile - 1) // tile)):
        _forward_unit(
            u,
            x,
            y,
            where,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            rows,
            tail,
            stride,
            period,
            length,
            inner,
            tile,
        )
