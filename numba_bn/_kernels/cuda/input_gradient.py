"""dx = dy·a + (x - mean)·b + c: for given sums, or for those of x's own statistics."""

from __future__ import annotations

from functools import cache
from typing import Any

from numba_bn._kernels.cuda.factors import (
    get64,
    held,
    parameter_of,
    parameters_along,
    row_of,
    statistic_of,
    table_of,
)
from numba_bn._kernels.cuda.gradients import add, terms_of
from numba_bn._kernels.cuda.memory import loader, putter, storer
from numba_bn._kernels.cuda.moments import own_moments, work_of
from numba_bn._kernels.cuda.target import cuda, inline, types
from numba_bn._kernels.cuda.together import team_together
from numba_bn._kernels.cuda.walk import GEOMETRY, begin_of, walk_of

put = putter("float64")


@cache
def _writing(
    x: str,
    y: str,
    parameter: str,
    width: int,
    columns: bool,
    mode: str,
    masked: bool,
    streams: bool,
) -> tuple[Any, Any]:
    """Return ``load`` and ``use`` of the walk that writes dx."""
    work, statistics = work_of(x, y), width if columns else 1
    fetch, fetch_dy, fetch_mask = loader(x, width), loader(y, width), loader("bool", width)
    write, along = storer(y, width, streams), parameters_along(parameter, width, mode)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0], at, state[1], slot * width)
        fetch_dy(state[0][1], at, state[2], slot * width)
        if masked:
            fetch_mask(state[0][3], at, state[3], slot * width)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        arrays, values, dys, mask, table, gammas, start, row = state
        for u in range(count):
            if mode != "each":
                along(arrays[4], 1.0, gammas, 0, row, spots[u] - start)
            for i in range(width):
                k = u * width + i
                n = i % statistics
                share = (values[k] - table[0, n]) * table[2, n] + table[3, n]
                if masked and mask[k] == work(0):
                    share = work(0)
                a = table[1, n] if mode == "each" else table[1, n] * gammas[i]
                values[k] = dys[k] * a + share
            write(arrays[2], spots[u], values, u * width)

    return load, use


@cache
def _derived(work: Any, mode: str) -> Any:
    """Return ``derive(mean, lost, rstd, gamma, first, second)``: m, a, b, c of the walk.

    ``first`` and ``second`` are the sums over the count. c, most of it the mean of dy·a, follows
    what a loses to rounding: what ought to cancel does.
    """

    @inline
    def derive(
        mean: float, lost: float, rstd: float, gamma: float, first: float, second: float
    ) -> Any:
        m = work(mean)
        lost += mean - types.float64(m)
        b = -rstd * rstd * second
        c = -rstd * first
        exact = rstd * gamma if mode == "each" else rstd
        a = work(exact)
        if exact != 0.0:
            c *= types.float64(a) / exact
        return m, a, work(b), work(c - lost * b)

    return derive


