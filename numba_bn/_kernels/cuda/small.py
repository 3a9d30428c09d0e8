"""Small kernels: what comes after sums, running statistics, and the gradient through a ReLU."""

from __future__ import annotations

from typing import Any

from numba_bn._kernels.cuda.factors import get64, parameter_of
from numba_bn._kernels.cuda.memory import getter, loader, putter, storer
from numba_bn._kernels.cuda.moments import work_of
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.walk import GEOMETRY, begin_of, walk_of

put64 = putter("float64")


def fold(parameter: str) -> tuple[Any, Any]:
    """Σdy, Σdy·x̂ of (batch, channels) → of channels, and of (batch, groups) with gamma in them."""
    parameter_at = parameter_of(parameter)

    def kernel(
        sums: Any, gamma: int, totals: Any, weighted: Any, batch: int, groups: int, size: int
    ) -> None:
        i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        channels = groups * size
        for n in range(2):
            if i < channels:
                total = 0.0
                for b in range(batch):
                    total += get64(sums[n], b * channels + i)
                put64(totals[n], i, total)
            if i < batch * groups and weighted[n] != 0:
                total = 0.0
                for k in range(size):
                    factor = parameter_at(gamma, (i % groups) * size + k, 1.0)
                    total += factor * get64(sums[n], i * size + k)
                put64(weighted[n], i, total)

    pair = types.UniTuple(types.int64, 2)
    ints = (types.int64,) * 3
    return kernel, types.void(pair, types.int64, pair, pair, *ints)


def update_running(dtype: str) -> tuple[Any, Any]:
    """running = (1 - momentum)·running + momentum·batch, of the mean and the variance.

    The variance is m2 / (count - correction); where that divides by nothing it stays as it is.
    """
    get, put = getter(dtype), putter(dtype)

    def kernel(
        running: Any, new: Any, stats: Any, momentum: float, correction: float, channels: int
    ) -> None:
        c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
        if c < channels:
            mean = types.float64(get(running[0], c))
            var = types.float64(get(running[1], c))
            count = get64(stats[0], c)
            if count > 0.0:
                mean = (1.0 - momentum) * mean + momentum * get64(stats[1], c)
                if count > correction:
                    batch = get64(stats[2], c) / (count - correction)
                    var = (1.0 - momentum) * var + momentum * batch
            put(new[0], c, mean)
            put(new[1], c, var)

    pair = types.UniTuple(types.int64, 2)
    signature = types.void(
        *(pair, pair),
        types.UniTuple(types.int64, 3),
        types.float64,
        types.float64,
        types.int64,
    )
    return kernel, signature


def relu_gradient(y: str, width: int, unroll: int, streams: bool) -> tuple[Any, Any]:
    """dy, y → dy where the ReLU let y through, else 0."""
    work = work_of(y)
    fetch, write, room = loader(y, width), storer(y, width, streams), width * unroll

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        fetch(state[0][1], at, state[2], slot * width)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        arrays, dys, ys = state
        for i in range(count * width):
            if ys[i] <= work(0):
                dys[i] = work(0)
        for u in range(count):
            write(arrays[2], spots[u], dys, u * width)

    walk, begin = walk_of(unroll, load, use), begin_of(False, width, backwards=True)

    def kernel(arrays: Any, geometry: Any) -> None:
        dys, ys = cuda.local.array(room, work), cuda.local.array(room, work)
        spots = cuda.local.array(unroll, types.int64)
        _, _, start, gait = begin(geometry)
        walk((arrays, dys, ys), spots, start, gait)

    triple = types.UniTuple(types.int64, 3)
    return kernel, types.void(triple, types.UniTuple(types.int64, GEOMETRY))
