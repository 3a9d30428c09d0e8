"""Count, mean and sum of squared differences: in blocks about a pivot, merged in float64.

A thread's pivot is the mean of the values it first takes at once; when there have been 2, 4, 8...
times as many, it moves to the mean of all those, lest that of outliers (a border of zeros) stay.
Differences from it are summed in the working precision, some values at a time, and those sums in
float64.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba_bn._kernels.cuda.memory import bits, loader, putter
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.together import columns_together, runs_together, team_together
from numba_bn._kernels.cuda.walk import GEOMETRY, begin_of, walk_of

WIDE_RANGE = frozenset({"float32", "bfloat16"})
"""Dtypes whose squares leave float32."""
SMALLEST, LARGEST = 1e-30, 1e38

put = putter("float64")


def work_of(*dtypes: str) -> Any:
    """Return the type arrays of the dtypes are computed in: float32 where that holds them all."""
    long = any(d == "float64" or (bits(d) >= 32 and d != "float32") for d in dtypes)
    return types.float64 if long else types.float32


@inline
def merge(a: Any, b: Any) -> Any:
    """Count, pivot, sum and sum of squares about it of two sets → of both, about a's pivot."""
    if b[0] == 0.0:
        return a
    if a[0] == 0.0:
        return b
    d = b[1] - a[1]
    s = b[2] + b[0] * d
    return a[0] + b[0], a[1], a[2] + s, a[3] + b[3] + d * (s + b[2])


@inline
def concluded(s: Any) -> Any:
    """State of an item → count, mean, what the mean lost to rounding, m2."""
    n, pivot, total, squares = s
    shift = total / n
    mean = pivot + shift
    back = mean - pivot
    lost = (pivot - (mean - back)) + (shift - back)
    m2 = squares - total * shift
    if n == 0.0:
        m2 = 0.0
        lost = 0.0
    elif m2 < 0.0:
        m2 = 0.0
    elif m2 != m2:
        mean = m2
    return n, mean, lost, m2


@inline
def finish(results: Any, item: int, found: Any) -> None:
    """Count, mean, low, m2 → their vectors."""
    for i in range(4):
        put(results[i], item, found[i])


@inline
def conclude(results: Any, item: int, s: Any) -> None:
    """State of an item → the vectors of results."""
    finish(results, item, concluded(s))


@cache
def taking(x: str, width: int, masked: bool, columns: bool) -> tuple[Any, Any]:
    """Return ``load`` and ``use`` of a walk that sums up.

    The state is (address of x, of the mask, values, their mask, sums and sums of squares, counts,
    pivots).
    """
    work, statistics = work_of(x), width if columns else 1
    fetch, fetch_mask = loader(x, width), loader("bool", width)
    wide = work == types.float32 and x in WIDE_RANGE

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0], at, state[2], slot * width)
        if masked:
            fetch_mask(state[1], at, state[3], slot * width)

    @inline
    def move_pivot(state: Any, each: int, k: int) -> None:
        """Set the pivot of the k-th statistic if it has none; now and then move it to the mean."""
        _, _, values, mask, carried, counts, pivots = state
        n = counts[k % len(counts)]
        if n != 0:
            if n & (n - 1) == 0:
                total = carried[0, k]
                moved = work(types.float64(pivots[k]) + total / n)
                by = types.float64(moved) - types.float64(pivots[k])
                pivots[k] = moved
                carried[0, k] = total - n * by
                carried[1, k] -= by * (2.0 * total - n * by)
        else:
            pivots[k] = first_mean(values, mask, each, k)

    @inline
    def first_mean(values: Any, mask: Any, each: int, k: int) -> Any:
        """Return about the mean of the k-th statistic's values: of those that are kept."""
        share = work(1) / work(each)
        mean, kept = work(0), work(0)
        for i in range(each):
            at = i * statistics + k
            if not masked or mask[at] != work(0):
                mean += values[at] * share
                kept += share
        return mean / kept if kept != work(0) else mean

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        _, _, values, mask, carried, counts, pivots = state
        each = count * width // statistics
        for k in range(statistics):
            move_pivot(state, each, k)
        for k in range(statistics):
            s, q = work(0), work(0)
            for i in range(each):
                d = values[i * statistics + k] - pivots[k]
                if masked:
                    if mask[i * statistics + k] != work(0):
                        counts[k] += 1
                    else:
                        d = work(0)
                s += d
                q += d * d
            total, squares = types.float64(s), types.float64(q)
            if wide and far(q):
                total, squares = wide_sums(state, each, k)
            carried[0, k] += total
            carried[1, k] += squares
        if not masked:
            counts[0] += each

    @inline
    def far(q: Any) -> bool:
        return not (q > work(SMALLEST) and q < work(LARGEST))

    @inline
    def wide_sums(state: Any, each: int, k: int) -> Any:
        _, _, values, mask, _, _, pivots = state
        s, q = 0.0, 0.0
        for i in range(each):
            d = types.float64(values[i * statistics + k]) - types.float64(pivots[k])
            if not masked or mask[i * statistics + k] != work(0):
                s += d
                q += d * d
        return s, q

    return load, use


