"""Norms of plain arrays: what shape and dtype decide is found once, and looked up after that.

Small arrays are normalized in a few microseconds, and to check, see and plan them takes ten more.
Plain are C-contiguous ones of floats, in calls without mask, residual and activation. Each function
returns None where a call is not plain: it then goes the ordinary way, which gives the same bits by
the same kernels, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from math import nan, prod
from typing import Any

import numpy as np

from numba_bn import _out
from numba_bn import _validate as check
from numba_bn._arrays import Array, cast, is_float, parameter_dtype
from numba_bn._call import Gradients, gradient_dtype
from numba_bn._dispatch import backend
from numba_bn._memory import LARGE, empty
from numba_bn._view import Axes, View
from numba_bn.functional._norms import BATCH, Axis, Norm
from numba_bn.stats import ChannelStats

_DOUBLE = np.dtype(np.float64)
_PARAMETERS = (("gamma", 1.0), ("beta", 0.0), ("mean", nan), ("var", nan))
"""Their names and defaults, in the order in which functions take them."""


class _Kind:
    """What shape, dtype and axis of plain arrays decide."""

    def __init__(self, norm: Norm, view: View, dtype: np.dtype[Any]) -> None:
        self.norm, self.view, self.channels, self._dtype = norm, view, view.channels, dtype
        self.parameters = parameter_dtype(dtype)
        # to find out anew that memory is small takes a tenth of a small call
        self.new = np.empty if prod(view.shape) * dtype.itemsize < LARGE else empty

    @cached_property
    def launches(self) -> Any:
        """Kernels, to be asked for when all is checked; None where there are none."""
        if self.norm.own:
            return backend().own_launches(self.view.shape, self._dtype, self.norm.centred)
        return backend().launches(self.view.shape, self._dtype)


@lru_cache(maxsize=1024)
def _kind(norm: Norm, shape: Axes, dtype: np.dtype[Any], axis: int, groups: int) -> _Kind | None:
    """Return the kind of C-contiguous arrays; None where they are not plain."""
    if not (is_float(dtype) and dtype.isnative and 0 not in shape):
        return None
    try:
        view = norm.view("", shape, tuple(range(len(shape))), axis, groups)
    except ValueError:  # which the ordinary way will raise again
        return None
    return _Kind(norm, view, dtype)


def _kind_of(norm: Norm, x: Any, axis: Axis, groups: int = 1) -> _Kind | None:
    """Return the same for any x."""
    # True is no axis and no number, though it equals one
    if type(x) is np.ndarray and type(axis) is int and type(groups) is int and x.flags.carray:
        return _kind(norm, x.shape, x.dtype, axis, groups)
    return None


def _vectors(call: str, kind: _Kind, x: Array, given: Sequence[Any], out: Any) -> Sequence[Array]:
    """Return parameters, checked: in their dtype for x if all of them are, else float64.

    Those in their dtype are not copied, which takes longer than to look at them, unless ``out`` may
    be one of them, as it may be of x's shape alone.
    """
    dtype, channels, some_default = kind.parameters, kind.channels, False
    for v in given:
        if v is None:
            some_default = True
        elif not (
            type(v) is np.ndarray
            and v.dtype is dtype
            and v.shape == channels
            and v.flags.carray  # to Numba, others are types of their own
        ):
            return [
                check.parameter(call, name, p, kind.view, x.shape, default, kind.norm.axis)
                for (name, default), p in zip(_PARAMETERS, given, strict=False)
            ]
    if some_default:
        given = [
            check.constant(default, channels[0], dtype) if p is None else p
            for (_, default), p in zip(_PARAMETERS, given, strict=False)
        ]
    return given if out is None or x.ndim > 1 else [p.copy() for p in given]


def _ready(
    call: str, kind: _Kind, able: str, out: object, x: Array, *inputs: object
) -> tuple[Any, Array] | None:
    """Return able kernels, and where to write; None if there are none, or ``out`` is not so plain.

    So it is not where it is being read and would be written past the caches. It is checked before
    kernels are asked for, and memory taken after: it takes long.
    """
    y = None if out is None else _out.checked(call, out, x, x.dtype, (x, *inputs))
    if not (y is None or y.flags.carray):
        return None
    if (launches := kind.launches) is None or not getattr(launches, able):
        return None
    if y is not None and able in launches.past:
        read = (x, inputs[0]) if able == "differentiates" else (x,)
        if any(np.may_share_memory(y, a) for a in read):
            return None
    return launches, kind.new(x.shape, x.dtype) if y is None else y


def normalized(
    call: str,
    x: Any,
    gamma: object,
    beta: object,
    mean: object,
    var: object,
    channel_axis: Axis,
    eps: float,
    out: Any,
) -> Any:
    """Return y of batch norm by given statistics."""
    if (kind := _kind_of(BATCH, x, channel_axis)) is None:
        return None
    eps = check.epsilon(call, eps)
    g, b, m, v = _vectors(call, kind, x, (gamma, beta, mean, var), out)
    if (ready := _ready(call, kind, "normalizes", out, x, gamma, beta, mean, var)) is None:
        return None
    launches, y = ready
    launches.normalize(x, m, v, g, b, eps, y)
    return y if out is None else out


def statistics(x: Any, channel_axis: Axis) -> ChannelStats | None:
    """Return the statistics of channels."""
    kind = _kind_of(BATCH, x, channel_axis)
    if kind is None or (launches := kind.launches) is None:
        return None
    return ChannelStats._of_rows(launches.moments(x))


def trained(
    call: str, x: Any, gamma: object, beta: object, channel_axis: Axis, eps: float, out: Any
) -> tuple[Any, ChannelStats] | None:
    """Return y of a training step, and its statistics."""
    done = own(call, BATCH, x, channel_axis, 1, gamma, beta, eps, out)
    return None if done is None else (done[0], ChannelStats._of_rows(done[1]))


def own(
    call: str,
    norm: Norm,
    x: Any,
    axis: Axis,
    groups: int,
    gamma: object,
    beta: object,
    eps: float,
    out: Any,
) -> tuple[Any, Any] | None:
    """Return y of a norm by x's own statistics, and their moments where the norm keeps them."""
    if (kind := _kind_of(norm, x, axis, groups)) is None:
        return None
    eps = check.epsilon(call, eps)
    g, b = _vectors(call, kind, x, (gamma, beta), out)
    if (ready := _ready(call, kind, "trains", out, x, gamma, beta)) is None:
        return None
    launches, y = ready
    moments = launches.forward(x, g, b, eps, y)
    return y if out is None else out, moments


