"""Moments of runs: channels-first data and rows, where a group's values are contiguous.

x is flat, (batch, outer, groups, length); a group's statistics are over outer and length. Its
values are cut into blocks, blocks make chunks, chunks make the group: where a cut is made depends
on outer and length alone, so every strategy and any number of threads gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import by_pages, by_rows, further, near, straight
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import run_count, run_sums
from numba_bn._kernels.cpu.memory import load, nearest, scalar, store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import STATE, conclude, fold, is_far, merge, take

BLOCK = 32768  # values summed about one pivot
MAX_CHUNKS = 64  # parts a group may be split into
LANES = 16


@inlined
def cut(outer: int, length: int) -> Any:
    """Group of (outer, length) → number of chunks, blocks in a chunk, blocks."""
    if length <= BLOCK:
        rows = BLOCK // max(length, 1)
        blocks = (outer + rows - 1) // rows
    else:
        blocks = outer * ((length + BLOCK - 1) // BLOCK)
    per_chunk = (blocks + MAX_CHUNKS - 1) // MAX_CHUNKS
    return (blocks + per_chunk - 1) // per_chunk, per_chunk, blocks


@inlined
def bounds(k: int, outer: int, length: int) -> Any:
    """k-th block → its rows [o0, o1) and values [e0, e1) of each row."""
    if length <= BLOCK:
        rows = BLOCK // max(length, 1)
        return k * rows, min((k + 1) * rows, outer), 0, length
    pieces = (length + BLOCK - 1) // BLOCK
    o, e = k // pieces, (k % pieces) * BLOCK
    return o, o + 1, e, min(e + BLOCK, length)


@inlined
def pieces_of(runs: int, length: int) -> Any:
    """Runs of a length → units of about a block: number, runs in a unit, pieces of a run."""
    if length >= BLOCK:
        pieces = (length + BLOCK - 1) // BLOCK
        return runs * pieces, 1, pieces
    together = BLOCK // max(length, 1)
    return (runs + together - 1) // together, together, 1


@inlined
def way_of(x: Any, far: bool, at: int, rows: int, stride: int, length: int, slab: int) -> Any:
    """Return how to ask for memory in the first of rows: ``slab`` runs from x[at] on, or a part."""
    if length > BLOCK:
        return by_pages(x, far, at, length, 0)
    return by_rows(x, far, at, slab * length, stride, rows)


@block
def _sum_rows(
    x: Any,
    where: Any,
    at: int,
    rows: int,
    stride: int,
    n: int,
    slab: int,
    length: int,
    pivots: Any,
    sums: Any,
    far: bool,
) -> None:
    """Rows of ``slab`` neighbouring runs of n → sums (slab, 2, 16) about pivots (slab,)."""
    for j in range(slab * 2):
        store(sums, j * LANES, fill(0.0), False)
    way = way_of(x, far, at, rows, stride, length, slab)
    for o in range(rows):
        for j in range(slab):
            i = at + o * stride + j * length
            k = j * 2 * LANES
            s, q = load(sums, k), load(sums, k + LANES)
            s, q = run_sums(x, where, i, n, way, fill(pivots[j]), s, q)
            store(sums, k, s, False)
            store(sums, k + LANES, q, False)
        way = further(way, stride)


@block
def _take_block(
    x: Any,
    where: Any,
    at: int,
    rows: int,
    stride: int,
    n: int,
    pivot: float,
    sums: Any,
    j: int,
    states: Any,
) -> None:
    """Sums of one run's block → states[j]; summed again where the pivot was far from the mean."""
    k = j * 2 * LANES
    s, q = total(load(sums, k)), total(load(sums, k + LANES))
    count = rows * n
    if where is not None:
        count = 0
        for o in range(rows):
            count += run_count(where, at + o * stride, n)
    if is_far(float(count), s, q):
        pivot = nearest(x, pivot + s / count)
        again = fill(pivot)
        sv, qv = fill(0.0), fill(0.0)
        for o in range(rows):
            sv, qv = run_sums(x, where, at + o * stride, n, straight(near(x)), again, sv, qv)
        s, q = total(sv), total(qv)
    take(states, j, float(count), pivot, s, q)


@block
def slab_chunk(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    outer: int,
    length: int,
    first: int,
    last: int,
    slab: int,
    pivots: Any,
    sums: Any,
    states: Any,
    far: bool,
) -> None:
    """Blocks [first, last) of ``slab`` neighbouring groups from x[at] on → states (slab, STATE)."""
    for j in range(slab):
        for i in range(STATE):
            states[j, i] = 0.0
    for k in range(first, last):
        o0, o1, e0, e1 = bounds(k, outer, length)
        start = at + o0 * stride + e0
        middle = start + ((o1 - o0) // 2) * stride + (e1 - e0) // 2
        for j in range(slab):
            # a value of its own, and not an outer one: borders are where padding is
            pivots[j] = scalar(x, middle + j * length) if where is None else 0.0
        _sum_rows(x, where, start, o1 - o0, stride, e1 - e0, slab, length, pivots, sums, far)
        for j in range(slab):
            _take_block(
                x, where, start + j * length, o1 - o0, stride, e1 - e0, pivots[j], sums, j, states
            )


@unit
def slab_moments(
    x: Any,
    where: Any,
    at: int,
    stride: int,
    outer: int,
    length: int,
    slab: int,
    states: Any,
    far: bool,
) -> None:
    """``slab`` neighbouring groups from x[at] on → states (slab, STATE)."""
    chunks, per_chunk, blocks = cut(outer, length)
    pivots, sums = np.empty(slab), doubles(1, slab * 2 * LANES)[0]
    part = np.empty((slab, STATE))
    for j in range(slab):
        for i in range(STATE):
            states[j, i] = 0.0
    for c in range(chunks):
        first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
        slab_chunk(x, where, at, stride, outer, length, first, last, slab, pivots, sums, part, far)
        for j in range(slab):
            merge(states, j, part[j, 0], part[j, 1], part[j, 2], part[j, 3])


@unit
def _moments_unit(
    u: int,
    x: Any,
    where: Any,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    far: bool,
    parts: Any,
) -> None:
    """Unit (batch, slab, chunk) → parts (batch · groups · chunks, STATE)."""
    chunks, per_chunk, blocks = cut(outer, length)
    slabs = (groups + slab - 1) // slab
    c, rest = u % chunks, u // chunks
    b, g = rest // slabs, (rest % slabs) * slab
    wide = min(slab, groups - g)
    stride = groups * length
    pivots, sums = np.empty(wide), doubles(1, wide * 2 * LANES)[0]
    states = np.empty((wide, STATE))
    first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
    slab_chunk(
        x,
        where,
        b * outer * stride + g * length,
        stride,
        outer,
        length,
        first,
        last,
        wide,
        pivots,
        sums,
        states,
        far,
    )
    for j in range(wide):
        at = (b * groups + g + j) * chunks + c
        for i in range(STATE):
            parts[at, i] = states[j, i]


@Kernel
def moments(
    x: Any,
    where: Any,
    result: Any,
    parts: Any,
    batch: int,
    outer: int,
    groups: int,
    length: int,
    slab: int,
    far: bool,
) -> None:
    """x (batch, outer, groups, length) → result (4, batch·groups): count, mean, low, m2."""
    chunks = cut(outer, length)[0]
    slabs = (groups + slab - 1) // slab
    for u in prange(batch * slabs * chunks):
        _moments_unit(u, x, where, outer, groups, length, slab, far, parts)
    state = np.empty((1, STATE))
    for t in range(batch * groups):
        fold(parts, t * chunks, chunks, state, 0)
        conclude(state, 0, result, t)
