"""How blocks put together what their threads carry: four float64 numbers for each statistic.

Of moments: count, pivot, sum and sum of squares about the pivot. Of gradients: two sums, two idle.
Everything is added in an order that the shape alone decides, no matter which block comes last, so
a result has the same bits in every run.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba_bn._kernels.cuda.kernel import COUNTERS, THREADS
from numba_bn._kernels.cuda.memory import count_up, getter, putter, reset
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.walk import Body

WARP, WARPS, ALL = 32, THREADS // 32, 0xFFFFFFFF
CARRIED = 4
AT_ONCE = 4  # columns of a thread that go through shared memory at once

get, put = getter("float64"), putter("float64")


@inline
def keep(shared: Any, at: int, s: Any) -> None:
    """State → shared memory."""
    for i in range(CARRIED):
        shared[i, at] = s[i]


@inline
def kept(shared: Any, at: int) -> Any:
    """Shared memory → state."""
    return shared[0, at], shared[1, at], shared[2, at], shared[3, at]


@inline
def write_part(address: int, at: int, s: Any) -> None:
    """State → work space."""
    for i in range(CARRIED):
        put(address, at * CARRIED + i, s[i])


@inline
def read_part(address: int, at: int) -> Any:
    """Work space → state."""
    at *= CARRIED
    return get(address, at), get(address, at + 1), get(address, at + 2), get(address, at + 3)


@inline
def thread_of() -> Any:
    """Return the number of this thread in its block."""
    return cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x


@inline
def is_last(counters: int, at: int, parts: int) -> Any:
    """Tell the block that asks last that all parts are written; all its threads must ask."""
    flag = cuda.shared.array(1, types.int64)
    cuda.threadfence()
    cuda.syncthreads()
    if thread_of() == 0:
        flag[0] = count_up(counters, at)
    cuda.syncthreads()
    last = flag[0] == parts - 1
    if last:
        cuda.threadfence()
        if thread_of() == 0:
            reset(counters, at)
    return last


@cache
def over_lanes(merge: Body) -> Any:
    """Return ``over(s, lanes)``: the states of ``lanes`` neighbours (a power of two) → one."""

    @inline
    def over(s: Any, lanes: int) -> Any:
        by = lanes // 2
        while by > 0:
            other = (
                cuda.shfl_down_sync(ALL, s[0], by),
                cuda.shfl_down_sync(ALL, s[1], by),
                cuda.shfl_down_sync(ALL, s[2], by),
                cuda.shfl_down_sync(ALL, s[3], by),
            )
            s = merge(s, other)
            by //= 2
        return s

    return over


@cache
def _over_team(merge: Body) -> Any:
    """Return ``over_team(s, shared)``: the states of a team → one, which its first thread has."""
    over = over_lanes(merge)

    @inline
    def over_team(s: Any, shared: Any) -> Any:
        s = over(s, WARP)
        warps = cuda.blockDim.x // WARP
        if warps > 1:
            first = cuda.threadIdx.y * warps
            if cuda.threadIdx.x % WARP == 0:
                keep(shared, first + cuda.threadIdx.x // WARP, s)
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                for i in range(1, warps):
                    s = merge(s, kept(shared, first + i))
        return s

    return over_team


@cache
def team_together(merge: Body) -> Any:
    """Return ``together(s)``: the states of a team → one, which all its threads get."""
    over_team = _over_team(merge)

    @inline
    def together(s: Any) -> Any:
        shared = cuda.shared.array((CARRIED, WARPS), types.float64)
        result = cuda.shared.array((CARRIED, WARPS), types.float64)
        s = over_team(s, shared)
        if cuda.threadIdx.x == 0:
            keep(result, cuda.threadIdx.y, s)
        cuda.syncthreads()
        return kept(result, cuda.threadIdx.y)

    return together


@cache
def runs_together(merge: Body, finish: Body) -> Any:
    """Return ``together(s, item, items, split, workspace, results)`` for teams of threads."""
    over_team = _over_team(merge)

    @inline
    def together(s: Any, item: int, items: int, split: int, workspace: int, results: Any) -> Any:
        shared = cuda.shared.array((CARRIED, WARPS), types.float64)
        splits, parts = cuda.gridDim.y, workspace + COUNTERS
        s = over_team(s, shared)
        last = True
        if splits > 1:
            if cuda.threadIdx.x == 0:
                write_part(parts, item * splits + split, s)
            last = is_last(workspace, item, splits)
            if last:
                s = (0.0, 0.0, 0.0, 0.0)
                for i in range(cuda.threadIdx.x, splits, cuda.blockDim.x):
                    s = merge(s, read_part(parts, item * splits + i))
                s = over_team(s, shared)
        if last and cuda.threadIdx.x == 0 and item < items:
            finish(results, item, s)
        return s

    return together


@cache
def columns_together(width: int, merge: Body, finish: Body) -> Any:
    """Return ``together(carried, block, split, geometry, workspace, results)`` for columns.

    ``carried[i, k]`` is the i-th number of the thread's k-th column.
    """
    over, rounds = over_lanes(merge), min(AT_ONCE, width)
    room = rounds * THREADS

    @inline
    def over_rows(shared: Any) -> None:
        threads = cuda.blockDim.x * cuda.blockDim.y
        rows = cuda.blockDim.y
        while rows > 1:
            half = (rows + 1) // 2
            cuda.syncthreads()
            if cuda.threadIdx.y < rows - half:
                for i in range(rounds):
                    at = i * threads + thread_of()
                    other = kept(shared, at + half * cuda.blockDim.x)
                    keep(shared, at, merge(kept(shared, at), other))
            rows = half

    @inline
    def over_items(block: int, geometry: Any, parts: int, results: Any) -> None:
        tiles = geometry[0]
        each, period, fold, per_tile, lanes = geometry[11:16]
        threads = cuda.blockDim.x * cuda.blockDim.y // WARP * WARP
        tile_columns, splits = cuda.blockDim.x * width, cuda.gridDim.y
        sample = block // tiles
        tile = block - sample * tiles
        groups = period // each
        slots, entries = threads // lanes, splits * fold * each
        slot = thread_of() // lanes
        lane = thread_of() - slot * lanes
        for first in range(0, min(per_tile, groups - tile * per_tile), slots):
            i = first + slot
            own = slot < slots and i < per_tile and tile * per_tile + i < groups
            s = (0.0, 0.0, 0.0, 0.0)
            for e in range(lane, entries if own else 0, lanes):
                row = e // each
                split = row // fold
                column = (row - split * fold) * period + i * each + e - row * each
                s = merge(s, read_part(parts, (block * splits + split) * tile_columns + column))
            if slot < slots:  # whole warps
                s = over(s, lanes)
            if own and lane == 0:
                finish(results, sample * groups + tile * per_tile + i, s)

    @inline
    def together(
        carried: Any, block: int, split: int, geometry: Any, workspace: int, results: Any
    ) -> None:
        shared = cuda.shared.array((CARRIED, room), types.float64)
        splits, parts = cuda.gridDim.y, workspace + COUNTERS
        threads = cuda.blockDim.x * cuda.blockDim.y
        first = ((block * splits + split) * cuda.blockDim.x + cuda.threadIdx.x) * width
        for k in range(0, width, rounds):
            for i in range(rounds):
                for n in range(CARRIED):
                    shared[n, i * threads + thread_of()] = carried[n, k + i]
            over_rows(shared)
            if cuda.threadIdx.y == 0:
                for i in range(rounds):
                    write_part(parts, first + k + i, kept(shared, i * threads + thread_of()))
            cuda.syncthreads()
        if splits == 1 or is_last(workspace, block, splits):
            over_items(block, geometry, parts, results)

    return together
