"""Numba's device arrays, and all others that have a ``__cuda_array_interface__``.

The interface gives no operations: such arrays must be dense, and results are Numba's. They say by
their interface on which stream they are made.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from numba_bn._device import DeviceArray, c_strides
from numba_bn._kernels.cuda import driver
from numba_bn._kernels.cuda.cubins import needed
from numba_bn._library import Glance
from numba_bn._view import Axes

CONVERTS = False
FOREIGN = True

_SELF = sys.modules[__name__]
_LEGACY_DEFAULT = 1  # as the interface numbers it; 0 is not allowed there, 2 is per thread


def owns(value: Any) -> bool:
    """Tell whether ``value`` has the interface."""
    return hasattr(type(value), "__cuda_array_interface__")


def seen(call: str, name: str, value: Any) -> DeviceArray:
    """Return an array as the calls see it."""
    interface = value.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    if interface.get("mask") is not None:
        raise TypeError(f"{call}: {name} must have no mask; where= leaves values out")
    pointer, readonly = interface["data"]
    if not dtype.isnative or pointer % dtype.itemsize:  # which kernels would not notice
        raise TypeError(
            f"{call}: {name} must be native-endian and aligned on a device, got dtype {dtype.str} "
            f"at address {pointer:#x}"
        )
    shape = tuple(map(int, interface["shape"]))  # plans take Python's numbers alone
    strides = interface.get("strides")
    return DeviceArray(
        value,
        _SELF,
        pointer,
        _ordinal_of(pointer),
        shape,
        c_strides(shape, dtype.itemsize) if strides is None else tuple(map(int, strides)),
        dtype,
        not readonly,
    )


def glance(value: Any) -> Glance | None:
    """Return what `seen` looks at, None of what it might refuse."""
    interface = value.__cuda_array_interface__
    if interface.get("mask") is not None:
        return None
    pointer, readonly = interface["data"]
    shape, strides = (tuple(map(int, interface.get(n) or ())) for n in ("shape", "strides"))
    how = interface["typestr"], shape, strides, bool(readonly)
    return value, int(pointer), (_ordinal_of(pointer), *how), interface.get("stream")


def _ordinal_of(pointer: int) -> int:
    """Return the device of an array, the first where it has no values."""
    return driver.driver().ordinal_of(pointer) if pointer else 0


def address(owner: Any) -> int:
    """Return where an array begins."""
    at: int = owner.__cuda_array_interface__["data"][0]
    return at


def stream(like: DeviceArray) -> int:
    """Return the stream that an array says it is made on, or the default one."""
    return current(like.ordinal, made_on(like))


def current(ordinal: int, made_on: int | None) -> int:
    """Return the stream of an array that says it is made on one, or the default one."""
    return made_on or _LEGACY_DEFAULT


def keeper(like: DeviceArray) -> None:
    """Return nothing: of a stream the interface has the handle alone."""


def made_on(array: DeviceArray) -> int | None:
    """Return the stream that must be waited for before an array is read, if there is one."""
    handle: int | None = array.owner.__cuda_array_interface__.get("stream")
    return handle


def _numba() -> Any:
    with needed("arrays of Numba are made by numba-cuda"):
        from numba_bn._kernels.cuda.target import cuda
    return cuda


def empty(shape: Axes, dtype: np.dtype[Any], ordinal: int, stream: int) -> Any:
    """Return a new C-ordered array of Numba's on a device, for work on a stream."""
    cuda = _numba()
    with cuda.gpus[ordinal]:
        return cuda.device_array(shape, dtype, stream=cuda.external_stream(stream))


def upload(array: np.ndarray[Any, Any], like: DeviceArray) -> Any:
    """Return a copy of a NumPy array where another is, for work on its stream."""
    driver.driver().require_no_capture(like.ordinal, stream(like))
    cuda = _numba()
    with cuda.gpus[like.ordinal]:
        return cuda.to_device(array, stream=cuda.external_stream(stream(like)))


def download(owner: Any) -> np.ndarray[Any, Any]:
    """Return a copy as a NumPy array; waits for the device."""
    array: np.ndarray[Any, Any] = _numba().as_cuda_array(owner).copy_to_host()
    return array


def _viewed(owner: Any, shape: Axes, strides: Axes) -> Any:
    """Return the memory of an array in another shape."""
    interface = {**owner.__cuda_array_interface__, "shape": shape, "strides": strides}
    return _numba().from_cuda_array_interface(interface, owner=owner, sync=False)


def transpose(owner: Any, axes: Axes) -> Any:
    """Return a view with the axes in another order."""
    a = seen("", "", owner).transpose(axes)
    return _viewed(owner, a.shape, a.strides)


def reshape(owner: Any, shape: Axes) -> Any:
    """Return a view of a C-ordered array."""
    return _viewed(owner, shape, c_strides(shape, seen("", "", owner).itemsize))


def broadcast(owner: Any, shape: Axes) -> Any:
    """Return the array, if it has the shape already."""
    return owner if owner.shape == shape else _refuse("broadcast")


def packed(owner: Any, axes: Axes) -> Any:
    """Refuse: there is nothing to copy with."""
    return _refuse("packed")


def cast(owner: Any, dtype: np.dtype[Any]) -> Any:
    """Refuse: there is nothing to convert with."""
    return _refuse(f"converted to {dtype}")


def assign(owner: Any, value: Any) -> None:
    """Refuse: what is computed beside an output lies in another order, or has no gaps."""
    _refuse("written in another memory order")


def not_nan(owner: Any) -> Any:
    """Refuse: there is nothing to compare with."""
    return _refuse("searched for NaN")


def both(owner: Any, other: Any) -> Any:
    """Refuse: there is nothing to combine with."""
    return _refuse("combined with another")


def _refuse(what: str) -> Any:
    raise TypeError(
        f"numba_bn: an array that has to be {what} first must be CuPy's or PyTorch's, which can "
        "do that; a Numba device array, or one known by its __cuda_array_interface__ alone, "
        "must be dense and of the right shape and dtype: pass cupy.asarray(...)"
    )
