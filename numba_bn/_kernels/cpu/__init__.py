"""The backend functions on the CPU: allocate, pick the loops, launch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from numba_bn._kernels.cpu import (
    columns,
    columns_backward,
    columns_backward_own,
    columns_moments,
    rows,
    runs,
    runs_backward,
    runs_backward_own,
)
from numba_bn._kernels.cpu import moments as run_moments
from numba_bn._kernels.cpu.elementwise import relu_gradient as _relu_gradient
from numba_bn._kernels.cpu.lanes import kernel_array
from numba_bn._kernels.cpu.plan import (
    Plan,
    apply_tile,
    batch_chunks,
    chunks,
    l2_bytes,
    one_go,
    plan_of,
    slab,
    sum_tile,
    wide_slab,
)
from numba_bn._kernels.cpu.state import STATE

Array = np.ndarray[Any, np.dtype[Any]]
Moments = tuple[Array, Array, Array]

_STREAM_CACHES = 32  # outputs of this many L2 caches and more go past them


def _optional(a: Array | None) -> Array | None:
    return None if a is None else kernel_array(a)


def _streams(y5: Array, x5: Array) -> bool:
    """Tell whether to write past the caches: large, and not what is being read."""
    return y5.nbytes >= _STREAM_CACHES * l2_bytes() and not np.may_share_memory(y5, x5)


def _row_streams(y5: Array, x5: Array, plan: Plan) -> bool:
    """Tell the same of rows, which must all be aligned: half a line costs more than it saves."""
    line = 16 * y5.itemsize
    aligned = y5.ctypes.data % line == 0 and plan.length % 16 == 0
    return aligned and _streams(y5, x5)


def _tile_streams(y5: Array, x5: Array, plan: Plan) -> bool:
    """Tell the same of columns, all of whose rows must begin alike."""
    return plan.stride % 16 == 0 and _streams(y5, x5)


def _columns(plan: Plan) -> tuple[int, ...]:
    return plan.outer, plan.tail, plan.stride, plan.period


def _shaped(result: Array, shape: tuple[int, ...]) -> Moments:
    """(4, batch · groups) → count, mean, m2 (batch, groups)."""
    count, mean, _, m2 = result.reshape(4, shape[0], shape[2])
    return count, mean, m2


def _moments(x5: Array, where5: Array | None) -> Array:
    """x → count, mean, what the mean lost to rounding, m2: (4, batch · groups)."""
    plan = plan_of(x5.shape)
    result = np.empty((4, plan.batch * plan.groups))
    parts = np.empty((plan.batch * plan.groups * chunks(plan), STATE))
    x, w = kernel_array(x5), _optional(where5)
    if plan.kind == "columns":
        columns_moments.moments(
            x5.nbytes, x, w, result, parts, plan.batch, *_columns(plan), plan.length, sum_tile(plan)
        )
    else:
        run_moments.moments(
            x5.nbytes,
            x,
            w,
            result,
            parts,
            plan.batch,
            plan.outer,
            plan.groups,
            plan.length,
            wide_slab(plan, x5.itemsize),
        )
    return result


def moments(x5: Array, where5: Array | None = None) -> Moments:
    """x (five axes) → count, mean, m2 (batch, groups)."""
    return _shaped(_moments(x5, where5), x5.shape)


@lru_cache(maxsize=256)
def _no_loss(size: int) -> Array:
    return np.zeros(size)


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
) -> None:
    """x, mean, var → y5 = (x - mean)·gamma/√(var + eps) + beta [+ residual], [ReLU]."""
    low = _no_loss(mean.size)
    _normalize(x5, mean.reshape(-1), low, var.reshape(-1), gamma, beta, eps, y5, residual5, relu)


def _normalize(
    x5: Array,
    mean: Array,
    low: Array,
    var: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y5: Array,
    residual5: Array | None,
    relu: bool,
) -> None:
    plan = plan_of(x5.shape)
    arrays = kernel_array(x5), kernel_array(y5), _optional(residual5)
    given = gamma, beta, mean, low, var, eps, relu
    if plan.kind == "columns":
        stream = _tile_streams(y5, x5, plan)
        shape = plan.batch, *_columns(plan), plan.length, plan.inner, apply_tile(plan, stream)
        columns.normalize(x5.nbytes, *arrays, *given, stream, *shape)
    else:
        channels, stream = plan.groups * plan.size, _streams(y5, x5)
        shape = plan.batch, plan.outer, plan.groups, channels, plan.inner
        runs.normalize(x5.nbytes, *arrays, *given, stream, *shape)


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
) -> Moments:
    """x → y5 by its own statistics, which are returned."""
    plan = plan_of(x5.shape)
    if plan.kind == "rows" or not centred:
        return _shaped(_forward_rows(x5, gamma, beta, eps, y5, centred), x5.shape)
    if not one_go(plan, x5.itemsize):
        result = _moments(x5, where5)
        var = result[3] / result[0]
        _normalize(x5, result[1], result[2], var, gamma, beta, eps, y5, residual5, relu)
        return _shaped(result, x5.shape)
    result = np.empty((4, plan.batch * plan.groups))
    arrays = kernel_array(x5), kernel_array(y5), _optional(where5), _optional(residual5)
    given = gamma, beta, eps, relu
    if plan.kind == "columns":
        stream = _tile_streams(y5, x5, plan)
        columns.forward(
            x5.nbytes,
            *arrays,
            *given,
            stream,
            result,
            plan.batch,
            *_columns(plan),
            plan.length,
            plan.inner,
            plan.tile,
        )
    else:
        batch, groups = _flat(plan)
        runs.forward(
            x5.nbytes,
            *arrays,
            *given,
            _streams(y5, x5),
            result,
            batch,
            plan.outer,
            groups,
            plan.length,
            plan.size,
            plan.period,
            slab(plan, x5.itemsize),
        )
    return _shaped(result, x5.shape)


def _flat(plan: Plan) -> tuple[int, int]:
    """Return batch and groups; runs of one row are groups side by side, whatever the sample."""
    return (1, plan.batch * plan.groups) if plan.outer == 1 else (plan.batch, plan.groups)


def _per_value(p: Array, plan: Plan) -> Array:
    """(channels,) → (groups · length,)."""
    return p if plan.inner == 1 else np.repeat(p, plan.inner)


def _forward_rows(
    x5: Array, gamma: Array, beta: Array, eps: float, y5: Array, centred: bool
) -> Array:
    plan = plan_of(x5.shape)
    count = plan.batch * plan.groups
    g, b = _per_value(gamma, plan), _per_value(beta, plan)
    x, y = kernel_array(x5), kernel_array(y5)
    given = g, b, eps, centred, _row_streams(y5, x5, plan)
    if not one_go(plan, x5.itemsize):
        result = _moments(x5, None)
        rows.normalize(x5.nbytes, x, y, *given, result, count, plan.groups, plan.length)
        return result
    result = np.empty((4, count))
    together = max(slab(plan, x5.itemsize), 1)
    rows.forward(x5.nbytes, x, y, *given, result, count, plan.groups, plan.length, together)
    return result


def _rstd(var: Array, eps: float) -> Array:
    v = np.asarray(var.reshape(-1) + eps)
    return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v != 0.0)


def gradient_sums(
    dy5: Array, x5: Array, mean: Array, var: Array, eps: float, where5: Array | None = None
) -> tuple[Array, Array]:
    """dy, x (batch of one) → Σdy, Σdy·x̂ (channels,)."""
    sums = _raw_sums(dy5, x5, mean.reshape(-1), where5)
    return sums[0], sums[1] * _rstd(var, eps)


def _raw_sums(dy5: Array, x5: Array, mean: Array, where5: Array | None) -> Array:
    """dy, x → Σdy, Σdy·(x - mean): (2, channels)."""
    plan = plan_of(x5.shape)
    sums, parts = np.empty((2, plan.groups)), np.empty((plan.groups * chunks(plan), 2))
    arrays = kernel_array(dy5), kernel_array(x5), _optional(where5), mean, sums, parts
    if plan.kind == "columns":
        columns_backward.gradient_sums(
            2 * x5.nbytes, *arrays, *_columns(plan), plan.inner, sum_tile(plan)
        )
    else:
        runs_backward.gradient_sums(
            2 * x5.nbytes,
            *arrays,
            plan.outer,
            plan.groups,
            plan.inner,
            wide_slab(plan, x5.itemsize),
        )
    return sums


def input_gradient(
    dy5: Array,
    x5: Array,
    mean: Array,
    var: Array,
    gamma: Array,
    sums: tuple[Array, Array] | None,
    count: Array,
    eps: float,
    dx5: Array,
    where5: Array | None = None,
) -> None:
    """dy, x (batch of one), sums (channels,) → dx5; without sums the statistics are constant."""
    rstd, n = _rstd(var, eps), count.reshape(-1)
    a = gamma * rstd
    b, c = np.zeros_like(a), np.zeros_like(a)
    if sums is not None:
        b, c = -a * rstd * sums[1] / n, -a * sums[0] / n
    plan = plan_of(x5.shape)
    arrays = kernel_array(dy5), kernel_array(x5), _optional(where5), kernel_array(dx5)
    given = mean.reshape(-1), a, b, c
    stream = _streams(dx5, x5) and not np.may_share_memory(dx5, dy5)
    if plan.kind == "columns":
        stream = stream and _tile_streams(dx5, x5, plan)
        tile = apply_tile(plan, stream)
        columns_backward.input_gradient(
            3 * x5.nbytes, *arrays, *given, stream, *_columns(plan), plan.inner, tile
        )
    else:
        runs_backward.input_gradient(
            3 * x5.nbytes, *arrays, *given, stream, plan.outer, plan.groups, plan.inner
        )


def backward(
    dy5: Array,
    x5: Array,
    gamma: Array,
    eps: float,
    dx5: Array,
    given: tuple[Array, Array, Array | None] | None = None,
    where5: Array | None = None,
    centred: bool = True,
) -> tuple[Array, Array]:
    """dy, x → dx5, and dgamma, dbeta (channels,).

    ``given`` is (mean, var, count); a count of None means constant statistics, no ``given`` at all
    the statistics of x itself.
    """
    if given is None:
        return _backward_own(dy5, x5, gamma, eps, dx5, centred)
    mean, var, count = given
    plan = plan_of(x5.shape)
    if count is not None and one_go(plan, 2 * x5.itemsize):
        return _backward_fused(dy5, x5, gamma, eps, dx5, (mean, var, count), where5)
    dbeta, dgamma = gradient_sums(dy5, x5, mean, var, eps, where5)
    sums = None if count is None else (dbeta, dgamma)
    n = np.ones_like(mean) if count is None else count
    input_gradient(dy5, x5, mean, var, gamma, sums, n, eps, dx5, where5)
    return dgamma, dbeta


def _backward_fused(
    dy5: Array,
    x5: Array,
    gamma: Array,
    eps: float,
    dx5: Array,
    given: tuple[Array, Array, Array],
    where5: Array | None,
) -> tuple[Array, Array]:
    """Sums and dx of some channels in one go, while their data is in cache."""
    plan = plan_of(x5.shape)
    mean, var, count = (v.reshape(-1) for v in given)
    rstd, sums = _rstd(var, eps), np.empty((2, plan.groups))
    stream = _streams(dx5, x5) and not np.may_share_memory(dx5, dy5)
    arrays = kernel_array(dy5), kernel_array(x5), _optional(where5), kernel_array(dx5)
    values = mean, rstd, gamma, count, sums
    nbytes = 3 * x5.nbytes
    if plan.kind == "columns":
        stream = stream and _tile_streams(dx5, x5, plan)
        columns_backward.backward_shared(
            nbytes, *arrays, *values, stream, *_columns(plan), plan.inner, plan.tile
        )
    else:
        together = slab(plan, 2 * x5.itemsize)
        runs_backward.backward_shared(
            nbytes, *arrays, *values, stream, plan.outer, plan.groups, plan.inner, together
        )
    return sums[1] * rstd, sums[0]


def _backward_own(
    dy5: Array, x5: Array, gamma: Array, eps: float, dx5: Array, centred: bool
) -> tuple[Array, Array]:
    """Gradients of a norm by x's own statistics: those are taken anew, in the same go."""
    plan = plan_of(x5.shape)
    parts = batch_chunks(plan)
    arrays = kernel_array(dy5), kernel_array(x5), kernel_array(dx5)
    nbytes = 3 * x5.nbytes
    if plan.kind == "rows" or not centred:
        width = plan.groups * plan.length
        acc = np.zeros((parts, 2 * width))
        rows.backward(
            nbytes,
            *arrays,
            _per_value(gamma, plan),
            eps,
            centred,
            _row_streams(dx5, x5, plan) and not np.may_share_memory(dx5, dy5),
            acc,
            plan.batch,
            plan.groups,
            plan.length,
            parts,
        )
        sums = acc.reshape(parts, 2, plan.groups * plan.size, plan.inner).sum((0, 3))
        return sums[1], sums[0]
    acc = np.zeros((2, parts * plan.groups * plan.size))
    if plan.kind == "columns":
        columns_backward_own.backward_own(
            nbytes,
            *arrays,
            gamma,
            eps,
            acc,
            False,
            plan.batch,
            *_columns(plan),
            plan.length,
            plan.inner,
            plan.tile,
            parts,
        )
    else:
        stream = _streams(dx5, x5) and not np.may_share_memory(dx5, dy5)
        runs_backward_own.backward_own(
            nbytes,
            *arrays,
            gamma,
            eps,
            acc,
            stream,
            plan.batch,
            plan.outer,
            plan.groups,
            plan.size,
            plan.inner,
            parts,
            slab(plan, 2 * x5.itemsize),
        )
    sums = acc.reshape(2, parts, -1).sum(1)
    return sums[1], sums[0]


def relu_gradient(dy5: Array, y5: Array, out5: Array) -> None:
    """dy, y → dy where the ReLU let y through, else 0."""
    _relu_gradient(3 * y5.nbytes, kernel_array(dy5), kernel_array(y5), kernel_array(out5))


__all__ = [
    "backward",
    "forward",
    "gradient_sums",
    "input_gradient",
    "moments",
    "normalize",
    "relu_gradient",
]
