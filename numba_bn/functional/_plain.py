"""Batch norm of plain arrays: what shape and dtype decide is found once, and looked up after that.

Small arrays are normalized in a few microseconds, and to check, see and plan them takes ten more.
Plain are C-contiguous ones of float32 or float64, below a megabyte, in calls without mask, residual
and activation. Each function returns None where a call is not plain: it then goes the ordinary way,
which gives the same bits by the same kernels, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array
from numba_bn._call import Gradients, gradient_dtype
from numba_bn._dispatch import backend
from numba_bn._memory import LARGE
from numba_bn._view import Axes, View, batch_view
from numba_bn.stats import ChannelStats
from numba_bn.stats._moments import Moments


@lru_cache(maxsize=1024)
def _known(shape: Axes, dtype: np.dtype[Any], channel_axis: int) -> View | None:
    """Return the view of C-contiguous arrays; None where they are not plain."""
    ndim = len(shape)
    if dtype.char not in "fd" or not dtype.isnative:
        return None
    if not 0 < prod(shape) * dtype.itemsize < LARGE or not -ndim <= channel_axis < ndim:
        return None
    return batch_view(shape, tuple(range(ndim)), (channel_axis % ndim,))


def _view(x: Any, channel_axis: int | Sequence[int]) -> View | None:
    """Return the same for any x."""
    # True is no axis, though it equals one
    if type(x) is np.ndarray and type(channel_axis) is int and x.flags.carray:
        return _known(x.shape, x.dtype, channel_axis)
    return None


def _given(call: str, out: object, x: Array, *inputs: object) -> Array | None:
    """Return ``out``, checked, if it is as plain as x."""
    y = check.output(call, out, x, x.dtype, (x, *inputs))
    return y if y.flags.carray else None


def normalized(
    call: str,
    x: Any,
    gamma: object,
    beta: object,
    mean: object,
    var: object,
    channel_axis: int | Sequence[int],
    eps: float,
    out: Any,
) -> Any:
    """Return y of batch norm by given statistics."""
    if (view := _view(x, channel_axis)) is None:
        return None
    shape = x.shape
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, shape, 1.0)
    b = check.parameter(call, "beta", beta, view, shape, 0.0)
    m = check.parameter(call, "mean", mean, view, shape)
    v = check.parameter(call, "var", var, view, shape)
    y = np.empty(shape, x.dtype) if out is None else _given(call, out, x, gamma, beta, mean, var)
    if y is None or (launches := backend().launches(view.shape, x.itemsize)) is None:
        return None
    launches.normalize(x, m, v, g, b, eps, y)
    return y if out is None else out


def trained(
    call: str,
    x: Any,
    gamma: object,
    beta: object,
    channel_axis: int | Sequence[int],
    eps: float,
    out: Any,
) -> tuple[Any, ChannelStats] | None:
    """Return y of a training step, and its statistics."""
    if (view := _view(x, channel_axis)) is None:
        return None
    shape = x.shape
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, shape, 1.0)
    b = check.parameter(call, "beta", beta, view, shape, 0.0)
    y = np.empty(shape, x.dtype) if out is None else _given(call, out, x, gamma, beta)
    if y is None or (launches := backend().launches(view.shape, x.itemsize)) is None:
        return None
    moments = launches.forward(x, g, b, eps, y)
    return y if out is None else out, ChannelStats._of_rows(moments)


def gradients(
    call: str,
    dy: Any,
    x: Any,
    gamma: object,
    stats: object,
    channel_axis: int | Sequence[int],
    eps: float,
    out: Any,
) -> Gradients | None:
    """Return the gradients of a training step."""
    view = _view(x, channel_axis)
    if view is None or type(stats) is not ChannelStats:
        return None
    shape = x.shape
    eps = check.epsilon(call, eps)
    g = check.parameter(call, "gamma", gamma, view, shape, 1.0)
    known = stats._moments
    count = known.count
    if count.shape != view.channels or np.count_nonzero(count) < count.size:
        return None
    if not (count.flags.carray and known.mean.flags.carray and known.m2.flags.carray):
        return None  # kernels would be compiled anew for such vectors
    if type(dy) is not np.ndarray or dy.shape != shape or not dy.flags.carray:
        return None
    if not (dy.dtype.isnative and dy.dtype.char in "fd"):
        return None
    dx = np.empty(shape, x.dtype) if out is None else _given(call, out, x, dy, gamma)
    if dx is None or (launches := backend().launches(view.shape, x.itemsize)) is None:
        return None
    if out is not None:  # of which they may be a part
        known = Moments(*[v.copy() for v in (count, known.mean, known.low, known.m2)])
    sums = launches.backward(dy, x, g, eps, dx, known.mean, known.m2, known.count)
    sums = sums.astype(gradient_dtype(gamma, x), copy=False)
    return Gradients(dx if out is None else out, sums[1], sums[0])
