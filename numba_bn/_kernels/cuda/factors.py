"""Statistics and parameters → the few numbers that a value is multiplied by and moved by.

A mean comes apart into what the working precision holds of it and the rest, so that x - mean has
all its digits at any mean; what is derived is derived in float64.
"""

from __future__ import annotations

import math
from typing import Any

from numba_bn._kernels.cuda.memory import getter
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.together import thread_of
from numba_bn._kernels.cuda.walk import Body

COLUMNS = 128
"""Columns of a tile whose factors shared memory keeps, at most."""


def statistic_of(dtype: str) -> Any:
    """Return ``statistic(given, at, eps, centred)``: mean, what it lost to rounding, rstd.

    ``given`` has the addresses of mean, low, var, count; low and count may be 0. With a count, var
    is m2.
    """
    get, get64 = getter(dtype), getter("float64")

    @inline
    def statistic(given: Any, at: int, eps: float, centred: int) -> Any:
        mean, low, var, count = given
        m = types.float64(get(mean, at))
        lost = 0.0
        if low != 0:
            lost = get64(low, at)
        v = types.float64(get(var, at))
        if count != 0:
            v /= get64(count, at)
        if centred == 0:
            v += m * m
            m = 0.0
            lost = 0.0
        v += eps
        rstd = 0.0  # a constant group is normalized to zero
        if v != 0.0:
            rstd = 1.0 / math.sqrt(v)
        return m, lost, rstd

    return statistic


def parameter_of(dtype: str) -> Any:
    """Return ``parameter(address, at, default)``, a float64."""
    get = getter(dtype)

    @inline
    def parameter(address: int, at: int, default: float) -> float:
        value = default
        if address != 0:
            value = types.float64(get(address, at))
        return value

    return parameter


def table_of(columns: bool, width: int, number: int, work: Any, factors: Body) -> Any:
    """Return ``fill(table, given, item, geometry)``: factors of the statistics of this thread.

    ``factors(given, statistic, channel)`` gives ``number`` of them for a channel; its statistic is
    the channel's group in the sample.
    """
    room = COLUMNS if columns else 1

    @inline
    def of_item(table: Any, given: Any, item: int, geometry: Any) -> None:
        channels, size = geometry[1], geometry[11]
        item = min(item, geometry[0] - 1)
        found = factors(given, item // size, item % channels)
        for n in range(number):
            table[n, 0] = found[n]

    @inline
    def of_columns(table: Any, given: Any, block: int, geometry: Any) -> None:
        shared = cuda.shared.array((number, room), work)
        tiles, row, (each, period, size) = geometry[0], geometry[1], geometry[11:14]
        sample = block // tiles
        tile = block - sample * tiles
        channels = period // each
        across = cuda.blockDim.x * width
        for i in range(thread_of(), across, cuda.blockDim.x * cuda.blockDim.y):
            column = min(tile * across + i, row - 1)
            channel = (column % period) // each
            found = factors(given, (sample * channels + channel) // size, channel)
            for n in range(number):
                shared[n, i] = found[n]
        cuda.syncthreads()
        for k in range(width):
            for n in range(number):
                table[n, k] = shared[n, cuda.threadIdx.x * width + k]

    return of_columns if columns else of_item
