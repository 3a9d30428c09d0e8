"""Moments of runs: channels-first data and rows, where a group's values are contiguous.

x is flat, (batch, outer, groups, length); a group's statistics are over outer and length. Its
values are cut into blocks, blocks make chunks, chunks make the group: where a cut is made depends
on outer and length alone, so every strategy and any number of threads gives the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from numba_bn._kernels._compile import block, inlined, unit
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu.asking import by_pages, by_rows, further, near, straight
from numba_bn._kernels.cpu.lanes import fill, total
from numba_bn._kernels.cpu.loops import run_count, run_sums
from numba_bn._kernels.cpu.memory import load, nearest, scalar, store
from numba_bn._kernels.cpu.room import doubles
from numba_bn._kernels.cpu.state import STATE, conclude_parts, is_far, merge, take

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


class Slab(NamedTuple):
    """Neighbouring runs in some rows of x."""

    at: int
    """Where they begin."""
    stride: int
    rows: int
    length: int
    """Values of a run."""
    runs: int


@inlined
def slab_of(b: int, g: int, most: int, rows: int, groups: int, length: int) -> Slab:
    """Runs of sample ``b`` from the g-th of ``groups`` on, ``most`` at most."""
    stride = groups * length
    return Slab(b * rows * stride + g * length, stride, rows, length, min(most, groups - g))


@inlined
def channels_of(slab: Slab, size: int) -> Slab:
    """A slab of groups of ``size`` channels → the same of channels."""
    at, stride, rows, length, runs = slab
    return Slab(at, stride, rows, length // size, runs * size)


@inlined
def block_of(slab: Slab, k: int) -> tuple[Slab, int]:
    """k-th block of a slab → its rows as a slab, and how many values of a run are its."""
    at, stride, rows, length, runs = slab
    o0, o1, e0, e1 = bounds(k, rows, length)
    return Slab(at + o0 * stride + e0, stride, o1 - o0, length, runs), e1 - e0


@inlined
def way_of(x: Any, far: bool, slab: Slab) -> Any:
    """Return how to ask for memory in the first row of a slab's block."""
    at, stride, rows, length, runs = slab
    if length > BLOCK:
        return by_pages(x, far, at, length, 0)
    return by_rows(x, far, at, runs * length, stride, rows)


@block
def _sum_rows(x: Any, where: Any, slab: Slab, n: int, pivots: Any, sums: Any, far: bool) -> None:
    """A slab, n values of each of its runs → sums (runs, 2, 16) about pivots (runs,)."""
    for j in range(slab.runs * 2):
        store(sums, j * LANES, fill(0.0), False)
    way = way_of(x, far, slab)
    for o in range(slab.rows):
        for j in range(slab.runs):
            i = slab.at + o * slab.stride + j * slab.length
            k = j * 2 * LANES
            s, q = load(sums, k), load(sums, k + LANES)
            s, q = run_sums(x, where, i, n, way, fill(pivots[j]), s, q)
            store(sums, k, s, False)
            store(sums, k + LANES, q, False)
        way = further(way, slab.stride)


@block
def _take_block(
    x: Any, where: Any, slab: Slab, n: int, pivot: float, sums: Any, j: int, states: Any
) -> None:
    """Sums of a slab's j-th run → states[j]; summed again where the pivot is far from the mean."""
    k, at = j * 2 * LANES, slab.at + j * slab.length
    s, q = total(load(sums, k)), total(load(sums, k + LANES))
    count = slab.rows * n
    if where is not None:
        count = 0
        for o in range(slab.rows):
            count += run_count(where, at + o * slab.stride, n)
    if is_far(float(count), s, q):
        pivot = nearest(x, pivot + s / count)
        again = fill(pivot)
        sv, qv = fill(0.0), fill(0.0)
        for o in range(slab.rows):
            i, way = at + o * slab.stride, straight(near(x))
            sv, qv = run_sums(x, where, i, n, way, again, sv, qv)
        s, q = total(sv), total(qv)
    take(states, j, float(count), pivot, s, q)


@block
def slab_chunk(
    x: Any,
    where: Any,
    slab: Slab,
    first: int,
    last: int,
    pivots: Any,
    sums: Any,
    states: Any,
    far: bool,
) -> None:
    """Blocks [first, last) of a slab of groups → states (groups, STATE)."""
    for j in range(slab.runs):
        for i in range(STATE):
            states[j, i] = 0.0
    for k in range(first, last):
        some, n = block_of(slab, k)
        middle = some.at + some.rows // 2 * some.stride + n // 2
        for j in range(slab.runs):
            # a value of its own, and not an outer one: borders are where padding is
            pivots[j] = scalar(x, middle + j * slab.length) if where is None else 0.0
        _sum_rows(x, where, some, n, pivots, sums, far)
        for j in range(slab.runs):
            _take_block(x, where, some, n, pivots[j], sums, j, states)


@unit
def slab_moments(x: Any, where: Any, slab: Slab, states: Any, far: bool) -> None:
    """A slab of groups → states (groups, STATE), chunk by chunk in order."""
    chunks, per_chunk, blocks = cut(slab.rows, slab.length)
    pivots, sums = np.empty(slab.runs), doubles(1, slab.runs * 2 * LANES)[0]
    part = np.empty((slab.runs, STATE))
    for j in range(slab.runs):
        for i in range(STATE):
            states[j, i] = 0.0
    for c in range(chunks):
        first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
        slab_chunk(x, where, slab, first, last, pivots, sums, part, far)
        for j in range(slab.runs):
            merge(states, j, part[j, 0], part[j, 1], part[j, 2], part[j, 3])


@unit
def _moments_unit(
    u: int,
    x: Any,
    where: Any,
    outer: int,
    groups: int,
    length: int,
    together: int,
    far: bool,
    parts: Any,
) -> None:
    """Unit (batch, slab, chunk) → parts (chunks · STATE, batch · groups)."""
    chunks, per_chunk, blocks = cut(outer, length)
    slabs = (groups + together - 1) // together
    c, rest = u % chunks, u // chunks
    b, g = rest // slabs, (rest % slabs) * together
    slab = slab_of(b, g, together, outer, groups, length)
    pivots, sums = np.empty(slab.runs), doubles(1, slab.runs * 2 * LANES)[0]
    states = np.empty((slab.runs, STATE))
    first, last = c * per_chunk, min((c + 1) * per_chunk, blocks)
    slab_chunk(x, where, slab, first, last, pivots, sums, states, far)
    for j in range(slab.runs):
        for i in range(STATE):
            parts[c * STATE + i, b * groups + g + j] = states[j, i]


@Kernel
def moments(
    x: Any,
    where: Any,
    result: Any,
    batch: int,
    outer: int,
    groups: int,
    length: int,
    together: int,
    far: bool,
) -> None:
    """x (batch, outer, groups, length) → result (4, batch·groups): count, mean, low, m2."""
    chunks = cut(outer, length)[0]
    slabs, parts = (groups + together - 1) // together, np.empty((chunks * STATE, batch * groups))
    for u in prange(batch * slabs * chunks):
        _moments_unit(u, x, where, outer, groups, length, together, far, parts)
    conclude_parts(parts, result)
