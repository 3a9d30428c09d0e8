"""The backward of every norm on the CPU: allocate, pick the loops, launch."""

from __future__ import annotations

import numpy as np

from numba_bn._kernels.cpu import (
    channel_terms,
    columns_backward,
    columns_backward_shared,
    columns_input_gradient,
    columns_own_backward,
    elementwise,
    rows_backward,
    runs_backward,
    runs_backward_own,
    runs_backward_shared,
    runs_own_backward,
)
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
    rstd_of,
    summed,
    var_of,
)
from numba_bn._kernels.cpu.elements import kernel_array
from numba_bn._kernels.cpu.moments import BLOCK
from numba_bn._kernels.cpu.norms import moments, normalize
from numba_bn._kernels.cpu.plan import (
    Plan,
    apply_cut,
    batch_chunks,
    by_rows,
    chunks,
    one_go,
    onward,
    plan_of,
    rows_of,
    samples_apart,
    shared,
    slab,
    sum_tile,
    values_of,
    wide_slab,
    writes_runs,
)


def gradient_sums(
    dy5: Array,
    x5: Array,
    mean: Array,
    var: Array,
    eps: float,
    where5: Array | None = None,
    low: Array | None = None,
) -> tuple[Array, Array]:
    """dy, x (batch of one) → Σdy, Σdy·x̂ (channels,).

    ``low`` is what the mean lost to rounding.
    """
    sums = _raw_sums(dy5, x5, mean.reshape(-1), where5)
    if low is not None:
        channel_terms.about_mean(sums, low.reshape(-1))
    channel_terms.scale(sums, rstd_of(var, eps))
    return sums[0], sums[1]


def _raw_sums(dy5: Array, x5: Array, mean: Array, where5: Array | None) -> Array:
    """dy, x → Σdy, Σdy·(x - m), m being the mean as float64 holds it: (2, batch · channels)."""
    plan = plan_of(x5.shape)
    kernel, _, sizes = summing(plan, x5.itemsize)
    sums = np.empty((2, plan.batch * plan.groups * plan.size))
    arrays = kernel_array(dy5), kernel_array(x5), optional(where5)
    nbytes = shared(plan, 2 * x5.nbytes, chunks(plan))
    kernel(nbytes, *arrays, mean, sums, *sizes)
    return sums


def summing(plan: Plan, itemsize: int) -> Launch:
    """Say how Σdy, Σdy·(x - mean) are taken."""
    if plan.kind == "columns":
        tile = sum_tile(plan, 2 * itemsize)
        sizes = *columns_of(plan), tile, far(plan, itemsize, tile, 2)
        return Launch(columns_backward.gradient_sums, (), (plan.batch, *sizes))
    cut = wide_slab(plan, itemsize), large(2 * itemsize * values_of(plan))
    sizes = plan.outer, plan.groups, plan.inner, *cut
    return Launch(runs_backward.gradient_sums, (), sizes)


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
    low: Array | None = None,
) -> None:
    """dy, x (batch of one), sums (channels,) → dx5; without sums the statistics are constant.

    ``low`` is what the mean lost to rounding.
    """
    none = np.zeros(gamma.size)
    if sums is None:  # what x and its mean are does not matter, not even if they are no numbers
        normalize(dy5, none, var, gamma, none, eps, dx5)
        return
    terms = channel_terms.coefficients(gamma, rstd_of(var, eps), *sums, count.reshape(-1))
    lost = none if low is None else low.reshape(-1)
    _input_gradient(dy5, x5, dx5, (mean.reshape(-1), lost, np.stack(terms)), where5)


def _input_gradient(
    dy5: Array, x5: Array, dx5: Array, given: tuple[Array, ...], where5: Array | None
) -> None:
    """dy, x, per (batch · channels,) mean, low, (3, …) a, b, c → dx5 = dy·a + (x - mean)·b + c."""
    plan = plan_of(x5.shape)
    arrays = kernel_array(dy5), kernel_array(x5), optional(where5), kernel_array(dx5)
    stream = plan_streams(plan, dx5, x5, dy5)
    kernel, switches, sizes = differentiating(plan, x5.itemsize, stream)
    kernel(3 * x5.nbytes, *arrays, *given, *switches, *sizes)


def differentiating(plan: Plan, itemsize: int, stream: bool) -> Launch:
    """Say how dx is made by mean, a, b, c."""
    # runs have one sample's factors here
    if plan.kind == "columns" and (plan.batch > 1 or not writes_runs(plan, itemsize, stream)):
        cut = apply_cut(plan, stream, 3 * itemsize)
        sizes = plan.batch, *columns_of(plan), *cut
        return Launch(columns_input_gradient.input_gradient, (stream,), sizes)
    sizes = rows_of(plan), plan.groups * plan.size, plan.inner
    return Launch(runs_backward.input_gradient, (stream,), sizes)


def backward(
    dy5: Array,
    x5: Array,
    gamma: Array,
    eps: float,
    dx5: Array,
    given: tuple[Array, Array, Array | None, Array] | None = None,
    where5: Array | None = None,
    centred: bool = True,
) -> tuple[Array, Array]:
    """dy, x → dx5, and dgamma, dbeta (channels,).

    ``given`` is (mean, m2, count, low) of a training step, or (mean, var, None, low), which are
    constant, low being what the mean lost to rounding; no ``given`` at all means the statistics of
    x itself.
    """
    if given is None:
        return _backward_own(dy5, x5, gamma, eps, dx5, centred)
    mean, spread, count, low = given
    if count is not None:
        if one_go(plan_of(x5.shape), 2 * x5.itemsize):
            return _backward_fused(dy5, x5, gamma, eps, dx5, (mean, low, spread, count), where5)
        spread = var_of(spread, count)
    dbeta, dgamma = gradient_sums(dy5, x5, mean, spread, eps, where5, low)
    sums = None if count is None else (dbeta, dgamma)
    n = np.ones_like(mean) if count is None else count
    input_gradient(dy5, x5, mean, spread, gamma, sums, n, eps, dx5, where5, low)
    return dgamma, dbeta


