"""An array on a CUDA device as the calls see it: where it lies and how, and whose it is.

The calls check and reshape these as they do NumPy's arrays, by shapes and strides alone; what needs
the device is asked of the library that the array is from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

import numpy as np

from numba_bn._library import Library, Owner
from numba_bn._view import Axes, View

COUNT, MEAN, LOW, M2 = range(4)
"""Rows of moments on a device."""


class _Flags(NamedTuple):
    c_contiguous: bool
    aligned: bool
    writeable: bool


class DeviceArray:
    """Address, shape and strides (bytes) of an array on device ``ordinal``, and its owner."""

    __slots__ = ("dtype", "library", "ordinal", "owner", "pointer", "shape", "strides", "writeable")

    def __init__(
        self,
        owner: Owner,
        library: Any,
        pointer: int,
        ordinal: int,
        shape: Axes,
        strides: Axes,
        dtype: np.dtype[Any],
        writeable: bool = True,
    ) -> None:
        self.owner = owner
        self.library: Library = library
        self.pointer, self.ordinal = pointer, ordinal
        self.shape, self.strides, self.dtype = shape, strides, dtype
        self.writeable = writeable

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.owner, self.library.__name__, self.writeable)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    @property
    def flags(self) -> _Flags:
        """What of a NumPy array's flags the calls ask for."""
        size = self.dtype.itemsize
        dense = is_dense(self.shape, self.strides, size)
        return _Flags(dense, self.pointer % size == 0, self.writeable)

    def _seen(self, shape: Axes, strides: Axes) -> DeviceArray:
        """Return the same memory in another shape; the owner keeps its own."""
        return DeviceArray(
            *(self.owner, self.library, self.pointer, self.ordinal, shape, strides, self.dtype),
            self.writeable,
        )

    def transpose(self, axes: Sequence[int]) -> DeviceArray:
        """Return the array with its axes in another order; the owner keeps its own."""
        return self._seen(
            tuple([self.shape[a] for a in axes]), tuple([self.strides[a] for a in axes])
        )

    def reshape(self, *shape: Any) -> DeviceArray:
        """Return a C-ordered array in another shape; the owner keeps its own."""
        full = tuple(shape[0]) if isinstance(shape[0], tuple) else shape
        if -1 in full:
            rest = self.size // max(1, -prod(full))
            full = tuple([rest if n == -1 else n for n in full])
        return self._seen(full, c_strides(full, self.itemsize))

    def row(self, index: int) -> DeviceArray:
        """Return a row of a C-ordered matrix."""
        return self.library.seen("", "", self.owner[index])

    def five_axes(self, view: View) -> DeviceArray:
        """See the array as the view's five axes; packed first where it is not dense."""
        seen = self if view.plain else self.transpose(view.axes)
        if not seen.flags.c_contiguous:
            seen = self._packed(view.axes)
        return seen.reshape(view.shape)

    def _packed(self, axes: Axes) -> DeviceArray:
        return self.library.seen("", "", self.library.packed(self.owner, axes))

    def empty_like_view(self, dtype: np.dtype[Any], view: View) -> DeviceArray:
        """Return a new array of this shape in the memory order of the view."""
        library = self.library
        shape = self.shape if view.plain else tuple(self.shape[a] for a in view.axes)
        owner = library.empty(shape, dtype, self.ordinal, library.stream(self))
        if not view.plain:
            inverse = tuple(sorted(range(self.ndim), key=view.axes.__getitem__))
            owner = library.transpose(owner, inverse)
        return library.seen("", "y", owner)

    def empty(self, shape: Axes, dtype: np.dtype[Any]) -> DeviceArray:
        """Return a new C-ordered array beside this one."""
        library = self.library
        owner = library.empty(shape, dtype, self.ordinal, library.stream(self))
        return library.seen("", "", owner)

    def beside(self, value: Any) -> Any:
        """Return a NumPy array as one on this device; anything else as it is."""
        if not isinstance(value, np.ndarray):
            return value
        return self.library.seen("", "", self.library.upload(value, self))

    def vector(self, axes: Axes) -> DeviceArray:
        """Return the values in the order of these axes, as one dense axis."""
        if len(axes) == 1 and self.strides[0] == self.dtype.itemsize:
            return self
        seen = self.transpose(axes)
        if not seen.flags.c_contiguous:
            seen = self._packed(axes)
        return seen.reshape(seen.size)

    def per_channel(self, view: View) -> DeviceArray:
        """Return a vector in the kernels' channel order as an array over x's channel axes."""
        inverse = tuple(sorted(range(len(view.channels)), key=view.channel_axes.__getitem__))
        shape = tuple(view.channels[a] for a in view.channel_axes)
        library = self.library
        owner = library.transpose(library.reshape(self.owner, shape), inverse)
        return library.seen("", "", owner)

    def broadcast_to(self, shape: Axes) -> DeviceArray:
        """Return the array in a larger shape; ValueError where it does not fit."""
        if np.broadcast_shapes(self.shape, shape) != shape:
            raise ValueError("it has more axes, or longer ones")
        return self.library.seen("", "", self.library.broadcast(self.owner, shape))

    def astype(self, dtype: np.dtype[Any], copy: bool = True) -> DeviceArray:
        """Return the array in another dtype; itself if that is its own and no copy is wanted."""
        if dtype == self.dtype and not copy:
            return self
        return self.library.seen("", "", self.library.cast(self.owner, dtype))

    def assign(self, value: DeviceArray) -> None:
        """Take over the values of another array of this shape."""
        self.library.assign(self.owner, value.owner)

    def not_nan(self) -> DeviceArray:
        """Return where the array is not NaN."""
        return self.library.seen("", "", self.library.not_nan(self.owner))

    def __and__(self, other: DeviceArray) -> DeviceArray:
        return self.library.seen("", "", self.library.both(self.owner, other.owner))

    def get(self) -> np.ndarray[Any, Any]:
        """Return a copy as a NumPy array; waits for the device."""
        return self.library.download(self.owner)

    def copy(self, order: str = "K") -> DeviceArray:
        """Return a copy in the same memory order."""
        return self.astype(self.dtype)

    def overlaps(self, other: DeviceArray) -> bool:
        """Tell whether the memory between the ends of both has a byte in common."""
        low, high = extent(self.shape, self.strides, self.dtype.itemsize)
        first, last = extent(other.shape, other.strides, other.dtype.itemsize)
        apart = self.pointer + high <= other.pointer + first
        apart = apart or other.pointer + last <= self.pointer + low
        return self.ordinal == other.ordinal and not apart


