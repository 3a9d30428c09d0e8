"""Moments of columns: channels-last data, and planes too small for a loop of their own.

A group's values are cut into blocks of rows, blocks into chunks, by the shape alone: the same bits
for every tile width, strategy and number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_layout import gather, spread_out, tile_of
from numba_bn._kernels.cpu.lanes import fill
from numba_bn._kernels.cpu.memory import nearest, scalar, store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import STATE, clear, conclude_each, is_far, merge_each, spread
from numba_bn._kernels.cpu.tile_sums import tile_sums

MIN_ROWS, MAX_ROWS = 512, 4096  # rows summed about one pivot
_FEW_FOLDED = 256  # of few folded rows, which else were one thread's: their channels soon merge
MAX_CHUNKS = 24  # parts a tile may be split into: their states take memory per channel


@inlined
def cut_rows(rows: int, folded: bool) -> Any:
    """Rows → number of chunks, rows in a chunk (whole blocks), rows in a block.

    ``folded`` rows are several of x's each.
    """
    least = _FEW_FOLDED if folded and rows <= 2 * MIN_ROWS else MIN_ROWS
    block_rows = min(max((rows + MAX_CHUNKS - 1) // MAX_CHUNKS, least), MAX_ROWS)
    blocks = max((rows + block_rows - 1) // block_rows, 1)
    if blocks > 1:  # an even number of equal blocks, so that no thread waits for another's last
        block_rows = (rows + blocks + blocks % 2 - 1) // (blocks + blocks % 2)
        blocks = (rows + block_rows - 1) // block_rows
    per_chunk = (blocks + MAX_CHUNKS - 1) // MAX_CHUNKS
    return (blocks + per_chunk - 1) // per_chunk, per_chunk * block_rows, block_rows


@block
def _count(rows: int, tail: int, width: int, period: int, length: int, counts: Any) -> None:
    """Rows of ``width`` columns, and ``tail`` more → how many values each group has."""
    whole, rest = rows * (width // period) + tail // period, width % period
    more = tail % period
    for g in range(period // length):
        first = g * length
        counts[g] = float(
            whole * length
            + rows * max(min(rest - first, length), 0)
            + max(min(more - first, length), 0)
        )


@block
def sum_about(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    period: int,
    length: int,
    far: int,
    pivots: Any,
    columns: Any,
    s_of: Any,
    q_of: Any,
) -> None:
    """Rows of a tile, and ``tail`` columns after, about pivots (groups,) → Σ(x-p), Σ(x-p)².

    With a mask columns[3] holds the counts of columns.
    """
    p, s, q, n = columns[0], columns[1], columns[2], columns[3]
    spread_out(pivots, 0, 0, width, period, length, p)
    for j in range(0, width, 16):
        store(s, j, fill(0.0), False)
        store(q, j, fill(0.0), False)
        if where is not None:
            store(n, j, fill(0.0), False)
    for k in range(2):
        start, some = (at, rows) if k == 0 else (at + rows * stride, 1 if tail > 0 else 0)
        wide = width if k == 0 else tail
        tile_sums(x, where, start, stride, some, wide, far, p, s, q, n)
    gather(s, width, period, length, s_of)
    gather(q, width, period, length, q_of)


@block
def _take_rows(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    rows: int,
    tail: int,
    width: int,
    period: int,
    length: int,
    far: int,
    pivots: Any,
    columns: Any,
    groups: Any,
    states: Any,
) -> None:
    """Rows of a tile → states (STATE, groups); summed again where a pivot was far from the mean."""
    middle = at + rows // 2 * stride
    for g in range(pivots.size):
        pivots[g] = 0.0 if where is not None else scalar(x, middle + g * length)
    s, q, n = groups[0], groups[1], groups[2]
    # one call in a loop of two: a second call would be compiled a second time
    for attempt in range(2):
        sum_about(
            x, where, at, stride, rows, tail, width, period, length, far, pivots, columns, s, q
        )
        if where is not None:
            gather(columns[3], width, period, length, n)
        else:
            _count(rows, tail, width, period, length, n)
        away = 0  # all are counted, none ends the loop: so it is one of vectors
        for g in range(pivots.size):
            away += 1 if (n[g] > 0.0) & is_far(n[g], s[g], q[g]) else 0
        if attempt == 1 or away == 0:
            break
        for g in range(pivots.size):
            # of those alone: which others are in the tile must change no bit
            if (n[g] > 0.0) & is_far(n[g], s[g], q[g]):
                better = nearest(x, pivots[g] + s[g] / n[g])
                if better - better == 0.0:
                    pivots[g] = better
    for g in range(pivots.size):
        q[g] = spread(n[g], s[g], q[g])
    merge_each(states, n[: pivots.size], pivots, s, q)


@unit
def tile_chunk(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    first: int,
    last: int,
    block_rows: int,
    tail: int,
    width: int,
    period: int,
    length: int,
    far: int,
    columns: Any,
    states: Any,
) -> None:
    """Rows [first, last) of a tile, and ``tail`` columns of the row after → states."""
    count = states.shape[1]
    pivots, groups = np.empty(count), doubles(3, count)
    clear(states)
    for r in range(first, last, block_rows):
        rows = min(block_rows, last - r)
        _take_rows(
            x,
            where,
            at + r * stride,
            stride,
            rows,
            tail if r + rows == last else 0,
            width,
            period,
            length,
            far,
            pivots,
            columns,
            groups,
            states,
        )


@unit
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
    far: int,
    columns: Any,
    states: Any,
) -> None:
    """All rows of a tile → states (STATE, groups), chunk by chunk in order."""
    chunks, per_chunk, block_rows = cut_rows(rows, width > period)
    part = np.empty(states.shape)
    clear(states)
    for c in range(chunks):
        tile_chunk(
            x,
            where,
            at,
            stride,
            c * per_chunk,
            min((c + 1) * per_chunk, rows),
            block_rows,
            tail if c == chunks - 1 else 0,
            width,
            period,
            length,
            far,
            columns,
            part,
        )
        merge_each(states, part[0], part[1], part[2], part[3])


@unit
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
    far: int,
) -> None:
    """Unit (batch, tile, chunk) → parts (chunks · STATE, batch · groups)."""
    chunks, per_chunk, block_rows = cut_rows(rows, stride > period)
    c, rest = u % chunks, u // chunks
    tiles = (stride + tile - 1) // tile
    b = rest // tiles
    first, width, own = tile_of(rest % tiles, tile, stride, period)
    groups = own // length
    columns, states = doubles(4, width), np.empty((STATE, groups))
    tile_chunk(
        x,
        where,
        b * (rows * stride + tail) + first,
        stride,
        c * per_chunk,
        min((c + 1) * per_chunk, rows),
        block_rows,
        tail if c == chunks - 1 else 0,
        width,
        own,
        length,
        far,
        columns,
        states,
    )
    at = b * (period // length) + first // length
    for i in range(STATE):
        for g in range(groups):
            parts[c * STATE + i, at + g] = states[i, g]


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
    far: int,
) -> None:
    """x (batch, rows, stride) → result (4, batch·groups): count, mean, low, m2."""
    chunks = cut_rows(rows, stride > period)[0]
    tiles = (stride + tile - 1) // tile
    for u in prange(batch * tiles * chunks):
        _moments_unit(u, x, where, parts, rows, tail, stride, period, length, tile, far)
    clear(result)
    for i in range(0, chunks * STATE, STATE):
        merge_each(result, parts[i], parts[i + 1], parts[i + 2], parts[i + 3])
    conclude_each(result[0], result[1], result[2], result[3])