class _Taken(NamedTuple):
    """A walk that sums up, and how to begin and end it."""

    load: Any
    use: Any
    statistics: int
    work: Any
    room: int
    """Values a thread holds at once."""
    mask_room: int
    counts: int


@cache
def _taken(x: str, width: int, unroll: int, masked: bool, columns: bool) -> _Taken:
    load, use = taking(x, width, masked, columns)
    statistics, room = width if columns else 1, width * unroll
    many = room if masked else 1
    return _Taken(load, use, statistics, work_of(x), room, many, statistics if masked else 1)


def moments(x: str, width: int, unroll: int, masked: bool, columns: bool) -> tuple[Any, Any]:
    """Sum up x → count, mean, low, m2 of each item."""
    load, use, statistics, work, room, mask_room, countable = _taken(
        x, width, unroll, masked, columns
    )
    walk, begin = walk_of(unroll, load, use), begin_of(columns, width, backwards=False)
    if columns:
        together = columns_together(width, merge, conclude)
    else:
        together = runs_together(merge, conclude)

    def kernel(arrays: Any, results: Any, workspace: int, geometry: Any) -> None:
        values = cuda.local.array(room, work)
        mask = cuda.local.array(mask_room, work)
        sums = cuda.local.array((2, statistics), types.float64)
        carried = cuda.local.array((4, statistics), types.float64)
        counts = cuda.local.array(countable, types.int32)
        pivots = cuda.local.array(statistics, work)
        spots = cuda.local.array(unroll, types.int64)
        for k in range(statistics):
            counts[k % countable] = 0
            pivots[k] = work(0)
            sums[0, k] = 0.0
            sums[1, k] = 0.0
        item, split, start, gait = begin(geometry)
        state = arrays[0], arrays[1], values, mask, sums, counts, pivots
        walk(state, spots, start, gait)
        for k in range(statistics):
            carried[0, k] = counts[k % countable]
            carried[1, k] = pivots[k]
            carried[2, k] = sums[0, k]
            carried[3, k] = sums[1, k]
        if columns:
            together(carried, item, split, geometry, workspace, results)
        else:
            s = carried[0, 0], carried[1, 0], carried[2, 0], carried[3, 0]
            together(s, item, geometry[0], split, workspace, results)

    signature = types.void(
        types.UniTuple(types.int64, 2),
        types.UniTuple(types.int64, 4),
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature


@cache
def own_moments(x: str, width: int, unroll: int, masked: bool) -> Any:
    """Return ``own(x, where, spots, start, gait)``: what a team has of its item, to all of it."""
    load, use, _, work, room, mask_room, _ = _taken(x, width, unroll, masked, False)
    walk, together = walk_of(unroll, load, use), team_together(merge)

    @inline
    def own(x: int, where: int, spots: Any, start: Any, gait: Any) -> Any:
        values = cuda.local.array(room, work)
        mask = cuda.local.array(mask_room, work)
        sums = cuda.local.array((2, 1), types.float64)
        counts = cuda.local.array(1, types.int32)
        pivots = cuda.local.array(1, work)
        sums[0, 0] = 0.0
        sums[1, 0] = 0.0
        counts[0] = 0
        pivots[0] = work(0)
        walk((x, where, values, mask, sums, counts, pivots), spots, start, gait)
        s = types.float64(counts[0]), types.float64(pivots[0]), sums[0, 0], sums[1, 0]
        return concluded(together(s))

    return own
