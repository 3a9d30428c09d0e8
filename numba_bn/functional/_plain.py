"""Batch norm of plain arrays: what shape and dtype decide is found once, and looked up after that.

Small arrays are normalized in a few microseconds, and to check, see and plan them takes ten more.
Plain are C-contiguous ones of float32 or float64, below a megabyte, in calls without mask, residual
and activation. Each function returns None where a call is not plain: it then goes the ordinary way,
which gives the same bits by the same kernels, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from math import nan, prod
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array
from numba_bn._call import Gradients, gradient_dtype
from numba_bn._dispatch import backend
from numba_bn._memory import LARGE
from numba_bn._validate import Vector
from numba_bn._view import Axes, View, batch_view
from numba_bn.stats import ChannelStats

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_FLOATS = frozenset((_SINGLE, _DOUBLE))
_PARAMETERS = (("gamma", 1.0), ("beta", 0.0), ("mean", nan), ("var", nan))
"""Their names and defaults, in the order in which functions take them."""


class _Kind:
    """What shape, dtype and channel axis of plain arrays decide."""

    def __init__(self, view: View, dtype: np.dtype[Any]) -> None:
        self.view, self.channels, self._itemsize = view, view.channels, dtype.itemsize

    @cached_property
    def launches(self) -> Any:
        """Kernels, to be asked for when all is checked; None where there are none."""
        return backend().launches(self.view.shape, self._itemsize)


@lru_cache(maxsize=1024)
def _kind(shape: Axes, dtype: np.dtype[Any], channel_axis: int) -> _Kind | None:
    """Return the kind of C-contiguous arrays; None where they are not plain."""
    ndim = len(shape)
    if dtype not in _FLOATS:
        return None
    if not 0 < prod(shape) * dtype.itemsize < LARGE or not -ndim <= channel_axis < ndim:
        return None
    return _Kind(batch_view(shape, tuple(range(ndim)), (channel_axis % ndim,)), dtype)


def _kind_of(x: Any, channel_axis: int | Sequence[int]) -> _Kind | None:
    """Return the same for any x."""
    # True is no axis, though it equals one
    if type(x) is np.ndarray and type(channel_axis) is int and x.flags.carray:
        return _kind(x.shape, x.dtype, channel_axis)
    return None


def _vectors(call: str, kind: _Kind, x: Array, given: tuple[Any, ...]) -> list[Vector]:
    """Return parameters, checked; those that are plain at once, or 0.1 µs is lost for each."""
    channels = kind.channels
    vectors = []
    for (name, default), v in zip(_PARAMETERS, given, strict=False):
        if (
            type(v) is np.ndarray
            and ((d := v.dtype) is _SINGLE or d is _DOUBLE)
            and v.shape == channels
        ):
            vectors.append(v.astype(_DOUBLE))
        else:
            vectors.append(check.parameter(call, name, v, kind.view, x.shape, default))
    return vectors


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
    if (kind := _kind_of(x, channel_axis)) is None:
        return None
    eps = check.epsilon(call, eps)
    g, b, m, v = _vectors(call, kind, x, (gamma, beta, mean, var))
    y = np.empty(x.shape, x.dtype) if out is None else _given(call, out, x, gamma, beta, mean, var)
    if y is None or (launches := kind.launches) is None:
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
    if (kind := _kind_of(x, channel_axis)) is None:
        return None
    eps = check.epsilon(call, eps)
    g, b = _vectors(call, kind, x, (gamma, beta))
    y = np.empty(x.shape, x.dtype) if out is None else _given(call, out, x, gamma, beta)
    if y is None or (launches := kind.launches) is None or not launches.trains:
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
    kind = _kind_of(x, channel_axis)
    if kind is None or type(stats) is not ChannelStats:
        return None
    eps = check.epsilon(call, eps)
    (g,) = _vectors(call, kind, x, (gamma,))
    known = stats._moments
    count, mean, m2 = known.count, known.mean, known.m2
    if count.shape != kind.channels or np.count_nonzero(count) < count.size:
        return None
    if not (count.flags.carray and mean.flags.carray and m2.flags.carray):
        return None  # kernels would be compiled anew for such vectors
    if type(dy) is not np.ndarray or dy.shape != x.shape or dy.dtype != x.dtype:
        return None
    if not dy.flags.carray:
        return None
    dx = np.empty(x.shape, x.dtype) if out is None else _given(call, out, x, dy, gamma)
    if dx is None or (launches := kind.launches) is None or not launches.differentiates:
        return None
    if out is not None:  # of which they may be a part
        count, mean, m2 = count.copy(), mean.copy(), m2.copy()
    sums = launches.backward(dy, x, g, eps, dx, mean, m2, count)
    dtype = gradient_dtype(gamma, x)
    if dtype is not _DOUBLE:
        sums = sums.astype(dtype)
    return Gradients(dx if out is None else out, sums[1], sums[0])