def _alike(dy: Any, x: Array) -> bool:
    """Tell whether dy is as plain as x."""
    return (
        type(dy) is np.ndarray and dy.shape == x.shape and dy.dtype == x.dtype and dy.flags.carray
    )


def gradients(
    call: str,
    dy: Any,
    x: Any,
    gamma: object,
    stats: object,
    channel_axis: Axis,
    eps: float,
    out: Any,
) -> Gradients | None:
    """Return the gradients of a training step."""
    kind = _kind_of(BATCH, x, channel_axis)
    if kind is None or type(stats) is not ChannelStats:
        return None
    eps = check.epsilon(call, eps)
    (g,) = _vectors(call, kind, x, (gamma,), out)
    known = stats._moments
    count, mean, low, m2 = known.count, known.mean, known.low, known.m2
    if count.shape != kind.channels or np.count_nonzero(count) < count.size:
        return None
    if not (count.flags.carray and mean.flags.carray and low.flags.carray and m2.flags.carray):
        return None  # kernels would be compiled anew for such vectors
    if not _alike(dy, x):
        return None
    if (ready := _ready(call, kind, "differentiates", out, x, dy, gamma)) is None:
        return None
    launches, dx = ready
    if out is not None:  # of which they may be a part
        count, mean, low, m2 = (v.copy() for v in (count, mean, low, m2))
    sums = launches.backward(dy, x, g, eps, dx, mean, low, m2, count)
    dbeta, dgamma = _parameter_gradients(sums, kind, g, gamma, x)
    return Gradients(dx if out is None else out, dgamma, dbeta)


def own_gradients(
    call: str,
    norm: Norm,
    dy: Any,
    x: Any,
    axis: Axis,
    groups: int,
    gamma: object,
    eps: float,
    out: Any,
) -> Gradients | None:
    """Return the gradients of a norm by x's own statistics."""
    if (kind := _kind_of(norm, x, axis, groups)) is None or not _alike(dy, x):
        return None
    eps = check.epsilon(call, eps)
    (g,) = _vectors(call, kind, x, (gamma,), out)
    if (ready := _ready(call, kind, "differentiates", out, x, dy, gamma)) is None:
        return None
    launches, dx = ready
    sums = launches.backward(dy, x, g, eps, dx)
    dbeta, dgamma = _parameter_gradients(sums, kind, g, gamma, x)
    return Gradients(dx if out is None else out, dgamma, dbeta if norm.centred else None)


def _parameter_gradients(sums: Array, kind: _Kind, g: Array, gamma: object, x: Array) -> Array:
    """Return sums in the dtype of gamma, of which ``g`` was made."""
    plain = g.dtype is kind.parameters and kind.parameters is not _DOUBLE
    dtype = kind.parameters if plain else gradient_dtype(gamma, x)
    return sums if sums.dtype is dtype else cast(sums, dtype)
