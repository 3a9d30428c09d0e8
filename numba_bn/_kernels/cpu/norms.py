"""The forward of every norm on the CPU: allocate, pick the loops, launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._kernels.cpu import (
    columns,
    columns_moments,
    columns_own,
    rows,
    rows_own,
    runs,
    runs_own,
)
from numba_bn._kernels.cpu import moments as run_moments
from numba_bn._kernels.cpu.arrays import (
    Array,
    Launch,
    columns_of,
    far,
    held_in,
    large,
    optional,
    per_value,
    plan_streams,
)
from numba_bn._kernels.cpu.elements import kernel_array, record_of
from numba_bn._kernels.cpu.plan import (
    Plan,
    apply_cut,
    by_rows,
    chunks,
    forward_tile,
    one_block,
    one_go,
    onward,
    plan_of,
    rows_of,
    samples_slab,
    shared,
    slab,
    sum_tile,
    values_of,
    wide_slab,
    writes_runs,
)

Moments = tuple[Array, Array, Array, Array]


def _shaped(result: Array, shape: tuple[int, ...]) -> Moments:
    """(4, batch · groups) → count, mean, low, m2 (batch, groups)."""
    count, mean, low, m2 = result.reshape(4, shape[0], shape[2])
    return count, mean, low, m2


def _moments(x5: Array, where5: Array | None) -> Array:
    """x → count, mean, what the mean lost to rounding, m2: (4, batch · groups)."""
    plan = plan_of(x5.shape)
    kernel, _, sizes = taking(plan, x5.itemsize)
    result = np.empty((4, plan.batch * plan.groups))
    nbytes = shared(plan, x5.nbytes, chunks(plan))
    kernel(nbytes, kernel_array(x5), optional(where5), result, *sizes)
    return result


def taking(plan: Plan, itemsize: int) -> Launch:
    """Say how statistics of x are taken."""
    if plan.kind == "columns":
        tile = sum_tile(plan, itemsize)
        sizes = plan.batch, *columns_of(plan), tile, far(plan, itemsize, tile)
        return Launch(columns_moments.moments, (), sizes)
    shape = plan.batch, plan.outer, plan.groups, plan.length
    cut = wide_slab(plan, itemsize), large(itemsize * values_of(plan))
    return Launch(run_moments.moments, (), (*shape, *cut))


def moments(x5: Array, where5: Array | None = None) -> Moments:
    """x (five axes) → count, mean, what the mean lost to rounding, m2 (batch, groups)."""
    return _shaped(_moments(x5, where5), x5.shape)


def normalize(
    x5: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    residual5: Array | None = None,
    relu: bool = False,
    low: Array | None = None,
) -> None:
    """x, mean, var → y5 = (x - mean)·gamma/√(var + eps) + beta [+ residual], [ReLU].

    ``low`` is what the mean lost to rounding.
    """
    given = np.zeros((4, mean.size))
    given[0], given[1], given[3] = 1.0, mean.reshape(-1), var.reshape(-1)
    if low is not None:
        given[2] = low.reshape(-1)
    _normalize(x5, given, gamma, beta, eps, y5, residual5, relu)


def applying(plan: Plan, itemsize: int, stream: bool) -> Launch:
    """Say how x is normalized by given statistics."""
    if not writes_runs(plan, itemsize, stream):
        cut = apply_cut(plan, stream, itemsize)
        sizes = plan.batch, *columns_of(plan), *cut
        return Launch(columns.normalize, (stream,), sizes)
    channels = plan.groups * plan.size
    sizes = plan.batch, rows_of(plan), plan.groups, channels, plan.inner
    return Launch(runs.normalize, (stream,), sizes)


def in_one_go(plan: Plan, itemsize: int, stream: bool, masked: bool = False) -> Launch:
    """Say how statistics of x are taken and, while x is in cache, it is normalized by them."""
    if plan.kind == "columns" and plan.batch > 1 and not masked and one_block(plan):
        tile, together = forward_tile(plan, itemsize), samples_slab(plan, itemsize)
        cut = tile, together, far(plan, itemsize, tile)
        sizes = plan.batch, *columns_of(plan), *cut
        return Launch(columns_own.forward, (stream,), sizes)
    if plan.kind == "columns":
        tile = forward_tile(plan, itemsize)
        asks = onward(plan.outer * tile * itemsize, stream) > 0
        sizes = *columns_of(plan), tile, far(plan, itemsize, tile)
        return Launch(columns.forward, (stream, asks), (plan.batch, *sizes))
    together, one_row = slab(plan, itemsize, stream), plan.outer == 1
    # runs of one row are groups side by side, whatever the sample
    batch, groups = (1, plan.batch * plan.groups) if one_row else (plan.batch, plan.groups)
    if one_row and not masked:
        return Launch(runs_own.forward, (stream,), (groups, plan.length, plan.size, together))
    ahead = onward(together * plan.outer * plan.length * itemsize, stream, plan.outer)
    shape = batch, plan.outer, groups, plan.length, plan.size, plan.period, together
    return Launch(runs.forward, (stream, ahead), shape)


def rows_one_go(plan: Plan, dtype: np.dtype[Any]) -> bool:
    """Tell whether such rows are: some always, as no cache nor core is to say how they are summed.

    They are those of a block whose sums begin in float32.
    """
    short = dtype.itemsize == 1 or record_of(dtype) is not None
    return (short and plan.length <= run_moments.BLOCK) or one_go(plan, dtype.itemsize)


def rows_in_one_go(plan: Plan, itemsize: int, centred: bool, stream: bool) -> Launch:
    """Say the same of rows, each with a scale and a shift per value."""
    together = slab(plan, itemsize, stream)
    sizes = plan.batch * plan.groups, plan.groups, plan.length, together
    return Launch(rows_own.forward, (centred, stream), sizes)


def _normalize(
    x5: Array,
    moments: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    residual5: Array | None,
    relu: bool,
) -> None:
    """x → y5 by count, mean, what it lost to rounding, m2: (4, batch · groups)."""
    plan = plan_of(x5.shape)
    stream = plan_streams(plan, y5, x5, once=True)
    kernel, switches, sizes = applying(plan, x5.itemsize, stream)
    arrays = kernel_array(x5), kernel_array(y5), optional(residual5)
    kernel(x5.nbytes, *arrays, gamma, beta, None, None, moments, eps, relu, *switches, *sizes)


def forward(
    x5: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    where5: Array | None = None,
    residual5: Array | None = None,
    relu: bool = False,
    centred: bool = True,
    keep: bool = True,
) -> Moments:
    """x → y5 by its own statistics, which are returned if they are to be kept."""
    plan = plan_of(x5.shape)
    if by_rows(plan, centred):
        result = _forward_rows(x5, gamma, beta, eps, y5, centred, keep)
        return _shaped(result, x5.shape) if keep else (result[0], result[1], result[2], result[3])
    if not one_go(plan, x5.itemsize):
        result = _moments(x5, where5)
        _normalize(x5, result, gamma, beta, eps, y5, residual5, relu)
        return _shaped(result, x5.shape)
    result = np.empty((4, plan.batch * plan.groups if keep else 0))
    stream = plan_streams(plan, y5, x5)
    kernel, switches, sizes = in_one_go(plan, x5.itemsize, stream, where5 is not None)
    arrays = kernel_array(x5), kernel_array(y5), optional(where5), optional(residual5)
    nbytes = shared(plan, x5.nbytes)
    kernel(nbytes, *arrays, gamma, beta, eps, relu, *switches, result, *sizes)
    return _shaped(result, x5.shape) if keep else (result[0], result[1], result[2], result[3])


def _forward_rows(
    x5: Array, gamma: Array, beta: Array, eps: float, y5: Array, centred: bool, keep: bool
) -> Array:
    plan = plan_of(x5.shape)
    dtype = held_in(x5.dtype, y5.dtype)
    stream = plan_streams(plan, y5, x5, by_value=True)
    arrays = kernel_array(x5), kernel_array(y5)
    given = per_value(gamma, plan, dtype), per_value(beta, plan, dtype), eps
    kernel, switches, sizes = rows_in_one_go(plan, x5.itemsize, centred, stream)
    if rows_one_go(plan, x5.dtype):
        result = np.empty((4, plan.batch * plan.groups if keep else 0))
    else:
        result, kernel, sizes = _moments(x5, None), rows.normalize, sizes[:-1]
    kernel(shared(plan, x5.nbytes), *arrays, *given, *switches, result, *sizes)
    return result
