"""CuPy's arrays on a device."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import numpy as np

from numba_bn._device import DeviceArray
from numba_bn._kernels.cuda import driver
from numba_bn._library import Glance
from numba_bn._view import Axes

CONVERTS = True
FOREIGN = False

_SELF = sys.modules[__name__]


def owns(value: Any) -> bool:
    """Tell whether ``value`` is a CuPy array."""
    return isinstance(value, sys.modules["cupy"].ndarray)


def seen(call: str, name: str, value: Any) -> DeviceArray:
    """Return an array as the calls see it."""
    data = value.data
    # data.device_id and not device.id, for which CuPy makes an object
    return DeviceArray(
        value, _SELF, data.ptr, data.device_id, value.shape, value.strides, value.dtype
    )


def glance(value: Any) -> Glance:
    """Return what `seen` looks at; it refuses nothing."""
    data = value.data
    return value, data.ptr, (data.device_id, value.shape, value.strides, value.dtype), None


def address(owner: Any) -> int:
    """Return where an array begins."""
    at: int = owner.data.ptr
    return at


def stream(like: DeviceArray) -> int:
    """Return the handle of CuPy's current stream on the device of an array."""
    return current(like.ordinal, None)


def current(ordinal: int, made_on: int | None) -> int:
    """Return the handle of CuPy's current stream on a device."""
    handle: int = sys.modules["cupy"].cuda.get_current_stream(ordinal).ptr
    return handle


def made_on(array: DeviceArray) -> None:
    """Return nothing: CuPy's arrays do not say."""


def keeper(like: DeviceArray) -> Any:
    """Return that stream, which is destroyed when nobody refers to it."""
    return sys.modules["cupy"].cuda.get_current_stream(like.ordinal)


def empty(shape: Axes, dtype: np.dtype[Any], ordinal: int, stream: int) -> Any:
    """Return a new C-ordered array on a device, for its current stream."""
    cupy = sys.modules["cupy"]
    if cupy.cuda.runtime.getDevice() == ordinal:
        return cupy.empty(shape, dtype)
    with cupy.cuda.Device(ordinal):
        return cupy.empty(shape, dtype)


def _beside(owner: Any) -> Any:
    """Return a context in which CuPy computes where an array is."""
    cuda, ordinal = sys.modules["cupy"].cuda, owner.data.device_id
    return nullcontext() if cuda.runtime.getDevice() == ordinal else cuda.Device(ordinal)


def upload(array: np.ndarray[Any, Any], like: DeviceArray) -> Any:
    """Return a copy of a NumPy array where another is."""
    driver.driver().require_no_capture(like.ordinal, stream(like))
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(like.ordinal):
        return cupy.array(array)


def download(owner: Any) -> np.ndarray[Any, Any]:
    """Return a copy as a NumPy array; waits for the device."""
    array: np.ndarray[Any, Any] = sys.modules["cupy"].asnumpy(owner)
    return array


def transpose(owner: Any, axes: Axes) -> Any:
    """Return a view with the axes in another order."""
    return owner.transpose(axes)


def reshape(owner: Any, shape: Axes) -> Any:
    """Return a view of a C-ordered array."""
    return owner.reshape(shape)


def broadcast(owner: Any, shape: Axes) -> Any:
    """Return a view of a larger shape."""
    return sys.modules["cupy"].broadcast_to(owner, shape)


def packed(owner: Any, axes: Axes) -> Any:
    """Return a C-ordered copy with the axes in another order."""
    with _beside(owner):
        return sys.modules["cupy"].ascontiguousarray(owner.transpose(axes))


def cast(owner: Any, dtype: np.dtype[Any]) -> Any:
    """Return a copy of another dtype."""
    with _beside(owner):
        return owner.astype(dtype)


def assign(owner: Any, value: Any) -> None:
    """Copy ``value`` into an array."""
    with _beside(owner):
        owner[...] = value


def not_nan(owner: Any) -> Any:
    """Return where an array is not NaN."""
    with _beside(owner):
        return owner == owner


def both(owner: Any, other: Any) -> Any:
    """Return where two masks are both true."""
    with _beside(owner):
        return owner & other