def in_one_go(plan: Plan, itemsize: int, stream: bool) -> Launch:
    """Say how sums are taken and, while dy and x are in cache, dx is made of them."""
    if plan.kind == "columns":
        asks = onward(2 * plan.outer * plan.tile * itemsize, stream) > 0
        sizes = *columns_of(plan), plan.tile
        return Launch(columns_backward_shared.backward_shared, (stream, asks), sizes)
    together = slab(plan, 2 * itemsize, stream)
    unit = 2 * together * plan.outer * plan.length * itemsize
    ahead = onward(unit, stream, plan.outer)
    sizes = plan.outer, plan.groups, plan.inner, together
    return Launch(runs_backward_shared.backward_shared, (stream, ahead), sizes)


def _backward_fused(
    dy5: Array,
    x5: Array,
    gamma: Array,
    eps: float,
    dx5: Array,
    given: tuple[Array, ...],
    where5: Array | None,
) -> tuple[Array, Array]:
    """Sums and dx of some channels in one go, while in cache; ``given`` is mean, low, m2, count."""
    plan = plan_of(x5.shape)
    known = [v.reshape(-1) for v in given]
    sums = np.empty((2, plan.groups))
    stream = plan_streams(plan, dx5, x5, dy5)
    kernel, switches, sizes = in_one_go(plan, x5.itemsize, stream)
    arrays = kernel_array(dy5), kernel_array(x5), optional(where5), kernel_array(dx5)
    nbytes = shared(plan, 3 * x5.nbytes)
    kernel(nbytes, *arrays, *known, gamma, eps, sums, *switches, *sizes)
    return sums[1], sums[0]


def own_in_one_go(plan: Plan, itemsize: int, stream: bool, centred: bool) -> Launch:
    """Say how the gradients of a norm by x's own statistics are taken, those anew in the same go.

    All of it comes after the sums of parameter gradients.
    """
    parts = batch_chunks(plan)
    if by_rows(plan, centred):
        rows = plan.batch, plan.groups, plan.length, parts
        return Launch(rows_backward.backward, (centred, stream), rows)
    if plan.kind == "columns":
        columns = plan.batch, *columns_of(plan), plan.tile, parts
        return Launch(columns_own_backward.backward, (stream,), columns)
    runs = plan.groups, plan.size, plan.inner, parts, slab(plan, 2 * itemsize, stream)
    if plan.outer == 1 and plan.length <= BLOCK:
        return Launch(runs_own_backward.backward, (stream,), (plan.batch, *runs))
    return Launch(runs_backward_own.backward_own, (stream,), (plan.batch, plan.outer, *runs))


def shape_of_parts(plan: Plan, centred: bool) -> tuple[int, int]:
    """Return that of the sums of parameter gradients of all parts, as kernels take them."""
    columns = plan.groups * (plan.length if by_rows(plan, centred) else plan.size)
    return batch_chunks(plan), 2 * columns


def _backward_own(
    dy5: Array, x5: Array, gamma: Array, eps: float, dx5: Array, centred: bool
) -> tuple[Array, Array]:
    """Gradients of a norm by x's own statistics."""
    plan = plan_of(x5.shape)
    if plan.kind == "columns" and not samples_apart(plan):
        return _backward_columns(dy5, x5, gamma, eps, dx5)
    rows = by_rows(plan, centred)
    stream = plan_streams(plan, dx5, x5, dy5, by_value=rows)
    kernel, switches, sizes = own_in_one_go(plan, x5.itemsize, stream, centred)
    g = per_value(gamma, plan, held_in(x5.dtype, dx5.dtype)) if rows else gamma
    arrays = (kernel_array(a) for a in (dy5, x5, dx5))
    parts, sums = np.empty(shape_of_parts(plan, centred)), np.empty((2, gamma.size))
    kernel(shared(plan, 3 * x5.nbytes), *arrays, g, eps, parts, *switches, *sizes)
    elementwise.total_of_parts(parts.nbytes, parts.reshape(2 * len(parts), -1), sums)
    return sums[1], sums[0]


def _backward_columns(
    dy5: Array, x5: Array, gamma: Array, eps: float, dx5: Array
) -> tuple[Array, Array]:
    """The same of few samples of many rows, in three sweeps, each by all threads."""
    batch, _, groups, size, _ = x5.shape
    count, mean, low, m2 = moments(x5)
    raw, lost = _raw_sums(dy5, x5, mean.reshape(-1), None), np.repeat(low, size)
    channel_terms.about_mean(raw, lost)
    sums = raw.reshape(2, batch, groups, size)
    a, b, c, dgamma = channel_terms.own_coefficients(
        gamma.reshape(groups, size), count, m2, eps, *sums
    )
    terms = np.stack((a.reshape(-1), np.repeat(b, size), np.repeat(c, size)))
    _input_gradient(dy5, x5, dx5, (np.repeat(mean, size), lost, terms), None)
    return summed(dgamma, 0).reshape(-1), summed(sums[0], 0).reshape(-1)


def relu_gradient(dy5: Array, y5: Array, out5: Array) -> None:
    """dy, y → dy where the ReLU let y through, else 0."""
    elementwise.relu_gradient(
        3 * y5.nbytes, kernel_array(dy5), kernel_array(y5), kernel_array(out5)
    )
