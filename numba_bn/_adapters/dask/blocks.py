"""What a task on blocks of arrays computes, each by the one thread it runs in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, as_array, cast, five_axes, order_of
from numba_bn._call import Gradients, Output, per_channel
from numba_bn._dispatch import backend
from numba_bn._threads import threads
from numba_bn._view import View, batch_view
from numba_bn.stats import ChannelStats


def run(function: Callable[..., Any], names: Iterable[str], options: Any, *blocks: Any) -> Any:
    """Call a function on blocks by name; the scheduler's other threads have work of their own."""
    with threads(1):
        return function(**dict(zip(names, blocks, strict=True)), **options)


def merged(parts: Any, axis: object = None, keepdims: bool = False) -> Any:
    """Add up a nested list of blocks, in its order, for `dask.array.reduction`."""
    if not isinstance(parts, list):
        return parts
    first, *others = (merged(part) for part in parts)
    for other in others:
        first = first + other
    return first


def same(block: Any, axis: object = None, keepdims: bool = False) -> Any:
    """Return the block: what `dask.array.reduction` does first."""
    return block


def joined(parts: Any, axis: int = 0) -> ChannelStats:
    """Put the statistics of blocks of channels, a nested list, side by side."""
    if isinstance(parts, ChannelStats):
        return parts
    each = [joined(part, axis + 1) for part in parts]
    lengths = [stats.count.shape[axis] for stats in each]
    whole = [*each[0].count.shape]
    whole[axis] = sum(lengths)
    place, spread = [slice(None)] * len(whole), []
    for stats, length, end in zip(each, lengths, accumulate(lengths), strict=True):
        place[axis] = slice(end - length, end)
        spread.append(stats._among(tuple(place), tuple(whole)))
    return reduce(add, spread)


def field(stats: ChannelStats, name: str, *args: float) -> Array:
    """Return what a property or method of statistics gives."""
    value = getattr(stats, name)
    return np.asarray(value(*args) if callable(value) else value)


def row(array: Array, i: int, dtype: Any) -> Array:
    """Return one of the rows of a block in a dtype that may not hold all of it."""
    return cast(array[i], dtype)


def counted(stats: ChannelStats, otherwise: str) -> ChannelStats:
    """Return the statistics, or raise if a channel has no values to normalize by."""
    if not stats.count.all():
        raise ValueError(otherwise)
    return stats


def of_parameters(gradients: Gradients) -> Array:
    """Return dgamma and dbeta of a block, if there is one."""
    return np.stack([g for g in (gradients.dgamma, gradients.dbeta) if g is not None])


def normalized(
    x: Array,
    stats: ChannelStats,
    channel_axis: Any,
    eps: float,
    gamma: Array | None = None,
    beta: Array | None = None,
    residual: Array | None = None,
    activation: str | None = None,
) -> Any:
    """Normalize a block by the statistics of the whole, and by what their mean lost to rounding."""
    call = "batch_norm_train"
    a, view = _viewed(call, x, channel_axis)
    named = {"mean": stats.mean, "var": stats.var(), "low": stats._low}
    mean, var, low = (_statistic(call, n, value, a, view) for n, value in named.items())
    g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
    b = check.parameter(call, "beta", beta, view, a.shape, 0.0)
    y = Output(call, None, a, view)
    if a.size:
        a5, r5 = five_axes(a, view), _five_axes(residual, view)
        relu = activation is not None
        backend().normalize(a5, mean, var, g, b, eps, y.five_axes, r5, relu, low)
    return y.done(None)


def gradient_sums(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    channel_axis: Any,
    eps: float,
    where: Array | None = None,
    low: Array | None = None,
) -> Array:
    """Return dgamma and dbeta of a block, in float64."""
    call = "batch_norm_backward"
    a, view = _viewed(call, x, channel_axis)
    if not a.size:
        return np.zeros((2, *view.channels))
    m, v = (_statistic(call, "", value, a, view) for value in (mean, var))
    lost = None if low is None else _statistic(call, "", low, a, view)
    w5 = _five_axes(check.mask(call, where, a), view)
    sums = backend().gradient_sums(_five_axes(dy, view), five_axes(a, view), m, v, eps, w5, lost)
    return np.stack([per_channel(each, view) for each in sums[::-1]])


def input_gradient(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    channel_axis: Any,
    eps: float,
    gamma: Array | None = None,
    where: Array | None = None,
    sums: Array | None = None,
    count: Array | None = None,
    low: Array | None = None,
) -> Any:
    """Return dx of a block; of a training step by dgamma, dbeta and count of the whole."""
    call = "batch_norm_backward"
    a, view = _viewed(call, x, channel_axis)
    dx = Output(call, None, a, view)
    if a.size:
        m, v, n = (_statistic(call, "", value, a, view) for value in (mean, var, count))
        g = check.parameter(call, "gamma", gamma, view, a.shape, 1.0)
        d5, a5 = _five_axes(dy, view), five_axes(a, view)
        w5 = _five_axes(check.mask(call, where, a), view)
        lost = None if low is None else _statistic(call, "", low, a, view)
        both = None
        if sums is not None:
            both = tuple(check.parameter(call, "sums", s, view, a.shape) for s in sums[::-1])
        backend().input_gradient(d5, a5, m, v, g, both, n, eps, dx.five_axes, w5, lost)
    return dx.done(None)


def _viewed(call: str, x: Array, channel_axis: Any) -> tuple[Array, View]:
    """Return a block as the kernels take it, and its view."""
    a = as_array(call, "x", x)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, a.shape)
    return a, batch_view(a.shape, order_of(a), axes)


def _statistic(call: str, name: str, value: Array | None, x: Array, view: View) -> Array:
    """Return a value per channel as the kernels take it; ones for None."""
    return check.parameter(call, name, value, view, x.shape, 1.0).reshape(1, -1)


def _five_axes(array: Array | None, view: View) -> Any:
    """Return an array of x's shape as the kernels take it."""
    return None if array is None else five_axes(as_array("", "", array), view)
