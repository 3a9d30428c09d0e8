"""The rules for what goes in, each once; errors name function, argument, expected, got, shape.

All of these run before anything is compiled or changed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, SupportsFloat

import numpy as np

from numba_bn._arrays import Array, as_array, result_dtype
from numba_bn._device import DeviceArray
from numba_bn._view import Axes, View

Vector = np.ndarray[Any, np.dtype[np.float64]]

_DOUBLE = np.dtype(np.float64)
_PLAIN = frozenset((np.dtype(np.float32), _DOUBLE))


def number(call: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise: it must be a real number and not NaN."""
    if not isinstance(value, float | int | np.floating | np.integer) or isinstance(value, bool):
        raise TypeError(f"{call}: {name} must be a real number, got {value!r}")
    try:
        result = float(value)
    except OverflowError:  # an int of hundreds of digits
        result = math.inf if value > 0 else -math.inf
    if math.isnan(result):
        raise ValueError(f"{call}: {name} must not be NaN")
    return result


def epsilon(call: str, eps: SupportsFloat) -> float:
    """Return ``eps`` as a float; it must be finite and not negative."""
    if type(eps) is float and 0.0 <= eps < math.inf:
        return eps
    result = number(call, "eps", eps)
    if not 0.0 <= result < math.inf:
        raise ValueError(f"{call}: eps must be finite and >= 0, got {eps!r}")
    return result


def momentum(call: str, value: SupportsFloat | None) -> float | None:
    """Return ``momentum`` as a float in [0, 1], or None."""
    if value is None:
        return None
    result = number(call, "momentum", value)
    if not 0.0 <= result <= 1.0:
        raise ValueError(f"{call}: momentum must lie in [0, 1] or be None, got {value!r}")
    return result


def positive_int(call: str, name: str, value: object) -> int:
    """Return ``value`` as an int of at least one."""
    result = integer(call, name, value)
    if result < 1:
        raise ValueError(f"{call}: {name} must be at least 1, got {result}")
    return result


def integer(call: str, name: str, value: Any) -> int:
    """Return ``value`` as an int, or raise."""
    if isinstance(value, bool):
        raise TypeError(f"{call}: {name} must be an integer, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{call}: {name} must be an integer, got {value!r}") from None


def axis_tuple(call: str, name: str, axis: int | Sequence[int], shape: Axes, of: str = "x") -> Axes:
    """Return ``axis`` as ascending non-negative ints, checked against ``shape``."""
    ndim = len(shape)
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    axes = []
    for value in given:
        a = integer(call, name, value)
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(
                f"{call}: {name} must lie in [{-ndim}, {ndim}), got {a} for {of} of shape {shape}"
            )
        axes.append(a % ndim)
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(
            f"{call}: {name} must name distinct axes, got {axis!r} for x of shape {shape}"
        )
    return tuple(sorted(axes))


def trailing_axes(call: str, axis: int | Sequence[int], shape: Axes) -> Axes:
    """Return the axes of a layer norm: the trailing ones, without a gap."""
    axes = axis_tuple(call, "axis", axis, shape)
    if axes != tuple(range(len(shape) - len(axes), len(shape))):
        raise ValueError(
            f"{call}: axis must name the trailing axes, got {axis!r} for x of shape {shape}; "
            "an int means that axis alone"
        )
    return axes


@lru_cache(maxsize=256)
def _small_constant(value: float, size: int, dtype: np.dtype[Any]) -> Array:
    return np.full(size, value, dtype)


def constant(value: float, size: int, dtype: np.dtype[Any]) -> Array:
    """Return a vector of one value; small ones are kept, as making them takes a microsecond."""
    return _small_constant(value, size, dtype) if size <= 4096 else np.full(size, value, dtype)


