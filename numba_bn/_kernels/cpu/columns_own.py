"""Instance and group norm over columns: samples whose rows are one block, some at a time.

The layout is that of ``columns_layout``. What is worked out per group is so for all groups of some
samples at once, as in ``runs_own``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import straight
from numba_bn._kernels.cpu.columns import apply_by
from numba_bn._kernels.cpu.columns_layout import Tile, moved, size_of, tile_of, tiles_of
from numba_bn._kernels.cpu.columns_moments import sum_about
from numba_bn._kernels.cpu.memory import nearest, scalar
from numba_bn._kernels.cpu.own import KEPT, own_factors, spreads, standards
from numba_bn._kernels.cpu.precision import all_fit
from numba_bn._kernels.cpu.room import doubles, vectors_as
from numba_bn._kernels.cpu.rows import AT_ONCE
from numba_bn._kernels.cpu.state import is_off, spread
from numba_bn._kernels.cpu.tiles import lead_of


@inlined
def samples_at_once(values: int, samples: int, tiles: int) -> int:
    """Values of a sample → how many samples; one if its groups are not all of one tile."""
    return 1 if tiles > 1 else max(min(AT_ONCE // values, samples), 1)


@block
def first_pivots(x: Any, tile: Tile, pivots: Any) -> None:
    """One value of each group in the middle row of a tile → pivots (groups,)."""
    middle = tile.at + tile.rows // 2 * tile.stride
    for g in range(pivots.size):
        pivots[g] = scalar(x, middle + g * tile.length)


@block
def better_pivots(x: Any, n: float, pivots: Any, s: Any, m2: Any) -> bool:
    """Those that were too far from the mean come near it; tell whether there are any."""
    moved = 0
    for g in range(pivots.size):
        if is_off(n, s[g], m2[g]):
            pivots[g] = nearest(x, pivots[g] + s[g] / n)
            moved += 1
    return moved > 0


@block
def _moments(x: Any, tile: Tile, count: int, far: int, n: float, columns: Any, kept: Any) -> None:
    """A tile of each of ``count`` samples → kept: p, Σ(x-p), Σ(x-mean)² of their groups."""
    groups = tile.period // tile.length
    for attempt in range(2):
        for k in range(count):
            one, here = moved(tile, k * size_of(tile)), slice(k * groups, (k + 1) * groups)
            p, s, q = kept[0, here], kept[1, here], kept[2, here]
            if attempt == 0:
                first_pivots(x, one, p)
            elif not better_pivots(x, n, p, s, q):
                continue
            sum_about(x, None, one, far, p, columns, s, q)
            if attempt == 1:
                for g in range(groups):
                    q[g] = spread(n, s[g], q[g])
        if attempt == 1 or not spreads(kept, count * groups, n):
            break


@block
def _forward_samples(
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    t: int,
    tile: Tile,
    first: int,
    count: int,
    n: float,
    far: int,
    columns: Any,
    kept: Any,
    factors: Any,
    v: Any,
    w: Any,
) -> None:
    """A tile of each of ``count`` samples → y, result[:, t :]."""
    size, channels = tile.length // tile.inner, tile.period // tile.inner
    groups = count * (tile.period // tile.length)
    _moments(x, tile, count, far, n, columns, kept)
    standards(kept, groups, n, eps, result, t)
    own_factors(x, y, gamma, beta, first // tile.inner, kept, groups, size, factors)
    fit = all_fit(x, y, factors, 0, count * channels)  # to ask each small sample takes longer
    for k in range(count):
        c, one = k * channels, moved(tile, k * size_of(tile))
        fits = fit or all_fit(x, y, factors, c, channels)
        apply_by(x, y, residual, factors, fits, c, 0, one, straight(0), relu, stream, v, w)


@unit
def _forward_unit(
    u: int,
    x: Any,
    y: Any,
    residual: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    relu: bool,
    stream: bool,
    result: Any,
    batch: int,
    sample: Tile,
    columns: int,
    slab: int,
    far: int,
) -> None:
    """Unit (slab of samples, tile): some samples at a time."""
    tiles, size, length = tiles_of(sample, columns), size_of(sample), sample.length
    b0 = u // tiles * slab
    b1 = min(b0 + slab, batch)
    first, tile = tile_of(sample, 0, u % tiles, columns)
    width, own, n = tile.width, tile.period, float(size // sample.period * length)
    some = samples_at_once(size, b1 - b0, tiles)
    vectors, kept = doubles(4, width), np.empty((KEPT, some * (own // length)))
    factors = np.empty((3, some * (own // sample.inner)))
    v, w = vectors_as(x, y, 3, width, lead_of(y, tile, stream)), doubles(3, width)
    for b in range(b0, b1, some):
        _forward_samples(
            x,
            y,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            (b * sample.period + first) // length,
            moved(tile, b * size),
            first,
            min(some, b1 - b),
            n,
            far,
            vectors,
            kept,
            factors,
            v,
            w,
        )


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
    columns: int,
    slab: int,
    far: int,
) -> None:
    """x → y by its own statistics; result (4, batch·groups), or (4, 0) if nobody asks.

    ``where`` is None: it is here as the other forwards have it.
    """
    sample = Tile(0, stride, rows, tail, stride, period, length, inner)
    for u in prange((batch + slab - 1) // slab * tiles_of(sample, columns)):
        _forward_unit(
            u,
            x,
            y,
            residual,
            gamma,
            beta,
            eps,
            relu,
            stream,
            result,
            batch,
            sample,
            columns,
            slab,
            far,
        )
