"""A stand-in for CuPy whose arrays lie in the interpreter's memory. No tests.

It has what the library asks of CuPy, and no more.
"""

from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from ptx_memory import GlobalMemory

STREAM = 77
"""The handle of its current stream, unless a test sets ``cuda.handle``."""


class ndarray:  # noqa: N801  # CuPy's own name
    """An array on a device, by the NumPy view of the interpreter's memory."""

    memory: GlobalMemory
    current: Any

    def _computed(self, values: np.ndarray) -> "ndarray":
        """What CuPy computes from an array must be where its current device is."""
        assert self.current.device == self.device.id, "another device is current"
        return array(values, self.device.id)

    def __init__(self, view: np.ndarray, device: int = 0) -> None:
        self.view, self.device = view, SimpleNamespace(id=device)
        self.shape, self.strides, self.dtype = view.shape, view.strides, view.dtype
        begin = view.__array_interface__["data"][0] - self.memory.bytes.ctypes.data
        self.data = SimpleNamespace(ptr=begin + self.memory.BASE, device_id=device)

    @property
    def __cuda_array_interface__(self) -> Any:
        raise AssertionError("which is slower than asking for the address alone")

    def transpose(self, axes: Any) -> "ndarray":
        return ndarray(self.view.transpose(axes), self.device.id)

    def reshape(self, shape: Any) -> "ndarray":
        return ndarray(self.view.reshape(shape), self.device.id)

    def astype(self, dtype: Any) -> "ndarray":
        return self._computed(self.view.astype(dtype))

    def __getitem__(self, index: Any) -> "ndarray":
        return ndarray(self.view[index], self.device.id)

    def __setitem__(self, index: Any, value: "ndarray") -> None:
        assert self.current.device == self.device.id, "another device is current"
        self.view[index] = value.view

    def __eq__(self, other: Any) -> Any:
        return self._computed(self.view == other.view)

    def __and__(self, other: "ndarray") -> "ndarray":
        return self._computed(self.view & other.view)

    def __reduce__(self) -> Any:
        """CuPy's copies and pickles are C-ordered."""
        return array, (self.view.copy("C"), self.device.id)

    __hash__ = None  # type: ignore[assignment]


ndarray.__module__ = "cupy"


def empty(shape: Any, dtype: Any, device: int = 0) -> ndarray:
    memory, dtype = ndarray.memory, np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    at = memory.empty(nbytes) - memory.BASE
    return ndarray(memory.bytes[at : at + nbytes].view(dtype).reshape(shape), device)


def array(values: np.ndarray, device: int = 0) -> ndarray:
    """A copy in the same memory order."""
    memory, order = ndarray.memory, np.argsort([-abs(s) for s in values.strides], kind="stable")
    packed = np.ascontiguousarray(values.transpose(order))
    at = memory.put(packed) - memory.BASE
    view = memory.bytes[at : at + packed.nbytes].view(packed.dtype).reshape(packed.shape)
    return ndarray(view.transpose(np.argsort(order)), device)


def offset(values: np.ndarray, nbytes: int) -> ndarray:
    """A C-ordered copy that begins so many bytes off a multiple of 256."""
    memory = ndarray.memory
    at = memory.put(values, nbytes) - memory.BASE
    return ndarray(memory.bytes[at : at + values.nbytes].view(values.dtype).reshape(values.shape))


def install(monkeypatch: Any, memory: GlobalMemory) -> ModuleType:
    """Be the CuPy that the caller has imported, for a test."""
    monkeypatch.setattr(ndarray, "memory", memory, raising=False)
    cupy = ModuleType("cupy")
    current = SimpleNamespace(device=0)
    monkeypatch.setattr(ndarray, "current", current, raising=False)

    def ascontiguousarray(a: ndarray) -> ndarray:
        dense = a.view.flags.c_contiguous
        return a if dense else a._computed(np.ascontiguousarray(a.view))

    @contextmanager
    def on(ordinal: int) -> Any:
        before, current.device = current.device, ordinal
        yield
        current.device = before

    cupy.cuda = SimpleNamespace(
        handle=STREAM,
        Device=on,
        runtime=SimpleNamespace(getDevice=lambda: current.device),
        get_current_stream=lambda ordinal: SimpleNamespace(ptr=cupy.cuda.handle),
    )
    cupy.ndarray, cupy.asnumpy = ndarray, lambda a: a.view.copy("K")
    cupy.empty = lambda shape, dtype: empty(shape, dtype, current.device)
    cupy.array = lambda values: array(values, current.device)
    cupy.ascontiguousarray = ascontiguousarray
    cupy.broadcast_to = lambda a, shape: ndarray(np.broadcast_to(a.view, shape), a.device.id)
    monkeypatch.setitem(__import__("sys").modules, "cupy", cupy)
    return cupy
