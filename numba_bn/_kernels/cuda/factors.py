"""Statistics and parameters → the few numbers that a value is multiplied by and moved by.

A mean comes apart into what the working precision holds of it and the rest, so that x - mean has
all its digits at any mean; what is derived is derived in float64.

Parameters go with values in one of three ways (``mode``): "each" statistic has one channel (long
planes, columns), or they change along a row, with every value ("along"), or after some ("spread").
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from numba_bn._kernels.cuda.layout import TILE
from numba_bn._kernels.cuda.memory import getter, loader
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.together import thread_of
from numba_bn._kernels.cuda.walk import Body

get64 = getter("float64")


@inline
def rstd_of(variance: float, eps: float) -> float:
    """Return 1/√(variance + eps), and 0 where that is 1/0: constants are normalized to zero."""
    v = variance + eps
    rstd = 0.0
    if v != 0.0:
        rstd = 1.0 / math.sqrt(v)
    return rstd


@cache
def statistic_of(dtype: str) -> Any:
    """Return ``statistic(given, at, eps, centred)``: mean, what it lost to rounding, rstd.

    ``given`` has the addresses of mean, low, var, count; all but var may be 0: no mean is one of 0.
    With a count, var is m2.
    """
    get = getter(dtype)

    @inline
    def statistic(given: Any, at: int, eps: float, centred: int) -> Any:
        mean, low, var, count = given
        m = 0.0
        lost = 0.0
        if mean != 0:
            m = types.float64(get(mean, at))
        if low != 0:
            lost = get64(low, at)
        v = types.float64(get(var, at))
        if count != 0:
            v /= get64(count, at)
        return held(m, lost, v, eps, centred)

    return statistic


@inline
def held(mean: float, lost: float, variance: float, eps: float, centred: int) -> Any:
    """Return mean, lost, rstd; RMS norm holds the mean at zero."""
    if centred == 0:
        variance += mean * mean
        mean = 0.0
        lost = 0.0
    return mean, lost, rstd_of(variance, eps)


@cache
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


@cache
def parameters_along(dtype: str, width: int, mode: str) -> Any:
    """Return ``fetch(address, default, into, at, row, place)``: the parameters of a vector.

    They go ``into`` a local array from ``at`` on. The vector begins at ``place`` of a row, ``row``
    being (first channel, magic number, shift): what divides by the length of a channel.
    """
    whole, one = loader(dtype, width), loader(dtype, 1)

    @inline
    def fetch(address: int, default: float, into: Any, at: int, row: Any, place: int) -> None:
        first, magic, shift = row
        if address == 0:
            for i in range(width):
                into[at + i] = default
        elif mode == "along":
            whole(address, first + place, into, at)
        else:
            for i in range(width):
                one(address, first + ((place + i) * magic >> shift), into, at + i)

    return fetch


@inline
def row_of(item: int, geometry: Any) -> Any:
    """Return an item's first channel, and what divides by the length of a channel."""
    return (item % geometry[1]) * geometry[12], geometry[13], geometry[14]


def table_of(columns: bool, width: int, number: int, work: Any, factors: Body) -> Any:
    """Return ``fill(table, given, item, geometry)``: the factors of this thread's statistics.

    ``factors(given, statistic, channel)`` gives ``number`` of them for a channel.
    """
    room = TILE * width  # a block has no more shared memory than what is put together leaves of it

    @inline
    def of_item(table: Any, given: Any, item: int, geometry: Any) -> None:
        item = min(item, geometry[0] - 1)
        found = factors(given, item // geometry[16], item % geometry[1])
        for n in range(number):
            table[n, 0] = found[n]

    @inline
    def of_columns(table: Any, given: Any, block: int, geometry: Any) -> None:
        shared = cuda.shared.array((number, room), work)
        tiles, row, each, period, size = (
            geometry[0], geometry[1], geometry[11], geometry[12], geometry[16],
        )  # fmt: skip
        sample = block // tiles
        tile = block - sample * tiles
        across = cuda.blockDim.x * width
        for i in range(thread_of(), across, cuda.blockDim.x * cuda.blockDim.y):
            column = min(tile * across + i, row - 1)
            channel = (column % period) // each
            found = factors(given, (sample * (period // each) + channel) // size, channel)
            for n in range(number):
                shared[n, i] = found[n]
        cuda.syncthreads()
        for k in range(width):
            for n in range(number):
                table[n, k] = shared[n, cuda.threadIdx.x * width + k]

    return of_columns if columns else of_item