def input_gradient(
    x: str,
    y: str,
    parameter: str,
    given: str,
    width: int,
    unroll: int,
    columns: bool,
    mode: str,
    masked: bool,
    streams: bool,
) -> tuple[Any, Any]:
    """Write dx for given sums; arrays x, dy, dx, where, gamma; mean, low, var, count.

    The sums are Σ, Σ' and the count they are over, all 0 for constant statistics; by statistic and
    with gamma in them if ``weighted``, else by channel and without.
    """
    work, statistics = work_of(x, y), width if columns else 1
    load, use = _writing(x, y, parameter, width, columns, mode, masked, streams)
    walk, begin = walk_of(unroll, load, use), begin_of(columns, width, backwards=True)
    statistic, parameter_at = statistic_of(given), parameter_of(parameter)
    derive = _derived(work, mode)
    room, mask_room = width * unroll, width * unroll if masked else 1
    along_room = 1 if mode == "each" else width

    @inline
    def factors(given: Any, at: int, channel: int) -> Any:
        addresses, gamma, (first, second, count), weighted, eps, centred = given
        mean, lost, rstd = statistic(addresses, at, eps, centred)
        g = parameter_at(gamma, channel, 1.0)
        one = 0.0
        two = 0.0
        if count != 0:
            place = at if weighted != 0 else channel
            factor = (1.0 if weighted != 0 else g) / get64(count, at)
            two = get64(second, place) * factor
            if centred != 0:
                one = get64(first, place) * factor
        return derive(mean, lost, rstd, g, one, two)

    fill = table_of(columns, width, 4, work, factors)

    def kernel(
        arrays: Any,
        given: Any,
        sums: Any,
        weighted: int,
        eps: float,
        centred: int,
        geometry: Any,
    ) -> None:
        values, dys = cuda.local.array(room, work), cuda.local.array(room, work)
        mask = cuda.local.array(mask_room, work)
        gammas = cuda.local.array(along_room, work)
        table = cuda.local.array((4, statistics), work)
        spots = cuda.local.array(unroll, types.int64)
        item, _, start, gait = begin(geometry)
        fill(table, (given, arrays[4], sums, weighted, eps, centred), item, geometry)
        first, row = item * geometry[3], row_of(item, geometry)
        walk((arrays, values, dys, mask, table, gammas, first, row), spots, start, gait)

    signature = types.void(
        types.UniTuple(types.int64, 5),
        types.UniTuple(types.int64, 4),
        types.UniTuple(types.int64, 3),
        types.int64,
        types.float64,
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature


def backward(
    x: str, y: str, parameter: str, width: int, alone: int, unroll: int, mode: str, streams: bool
) -> tuple[Any, Any]:
    """Write dx by each item's own statistics, in one go; arrays as above.

    Also what sums over rows need: mean, low and rstd of each item, and Σdy and Σdy·x̂ of "each".
    Without a dx (0) those of x alone. ``alone`` is how many vectors are loaded at once for these,
    ``unroll`` for the others.
    """
    work = work_of(x, y)
    own = own_moments(x, width, alone, False)
    summed = _own_sums(x, y, parameter, width, unroll, mode)
    load, use = _writing(x, y, parameter, width, False, mode, False, streams)
    walk, begin = walk_of(unroll, load, use), begin_of(False, width, backwards=False)
    derive, parameter_at = _derived(work, mode), parameter_of(parameter)
    room, along_room = width * unroll, 1 if mode == "each" else width
    places = max(alone, unroll)

    def kernel(arrays: Any, results: Any, eps: float, centred: int, geometry: Any) -> None:
        values, dys = cuda.local.array(room, work), cuda.local.array(room, work)
        mask = cuda.local.array(1, work)
        gammas = cuda.local.array(along_room, work)
        table = cuda.local.array((4, 1), work)
        spots = cuda.local.array(places, types.int64)
        item, _, start, gait = begin(geometry)
        count, mean, lost, m2 = own(arrays[0], 0, spots, start, gait)
        mean, lost, rstd = held(mean, lost, m2 / count, eps, centred)
        if cuda.threadIdx.x == 0 and item < geometry[0]:
            put(results[0], item, mean)
            put(results[1], item, lost)
            put(results[2], item, rstd)
        if arrays[2] == 0:
            return
        first, row = item * geometry[3], row_of(item, geometry)
        state = arrays, values, dys, mask, table, gammas, first, row
        one, two = summed(state, (mean, lost, rstd), spots, start, gait)
        channel = item % geometry[1]
        if cuda.threadIdx.x == 0 and item < geometry[0]:
            put(results[3], item, one)
            put(results[4], item, two)
        g = parameter_at(arrays[4], channel, 1.0) if mode == "each" else 1.0
        if centred == 0:
            one = 0.0
        found = derive(mean, lost, rstd, g, one * g / count, two * g / count)
        for k in range(4):
            table[k, 0] = found[k]
        walk(state, spots, start, gait)

    signature = types.void(
        types.UniTuple(types.int64, 5),
        types.UniTuple(types.int64, 5),
        types.float64,
        types.int64,
        types.UniTuple(types.int64, GEOMETRY),
    )
    return kernel, signature


@cache
def _own_sums(x: str, y: str, parameter: str, width: int, unroll: int, mode: str) -> Any:
    """Return ``summed(state, statistic, spots, start, gait)``: a team's Σdy and Σdy·x̂, to all.

    Where parameters change along the row, dy is multiplied by gamma.
    """
    work, terms = work_of(x, y), terms_of(x, y, False)
    fetch, fetch_dy = loader(x, width), loader(y, width)
    along, together = parameters_along(parameter, width, mode), team_together(add)

    @inline
    def load(state: Any, at: int, slot: int) -> None:
        fetch(state[0][0][0], at, state[0][1], slot * width)
        fetch_dy(state[0][0][1], at, state[0][2], slot * width)

    @inline
    def use(state: Any, spots: Any, rows: Any, count: int) -> None:
        (arrays, values, dys, _, table, gammas, start, row), carried = state
        first, second = work(0), work(0)
        for u in range(count):
            if mode != "each":
                along(arrays[4], 1.0, gammas, 0, row, spots[u] - start)
            for i in range(width):
                k = u * width + i
                d = dys[k] if mode == "each" else dys[k] * gammas[i]
                dy, product = terms(d, values[k], table[0, 0], table[1, 0], table[2, 0], work(1))
                first += dy
                second += product
        carried[0] += first
        carried[1] += second

    walk = walk_of(unroll, load, use)

    @inline
    def summed(state: Any, statistic: Any, spots: Any, start: Any, gait: Any) -> Any:
        mean, lost, rstd = statistic
        table = state[4]
        table[0, 0] = work(mean)
        table[1, 0] = work(rstd)
        table[2, 0] = work((lost + (mean - types.float64(work(mean)))) * rstd)
        carried = cuda.local.array(2, types.float64)
        carried[0] = 0.0
        carried[1] = 0.0
        walk((state, carried), spots, start, gait)
        s = together((carried[0], carried[1], 0.0, 0.0))
        return s[0], s[1]

    return summed
