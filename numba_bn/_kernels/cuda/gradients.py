"""Σdy and Σdy·x̂: of items with statistics of their own, or of channels over rows that have them."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba_bn._kernels.cuda.factors import get64, statistic_of, table_of
from numba_bn._kernels.cuda.memory import loader, putter
from numba_bn._kernels.cuda.moments import work_of
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.together import columns_together, runs_together
from numba_bn._kernels.cuda.walk import GEOMETRY, Body, begin_of, walk_of

put = putter("float64")


@inline
def add(a: Any, b: Any) -> Any:
    """Sums of two sets → of both."""
    return a[0] + b[0], a[1] + b[1], 0.0, 0.0


@inline
def finish(results: Any, item: int, s: Any) -> None:
    """Sums of an item → their vectors."""
    put(results[0], item, s[0])
    put(results[1], item, s[1])


@cache
def terms_of(x: str, y: str, masked: bool) -> Any:
    """Return ``terms(dy, v, m, r, shift, mask)``: dy and dy·x̂, x̂ being (v - m)·r - shift.

    What is excluded counts only where it is finite.
    """
    work = work_of(x, y)

    @inline
    def terms(dy: Any, v: Any, m: Any, r: Any, shift: Any, mask: Any) -> Any:
        product = dy * ((v - m) * r - shift)
        if masked and mask == work(0) and product - product != work(0):
            dy = work(0)
            product = work(0)
        return dy, product

    return terms


def gradient_sums(
    x: str, y: str, given: str, width: int, unroll: int, columns: bool, masked: bool
) -> tuple[Any, Any]:
    """Σdy, Σdy·x̂ of each item; arrays x, dy, where; mean, low, var, count; the sums."""
    work, statistics = work_of(x, y), width if columns else 1
    fetch, fetch_dy, fetch_mask = loader(x, width), loader(y, width), loader("bool", width)
    terms, statistic = terms_of(x, y, masked), statistic_of(given)
    room, mask_room = width * unroll, width * unroll if masked else 1

    @inline
    def factors(given: Any, at: int, channel: int) -> Any:
        addresses, eps, centred = given
        mean, lost, rstd = statistic(addresses, at, eps, centred)
        m = work(mean)
        return m, work(rstd), work((lost + (mean - types.float64(m))) * rstd)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        fetch_dy(state[0][1], at, state[2], slot * width)
        if masked:
            fetch_mask(state[0][2], at, state[3], slot * width)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        _, values, dys, mask, table, carried = state
        for k in range(statistics):
            first, second = work(0), work(0)
            for i in range(count * width // statistics):
                at = i * statistics + k
                kept = mask[at] if masked else work(1)
                dy, product = terms(
                    dys[at], values[at], table[0, k], table[1, k], table[2, k], kept
                )
                first += dy
                second += product
            carried[0, k] += first
            carried[1, k] += second

    fill = table_of(columns, width, 3, work, factors)
    kernel = _summing(columns, width, unroll, work, load, use, fill, mask_room, room)
    return kernel, sums_signature()


def sums_signature() -> Any:
    """Return the signature of kernels that sum up gradients."""
    return types.void(
        types.UniTuple(types.int64, 3),
        types.UniTuple(types.int64, 4),
        types.float64,
        types.int64,
        types.UniTuple(types.int64, 2),
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )


def _summing(
    columns: bool,
    width: int,
    unroll: int,
    work: Any,
    load: Body,
    use: Body,
    fill: Body,
    mask_room: int,
    room: int,
) -> Any:
    """Return the kernel around a walk that sums up gradients."""
    statistics = width if columns else 1
    walk, begin = walk_of(unroll, load, use), begin_of(columns, width, backwards=False)
    if columns:
        together = columns_together(width, add, finish)
    else:
        together = runs_together(add, finish)

    def kernel(
        arrays: Any,
        given: Any,
        eps: float,
        centred: int,
        results: Any,
        workspace: int,
        geometry: Any,
    ) -> None:
        values, dys = cuda.local.array(room, work), cuda.local.array(room, work)
        mask = cuda.local.array(mask_room, work)
        table = cuda.local.array((3, statistics), work)
        carried = cuda.local.array((4, statistics), types.float64)
        spots = cuda.local.array(unroll, types.int64)
        for k in range(statistics):
            for n in range(4):
                carried[n, k] = 0.0
        item, split, start, gait = begin(geometry)
        fill(table, (given, eps, centred), item, geometry)
        walk((arrays, values, dys, mask, table, carried), spots, start, gait)
        if columns:
            together(carried, item, split, geometry, workspace, results)
        else:
            s = carried[0, 0], carried[1, 0], 0.0, 0.0
            together(s, item, geometry[0], split, workspace, results)

    return kernel


def sums_by_row(x: str, y: str, width: int, unroll: int, single: bool) -> tuple[Any, Any]:
    """Σdy, Σdy·x̂ of channels over rows that have statistics each: mean, low, rstd, which are given.

    The fourth of what is given is the number of groups in a row; ``single``: it is one.
    """
    work, terms = work_of(x, y), terms_of(x, y, False)
    fetch, fetch_dy = loader(x, width), loader(y, width)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        fetch_dy(state[0][1], at, state[2], slot * width)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        _, values, dys, given, groups_of, carried = state
        for u in range(count):
            row = (rows[0] + u * rows[1]) * given[3]
            m, r, shift = statistic(given, row)
            for k in range(width):
                if not single:
                    m, r, shift = statistic(given, row + groups_of[k])
                i = u * width + k
                dy, product = terms(dys[i], values[i], m, r, shift, work(1))
                carried[0, k] += dy
                carried[1, k] += product

    @inline
    def statistic(given: Any, at: int) -> Any:
        mean, rstd = get64(given[0], at), get64(given[2], at)
        m = work(mean)
        return m, work(rstd), work((get64(given[1], at) + (mean - types.float64(m))) * rstd)

    walk, begin = walk_of(unroll, load, use), begin_of(True, width, backwards=False)
    together, room = columns_together(width, add, finish), width * unroll

    def kernel(
        arrays: Any,
        given: Any,
        eps: float,
        centred: int,
        results: Any,
        workspace: int,
        geometry: Any,
    ) -> None:
        values, dys = cuda.local.array(room, work), cuda.local.array(room, work)
        groups_of = cuda.local.array(width, types.int32)
        carried = cuda.local.array((4, width), types.float64)
        spots = cuda.local.array(unroll, types.int64)
        item, split, start, gait = begin(geometry)
        length = geometry[12] // given[3]
        column = (item * cuda.blockDim.x + cuda.threadIdx.x) * width
        for k in range(width):
            groups_of[k] = (column + k) // length
            for n in range(4):
                carried[n, k] = 0.0
        walk((arrays, values, dys, given, groups_of, carried), spots, start, gait)
        together(carried, item, split, geometry, workspace, results)

    return kernel, sums_signature()
