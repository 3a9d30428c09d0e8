"""y = (x - mean)·rstd·gamma + beta [+ residual], [ReLU]: for given statistics, or for x's own."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba_bn._kernels.cuda.factors import (
    held,
    parameter_of,
    parameters_along,
    row_of,
    statistic_of,
    table_of,
)
from numba_bn._kernels.cuda.memory import loader, storer
from numba_bn._kernels.cuda.moments import finish, own_moments, work_of
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.walk import GEOMETRY, begin_of, walk_of


@cache
def _writing(
    x: str,
    y: str,
    parameter: str,
    width: int,
    columns: bool,
    mode: str,
    residual: bool,
    relu: bool,
    streams: bool,
) -> tuple[Any, Any]:
    """Return ``load`` and ``use`` of the walk that writes y."""
    work, statistics = work_of(x, y), width if columns else 1
    fetch, fetch_residual = loader(x, width), loader(y, width)
    write, along = storer(y, width, streams), parameters_along(parameter, width, mode)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        if residual:
            fetch_residual(state[0][2], at, state[2], slot * width)
        if mode != "each":  # here and not where they are used, where each would be waited for
            place = at - state[6]
            along(state[0][3], 1.0, state[4], slot * width, state[7], place)
            along(state[0][4], 0.0, state[5], slot * width, state[7], place)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        arrays, values, added, table, gammas, betas, _, _ = state
        for u in range(count):
            for i in range(width):
                k = u * width + i
                n = i % statistics
                v = values[k] - table[0, n]
                if mode == "each":
                    v = v * table[1, n] + table[2, n]
                else:
                    v = (v - table[2, 0]) * (table[1, 0] * gammas[k]) + betas[k]
                if residual:
                    v += added[k]
                if relu and v < work(0):
                    v = work(0)
                values[k] = v
            write(arrays[1], spots[u], values, u * width)

    return load, use


@cache
def _derived(work: Any, parameter: str, mode: str) -> Any:
    """Return ``derive(mean, lost, rstd, gamma, beta, channel)``: the three factors of the walk."""
    parameter_at = parameter_of(parameter)

    @inline
    def derive(mean: float, lost: float, rstd: float, gamma: int, beta: int, channel: int) -> Any:
        m = work(mean)
        lost += mean - types.float64(m)
        if mode == "each":
            a = rstd * parameter_at(gamma, channel, 1.0)
            return m, work(a), work(parameter_at(beta, channel, 0.0) - lost * a)
        return m, work(rstd), work(lost)

    return derive


def normalize(
    x: str,
    y: str,
    parameter: str,
    given: str,
    width: int,
    unroll: int,
    columns: bool,
    mode: str,
    residual: bool,
    relu: bool,
    streams: bool,
) -> tuple[Any, Any]:
    """Write y for given statistics: arrays x, y, residual, gamma, beta; mean, low, var, count."""
    work, statistics = work_of(x, y), width if columns else 1
    load, use = _writing(x, y, parameter, width, columns, mode, residual, relu, streams)
    walk, begin = walk_of(unroll, load, use), begin_of(columns, width, backwards=True)
    statistic, derive = statistic_of(given), _derived(work, parameter, mode)
    room, residual_room = width * unroll, width * unroll if residual else 1
    along_room = 1 if mode == "each" else room

    @inline
    def factors(given: Any, at: int, channel: int) -> Any:
        addresses, gamma, beta, eps, centred = given
        mean, lost, rstd = statistic(addresses, at, eps, centred)
        return derive(mean, lost, rstd, gamma, beta, channel)

    fill = table_of(columns, width, 3, work, factors)

    def kernel(arrays: Any, given: Any, eps: float, centred: int, geometry: Any) -> None:
        values = cuda.local.array(room, work)
        added = cuda.local.array(residual_room, work)
        gammas = cuda.local.array(along_room, work)
        betas = cuda.local.array(along_room, work)
        table = cuda.local.array((3, statistics), work)
        spots = cuda.local.array(unroll, types.int64)
        item, _, start, gait = begin(geometry)
        fill(table, (given, arrays[3], arrays[4], eps, centred), item, geometry)
        first, row = item * geometry[3], row_of(item, geometry)
        walk((arrays, values, added, table, gammas, betas, first, row), spots, start, gait)

    signature = types.void(
        types.UniTuple(types.int64, 5),
        types.UniTuple(types.int64, 4),
        types.float64,
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature


def forward(
    x: str,
    y: str,
    parameter: str,
    width: int,
    alone: int,
    unroll: int,
    mode: str,
    masked: bool,
    residual: bool,
    relu: bool,
    streams: bool,
) -> tuple[Any, Any]:
    """Write y by each item's own statistics, in one go; arrays as above, and the mask.

    Items are runs, each a team's own; they are read again while they are in the cache. ``alone`` is
    how many vectors are loaded at once for the statistics, ``unroll`` for y.
    """
    work = work_of(x, y)
    load, use = _writing(x, y, parameter, width, False, mode, residual, relu, streams)
    walk, begin = walk_of(unroll, load, use), begin_of(False, width, backwards=False)
    derive, own = _derived(work, parameter, mode), own_moments(x, width, alone, masked)
    room, residual_room = width * unroll, width * unroll if residual else 1
    along_room, places = 1 if mode == "each" else room, max(alone, unroll)

    def kernel(arrays: Any, results: Any, eps: float, centred: int, geometry: Any) -> None:
        values = cuda.local.array(room, work)
        added = cuda.local.array(residual_room, work)
        gammas = cuda.local.array(along_room, work)
        betas = cuda.local.array(along_room, work)
        table = cuda.local.array((3, 1), work)
        spots = cuda.local.array(places, types.int64)
        item, _, start, gait = begin(geometry)
        n, mean, lost, m2 = own(arrays[0], arrays[5], spots, start, gait)
        if cuda.threadIdx.x == 0 and item < geometry[0] and results[0] != 0:
            finish(results, item, (n, mean, lost, m2))
        mean, lost, rstd = held(mean, lost, m2 / n, eps, centred)
        found = derive(mean, lost, rstd, arrays[3], arrays[4], item % geometry[1])
        for k in range(3):
            table[k, 0] = found[k]
        first, row = item * geometry[3], row_of(item, geometry)
        walk((arrays, values, added, table, gammas, betas, first, row), spots, start, gait)

    signature = types.void(
        types.UniTuple(types.int64, 6),
        types.UniTuple(types.int64, 4),
        types.float64,
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature
