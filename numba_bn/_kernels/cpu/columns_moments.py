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
from numba_bn._kernels.cpu.columns_layout import (
    Tile,
    gather,
    part_of,
    spread_out,
    tail_of,
    tile_of,
    tiles_of,
)
from numba_bn._kernels.cpu.lanes import fill
from numba_bn._kernels.cpu.memory import nearest, scalar, store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import STATE, clear, conclude_parts, is_far, merge_each, spread
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
def _count(tile: Tile, counts: Any) -> None:
    """A tile → how many values each of its groups has."""
    rows, tail, width, period, length = tile.rows, tile.tail, tile.width, tile.period, tile.length
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
    x: Any, where: Any, tile: Tile, far: int, pivots: Any, columns: Any, s_of: Any, q_of: Any
) -> None:
    """A tile about pivots (groups,) → Σ(x-p), Σ(x-p)².

    With a mask columns[3] holds the counts of columns.
    """
    p, s, q, n = columns[0], columns[1], columns[2], columns[3]
    spread_out(pivots, 0, 0, tile, tile.length, p)
    for j in range(0, tile.width, 16):
        store(s, j, fill(0.0), False)
        store(q, j, fill(0.0), False)
        if where is not None:
            store(n, j, fill(0.0), False)
    for k in range(2):
        tile_sums(x, where, tile if k == 0 else tail_of(tile), far, p, s, q, n)
    gather(s, tile, tile.length, s_of)
    gather(q, tile, tile.length, q_of)


@block
def _take_rows(
    x: Any, where: Any, tile: Tile, far: int, pivots: Any, columns: Any, groups: Any, states: Any
) -> None:
    """A tile of a block → states (STATE, groups); summed again where a pivot is far from a mean."""
    middle = tile.at + tile.rows // 2 * tile.stride
    for g in range(pivots.size):
        pivots[g] = 0.0 if where is not None else scalar(x, middle + g * tile.length)
    s, q, n = groups[0], groups[1], groups[2]
    # one call in a loop of two: a second call would be compiled a second time
    for attempt in range(2):
        sum_about(x, where, tile, far, pivots, columns, s, q)
        if where is not None:
            gather(columns[3], tile, tile.length, n)
        else:
            _count(tile, n)
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
    x: Any, where: Any, tile: Tile, block_rows: int, far: int, columns: Any, states: Any
) -> None:
    """A tile of a chunk → states, block by block."""
    count = states.shape[1]
    pivots, groups = np.empty(count), doubles(3, count)
    clear(states)
    for r in range(0, tile.rows, block_rows):
        some = part_of(tile, r, block_rows)
        _take_rows(x, where, some, far, pivots, columns, groups, states)


@unit
def tile_moments(x: Any, where: Any, tile: Tile, far: int, columns: Any, states: Any) -> None:
    """A tile → states (STATE, groups), chunk by chunk in order."""
    chunks, per_chunk, block_rows = cut_rows(tile.rows, tile.width > tile.period)
    part = np.empty(states.shape)
    clear(states)
    for c in range(chunks):
        some = part_of(tile, c * per_chunk, per_chunk)
        tile_chunk(x, where, some, block_rows, far, columns, part)
        merge_each(states, part[0], part[1], part[2], part[3])


@unit
def _moments_unit(
    u: int, x: Any, where: Any, parts: Any, sample: Tile, columns: int, far: int
) -> None:
    """Unit (batch, tile, chunk) → parts (chunks · STATE, batch · groups)."""
    rows, period, length = sample.rows, sample.period, sample.length
    chunks, per_chunk, block_rows = cut_rows(rows, sample.stride > period)
    tiles = tiles_of(sample, columns)
    c, b = u % chunks, u // chunks // tiles
    first, tile = tile_of(sample, b, u // chunks % tiles, columns)
    some = part_of(tile, c * per_chunk, per_chunk)
    groups = tile.period // length
    states = np.empty((STATE, groups))
    tile_chunk(x, where, some, block_rows, far, doubles(4, tile.width), states)
    at = (b * period + first) // length
    for i in range(STATE):
        for g in range(groups):
            parts[c * STATE + i, at + g] = states[i, g]


@Kernel
def moments(
    x: Any,
    where: Any,
    result: Any,
    batch: int,
    rows: int,
    tail: int,
    stride: int,
    period: int,
    length: int,
    inner: int,
    columns: int,
    far: int,
) -> None:
    """x (batch, rows, stride) → result (4, batch·groups): count, mean, low, m2."""
    chunks = cut_rows(rows, stride > period)[0]
    parts = np.empty((chunks * STATE, result.shape[1]))
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange(batch * tiles_of(sample, columns) * chunks):
        _moments_unit(u, x, where, parts, sample, columns, far)
    conclude_parts(parts, result)