def parameter(
    call: str,
    name: str,
    value: object,
    view: View,
    shape: Axes,
    default: float = math.nan,
    axis: str = "channel_axis",
) -> Vector:
    """Return a per-channel parameter as a float64 vector in the kernels' channel order.

    Nobody writes to it, but it is writable: to Numba a read-only array is a type of its own, for
    which every kernel would be compiled once more.

    ``axis`` is the caller's name of the argument that says where the channels are, for the hint.
    """
    if value is None:
        return constant(default, math.prod(view.channels), _DOUBLE)
    if (
        type(value) is np.ndarray
        and value.dtype in _PLAIN
        and value.shape == view.channels
        and value.ndim == 1
    ):
        return value.astype(np.float64)  # as nearly always: the rest costs a microsecond
    p = as_array(call, name, value)
    if p.shape != view.channels:
        of = "weight" if axis == "output_axis" else "x"
        raise ValueError(
            f"{call}: {name} must have shape {view.channels}, got {p.shape} "
            f"for {of} of shape {shape}{fitting_axis(p.shape, shape, axis, view.shape[0] > 1)}"
        )
    result_dtype(call, name, p.dtype)
    if isinstance(p, DeviceArray):
        return p.vector(view.channel_axes)
    if len(view.channels) == 1:
        return np.array(p, np.float64)
    return np.array(p.transpose(view.channel_axes), np.float64, order="C").reshape(-1)


def fitting_axis(got: Axes, shape: Axes, argument: str, samples: bool = False) -> str:
    """Name the axis whose length a parameter fits: channels-last data under the default.

    With ``samples``, axis 0 is theirs and never the channels'.
    """
    if len(got) == 1 and argument != "axis":
        for axis in (-1, *range(samples, len(shape) - 1)):
            if shape[axis] == got[0]:
                return f"; axis {axis} has length {got[0]}: {argument}={axis}?"
    return ""


def like(call: str, name: str, value: object, x: Array) -> Array:
    """Return an array argument that must have x's shape (dy, y, residual)."""
    a = as_array(call, name, value)
    if a.shape != x.shape:
        raise ValueError(f"{call}: {name} must have the shape of x, {x.shape}, got {a.shape}")
    result_dtype(call, name, a.dtype)
    if isinstance(a, DeviceArray):  # whose kernels take all of these in the dtype of the result
        return a.astype(result_dtype(call, "x", x.dtype), copy=False)
    return a


def no_stats(call: str, name: str, value: object) -> TypeError:
    """Return the error of what is no ChannelStats, or not yet."""
    hint = "; compute() them first" if hasattr(value, "compute") else ""
    return TypeError(f"{call}: {name} must be a ChannelStats, got {type(value).__name__}{hint}")


def mask(call: str, where: object, x: Any) -> Array | None:
    """Return ``where`` broadcast to the shape of x, which is all that is asked of x."""
    if where is None:
        return None
    m = as_array(call, "where", where)
    if m.dtype != np.bool_:
        raise TypeError(f"{call}: where must have dtype bool, got {m.dtype}")
    try:
        if isinstance(m, DeviceArray):
            return m.broadcast_to(x.shape)
        full = np.broadcast_to(m, x.shape)
    except ValueError:
        raise ValueError(
            f"{call}: where must broadcast to the shape of x, {x.shape}, got {m.shape}"
        ) from None
    return full


def in_host_memory(call: str, option: str, x: Array) -> None:
    """Raise if x is on a device, for an option that is not there."""
    if isinstance(x, DeviceArray):
        raise TypeError(
            f"{call}: {option} is for arrays in the CPU's memory, got x of shape {x.shape} "
            f"on cuda:{x.ordinal}"
        )


def some_values(call: str, x: Array, where: Array | None, channel_axes: Axes) -> None:
    """Raise unless every channel has a value to take statistics of."""
    if where is None and x.size:
        return
    others = tuple(a for a in range(x.ndim) if a not in channel_axes)
    if math.prod(x.shape[a] for a in channel_axes) == 0:
        return
    if math.prod(x.shape[a] for a in others) == 0:
        raise ValueError(f"{call}: no values to take statistics of in x of shape {x.shape}")
    if where is not None and not isinstance(where, DeviceArray):  # which is not waited for
        empty = np.flatnonzero(~where.any(axis=others))
        if empty.size:
            raise ValueError(
                f"{call}: where leaves no values in channel {empty[0]} of x of shape {x.shape}"
            )


def activation(call: str, value: str | None) -> bool:
    """Tell whether the activation is ReLU."""
    if value is None or (isinstance(value, str) and value == "relu"):
        return value is not None
    raise ValueError(f"{call}: activation must be None or 'relu', got {value!r}")


def nan_policy(call: str, value: object) -> None:
    """Raise unless it says what NaN does to statistics."""
    if not isinstance(value, str) or value not in ("propagate", "omit", "raise"):
        raise ValueError(
            f"{call}: nan_policy must be 'propagate', 'omit' or 'raise', got {value!r}"
        )
