"""Gradients over columns: the backward of ``columns``, cut into the same tiles and chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.columns_layout import (
    Tile,
    gather,
    part_of,
    spread_out,
    tile_of,
    tiles_of,
)
from numba_bn._kernels.cpu.columns_moments import cut_rows
from numba_bn._kernels.cpu.lanes import fill
from numba_bn._kernels.cpu.memory import store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import add_parts, clear
from numba_bn._kernels.cpu.tile_sums import tile_gradients


@block
def tile_chunk_sums(
    dy: Any, x: Any, where: Any, tile: Tile, far: int, m: Any, columns: Any, out: Any
) -> None:
    """A tile of a chunk, means m (width,) → out (2, channels)."""
    s, t = columns[0], columns[1]
    for j in range(0, tile.width, 16):
        store(s, j, fill(0.0), False)
        store(t, j, fill(0.0), False)
    tile_gradients(dy, x, where, tile, far, m, s, t)
    gather(s, tile, tile.inner, out[0])
    gather(t, tile, tile.inner, out[1])


@unit
def tile_sums_of(
    dy: Any, x: Any, where: Any, tile: Tile, far: int, m: Any, columns: Any, out: Any
) -> None:
    """A tile → out (2, channels), chunk by chunk in order."""
    chunks, per_chunk = cut_rows(tile.rows, tile.width > tile.period)[:2]
    part = np.empty(out.shape)
    clear(out)
    for c in range(chunks):
        some = part_of(tile, c * per_chunk, per_chunk)
        tile_chunk_sums(dy, x, where, some, far, m, columns, part)
        for k in range(out.shape[1]):
            out[0, k] += part[0, k]
            out[1, k] += part[1, k]


@unit
def _sums_unit(
    u: int,
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
    parts: Any,
    sample: Tile,
    columns: int,
    far: int,
) -> None:
    """Unit (batch, tile, chunk) → parts (chunks · 2, batch · channels)."""
    rows, period, inner = sample.rows, sample.period, sample.inner
    chunks, per_chunk = cut_rows(rows, sample.stride > period)[:2]
    tiles = tiles_of(sample, columns)
    c, b = u % chunks, u // chunks // tiles
    first, tile = tile_of(sample, b, u // chunks % tiles, columns)
    some = part_of(tile, c * per_chunk, per_chunk)
    channels = tile.period // inner
    vectors, out = doubles(3, tile.width), np.empty((2, channels))
    spread_out(mean, b * (period // sample.length), first, tile, sample.length, vectors[2])
    tile_chunk_sums(dy, x, where, some, far, vectors[2], vectors, out)
    at = (b * period + first) // inner
    for i in range(2):
        for k in range(channels):
            parts[2 * c + i, at + k] = out[i, k]


@Kernel
def gradient_sums(
    dy: Any,
    x: Any,
    where: Any,
    mean: Any,
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
    """dy, x (batch, rows, stride), mean (batch · groups,) → result: Σdy, Σdy·(x-mean).

    result is (2, batch · channels).
    """
    chunks = cut_rows(rows, stride > period)[0]
    parts = np.empty((chunks * 2, result.shape[1]))
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange(batch * tiles_of(sample, columns) * chunks):
        _sums_unit(u, dy, x, where, mean, parts, sample, columns, far)
    add_parts(parts, result)
