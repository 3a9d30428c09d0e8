"""What is computed value by value: y, dx, and the gradient through a ReLU.

Parameters go with values in one of three ways: "each" statistic has one channel (long planes,
columns), or they change along a row: "along" it with every value, or after ``inner`` values of a
channel, "spread".
"""

from __future__ import annotations

from typing import Any

from numba_bn._kernels.cuda.factors import parameter_of, statistic_of, table_of
from numba_bn._kernels.cuda.memory import loader, storer
from numba_bn._kernels.cuda.moments import work_of
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.walk import Body, begin_of, walk_of

GEOMETRY = 16


def parameters_along(dtype: str, width: int, mode: str) -> Any:
    """Return ``fetch(address, default, into, state position…)`` of a vector's parameters."""
    whole, one = loader(dtype, width), loader(dtype, 1)

    @inline
    def fetch(address: int, default: float, into: Any, first: int, place: int, inner: int) -> None:
        """Parameters of ``width`` values from ``place`` of a row on, channels from ``first``."""
        if address == 0:
            for i in range(width):
                into[i] = default
        elif mode == "along":
            whole(address, first + place, into, 0)
        else:
            for i in range(width):
                one(address, first + (place + i) // inner, into, i)

    return fetch


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
    """x, statistics → y = (x - mean)·rstd·gamma + beta [+ residual], [ReLU]."""
    work, statistics = work_of(x, y), width if columns else 1
    fetch, fetch_residual = loader(x, width), loader(y, width)
    write = storer(y, width, streams)
    statistic, parameter_at = statistic_of(given), parameter_of(parameter)
    along = parameters_along(parameter, width, mode)
    room, residual_room = width * unroll, width * unroll if residual else 1
    along_room = 1 if mode == "each" else width

    @inline
    def factors(given: Any, at: int, channel: int) -> Any:
        addresses, gamma, beta, eps, centred = given
        mean, lost, rstd = statistic(addresses, at, eps, centred)
        m = work(mean)
        lost += mean - types.float64(m)
        if mode == "each":
            a = rstd * parameter_at(gamma, channel, 1.0)
            return m, work(a), work(parameter_at(beta, channel, 0.0) - lost * a)
        return m, work(rstd), work(lost)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        if residual:
            fetch_residual(state[0][2], at, state[2], slot * width)

    @inline
    def use(state: Any, spots: Any, count: int) -> None:
        arrays, values, added, table, gammas, betas, row = state
        start, first, inner = row
        for u in range(count):
            if mode != "each":
                along(arrays[3], 1.0, gammas, first, spots[u] - start, inner)
                along(arrays[4], 0.0, betas, first, spots[u] - start, inner)
            for i in range(width):
                k = u * width + i
                n = i % statistics
                v = values[k] - table[0, n]
                if mode == "each":
                    v = v * table[1, n] + table[2, n]
                else:
                    v = (v - table[2, 0]) * (table[1, 0] * gammas[i]) + betas[i]
                if residual:
                    v += added[k]
                if relu and v < work(0):
                    v = work(0)
                values[k] = v
            write(arrays[1], spots[u], values, u * width)

    fill = table_of(columns, width, 3, work, factors)
    walk, begin = walk_of(unroll, load, use), begin_of(columns, width, backwards=True)

    def kernel(arrays: Any, given: Any, eps: float, centred: int, geometry: Any) -> None:
        values = cuda.local.array(room, work)
        added = cuda.local.array(residual_room, work)
        gammas = cuda.local.array(along_room, work)
        betas = cuda.local.array(along_room, work)
        table = cuda.local.array((3, statistics), work)
        spots = cuda.local.array(unroll, types.int64)
        item, _, start, gait = begin(geometry)
        fill(table, (given, arrays[3], arrays[4], eps, centred), item, geometry)
        row = row_of(item, geometry)
        walk((arrays, values, added, table, gammas, betas, row), spots, start, gait)

    signature = types.void(
        types.UniTuple(types.int64, 5),
        types.UniTuple(types.int64, 4),
        types.float64,
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature


@inline
def row_of(item: int, geometry: Any) -> Any:
    """Return where an item's row begins, its first channel, and how long a channel is."""
    groups, run, channels, inner = geometry[1], geometry[3], geometry[12], geometry[13]
    return item * run, (item % groups) * channels, inner