def _restored(owner: Owner, library: str, writeable: bool) -> DeviceArray:
    """Return a copied or unpickled array; its owner was made by its own library's rules.

    Those decide the strides too. What layers and statistics hold is seen as its owner has it.
    """
    array: DeviceArray = import_module(library).seen("", "", owner)
    array.writeable = writeable
    return array


class DeviceMoments(NamedTuple):
    """What the backend for devices returns as moments."""

    rows: DeviceArray
    """count, mean, what the mean lost to rounding, m2: (4, batch · groups), float64."""
    values: int | None
    """Values of a group, where the host knows it: without a mask."""


# what follows depends on little, and is asked for again and again


@lru_cache(maxsize=4096)
def c_strides(shape: Axes, itemsize: int) -> Axes:
    """Return the strides in bytes of a C-ordered array."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


@lru_cache(maxsize=4096)
def is_dense(shape: Axes, strides: Axes, itemsize: int) -> bool:
    """Tell whether an array is C-ordered without gaps."""
    both = zip(strides, c_strides(shape, itemsize), shape, strict=True)
    return 0 in shape or all(stride == wanted or n == 1 for stride, wanted, n in both)


@lru_cache(maxsize=4096)
def extent(shape: Axes, strides: Axes, itemsize: int) -> tuple[int, int]:
    """Return where the bytes of an array begin and end, counted from its address."""
    if 0 in shape:
        return 0, 0
    steps = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + itemsize


@lru_cache(maxsize=64)
def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, which NumPy puts together anew at each look."""
    return dtype.name
