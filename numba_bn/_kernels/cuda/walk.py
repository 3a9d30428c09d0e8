"""How threads go through memory. Both layouts are one walk.

Runs (long planes, rows): an item is ``outer`` runs of ``length`` vectors, ``stride`` apart; a team
of threads takes neighbouring vectors. Columns (channels-last, small planes): x is a matrix, a
thread keeps to ``width`` neighbouring columns and takes every so many rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba_bn._kernels.cuda.target import cuda, inline

Body = Callable[..., Any]

GEOMETRY = 17
"""Numbers that say where a launch's threads go; ``layout`` makes them."""


@cache
def walk_of(unroll: int, load: Body, use: Body) -> Any:
    """Return a walk: ``load(state, at, slot)`` fetches a vector, ``use(state, spots, rows, n)`` has
    n, from positions ``rows[0]`` on, ``rows[1]`` apart, whose first elements are ``spots``.
    """

    @inline
    def advance(at: int, place: int, gait: Any) -> Any:
        _, jump, turn, length, wrap = gait
        at += jump
        place += turn
        if place >= length:
            place -= length
            at += wrap
        return at, place

    @inline
    def walk(state: Any, spots: Any, begin: Any, gait: Any) -> None:
        j, end, at, place = begin
        step = gait[0]
        while j + (unroll - 1) * step < end:
            for u in range(unroll):
                spots[u] = at
                at, place = advance(at, place, gait)
            for u in range(unroll):
                load(state, spots[u], u)
            use(state, spots, (j, step), unroll)
            j += unroll * step
        while j < end:
            spots[0] = at
            load(state, at, 0)
            use(state, spots, (j, step), 1)
            at, place = advance(at, place, gait)
            j += step

    return walk


@cache
def begin_of(columns: bool, width: int, backwards: bool) -> Any:
    """Return ``begin(geometry)``: item, split, the walk's begin and gait, for this thread.

    Backwards, blocks come in reverse: a second pass begins with what the first left in the cache.
    """

    @inline
    def block_of() -> Any:
        if backwards:
            return cuda.gridDim.x - 1 - cuda.blockIdx.x, cuda.gridDim.y - 1 - cuda.blockIdx.y
        return cuda.blockIdx.x, cuda.blockIdx.y

    @inline
    def begin_runs(geometry: Any) -> Any:
        items, groups, batch, run, total, per, length, stride, jump, turn, wrap = geometry[:11]
        block, split = block_of()
        item = block * cuda.blockDim.y + cuda.threadIdx.y
        j = split * per + cuda.threadIdx.x
        end = min((split + 1) * per, total) if item < items else 0
        outer = j // length
        place = j - outer * length
        sample = item // groups
        at = sample * batch + (item - sample * groups) * run + outer * stride + place * width
        return item, split, (j, end, at, place), (cuda.blockDim.x, jump, turn, length, wrap)

    @inline
    def begin_columns(geometry: Any) -> Any:
        tiles, columns, batch, _, total, per, length, stride, jump, turn, wrap = geometry[:11]
        block, split = block_of()
        sample = block // tiles
        column = ((block - sample * tiles) * cuda.blockDim.x + cuda.threadIdx.x) * width
        j = split * per + cuda.threadIdx.y
        end = min((split + 1) * per, total) if column < columns else 0
        at = sample * batch + j * stride + column
        return block, split, (j, end, at, 0), (cuda.blockDim.y, jump, turn, length, wrap)

    return begin_columns if columns else begin_runs
