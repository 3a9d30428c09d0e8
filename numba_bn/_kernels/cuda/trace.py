"""What a call does on a device, found out without doing it.

A public function is run on arrays of a `Trace`. They have a shape, strides and a dtype as others
have, so that all checks are made, and no memory: what is allocated, converted and launched is
taken down in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from numba_bn._device import DeviceArray, c_strides, is_dense
from numba_bn._kernels.cuda.launch import Prepared
from numba_bn._view import Axes

_APART = 1 << 56
"""Bytes between the made-up addresses of two arrays: none is as long."""


class Untraceable(Exception):  # noqa: N818, as it is no error
    """Raised where a call asks for values, or for what only an array's own library knows."""


@dataclass(frozen=True, slots=True)
class Node:
    """The owner of a traced array: of array ``slot`` of the call what its library makes of it."""

    pointer: int
    ordinal: int
    shape: Axes
    strides: Axes
    dtype: np.dtype[Any]
    slot: int
    views: tuple[tuple[str, Any], ...] = ()
    """Names of the library's functions that are applied in turn, or "row", and what they take."""

    def viewed(self, what: str, how: Any, shape: Axes, strides: Axes, offset: int = 0) -> Node:
        """Return a view of the same memory."""
        views = (*self.views, (what, how))
        at = self.pointer + offset, self.ordinal
        return Node(*at, shape, strides, self.dtype, self.slot, views)

    def __getitem__(self, index: int) -> Node:
        offset = index * self.strides[0]
        return self.viewed("row", index, self.shape[1:], self.strides[1:], offset)


class Make(NamedTuple):
    """A new array: of a shape, or ``source`` in another dtype."""

    shape: Axes
    dtype: np.dtype[Any]
    source: Node | None = None


def _unknown(*_: Any) -> NoReturn:
    raise Untraceable


class Trace:
    """A library (`numba_bn._device.Library`) whose arrays have no memory."""

    upload = download = packed = assign = not_nan = both = staticmethod(_unknown)

    def __init__(self, converts: bool) -> None:
        self.CONVERTS = converts
        self.steps: list[Make | Prepared] = []
        self._begins: list[int] = []
        """By slot: the arguments' first, then those of what is made."""
        self._out = 0

    def argument(self, array: DeviceArray, is_out: bool = False) -> DeviceArray:
        """Return an argument as it is traced: as aligned as it is, apart from all others.

        Those that begin where ``out`` does are in one place.
        """
        begin = self._begin(array.pointer % 16)
        if is_out:
            begin = self._out = self._out or begin
        slot = len(self._begins) - 1
        node = Node(begin, array.ordinal, array.shape, array.strides, array.dtype, slot)
        traced = self.seen("", "", node)
        traced.writeable = array.writeable
        return traced

    def _begin(self, low: int = 0) -> int:
        self._begins.append(_APART * (1 + len(self._begins)) + low)
        return self._begins[-1]

    def launch(self, prepared: Prepared, addresses: dict[str, int]) -> None:
        """Take down the launches of a backend function, their buffers by the arrays' slots."""
        places = {}
        for name, address in addresses.items():
            slot = address // _APART - 1
            places[name] = slot, address - self._begins[slot]
        self.steps.append(prepared.bound(places))

    def seen(self, call: str, name: str, value: Node) -> DeviceArray:
        """Return an array as the calls see it."""
        place = value.pointer, value.ordinal
        return DeviceArray(value, self, *place, value.shape, value.strides, value.dtype)

    def stream(self, like: DeviceArray) -> int:
        """Return what stands for the stream of a call, whichever that is."""
        return 0

    def empty(self, shape: Axes, dtype: np.dtype[Any], ordinal: int, stream: int) -> Node:
        """Return a new C-ordered array, which begins where all that are allocated may."""
        return self._make(Make(shape, dtype), ordinal)

    def cast(self, owner: Node, dtype: np.dtype[Any]) -> Node:
        """Return a copy of another dtype; how others than C-ordered ones lie is the library's."""
        if not (self.CONVERTS and is_dense(owner.shape, owner.strides, owner.dtype.itemsize)):
            raise Untraceable
        return self._make(Make(owner.shape, dtype, owner), owner.ordinal)

    def _make(self, what: Make, ordinal: int) -> Node:
        self.steps.append(what)
        shape, dtype, begin = what.shape, what.dtype, self._begin()
        strides = c_strides(shape, dtype.itemsize)
        return Node(begin, ordinal, shape, strides, dtype, len(self._begins) - 1)

    def transpose(self, owner: Node, axes: Axes) -> Node:
        """Return a view with the axes in another order."""
        shape, strides = (tuple(of[a] for a in axes) for of in (owner.shape, owner.strides))
        return owner.viewed("transpose", axes, shape, strides)

    def reshape(self, owner: Node, shape: Axes) -> Node:
        """Return a view of a C-ordered array."""
        return owner.viewed("reshape", shape, shape, c_strides(shape, owner.dtype.itemsize))

    def broadcast(self, owner: Node, shape: Axes) -> Node:
        """Return the array, if it has the shape already."""
        if owner.shape != shape:
            raise Untraceable
        return owner
