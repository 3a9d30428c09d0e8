"""What kind of array is this, which dtype rule applies, and how is its like laid out and made."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._view import Axes, View, memory_order

Array = np.ndarray[Any, np.dtype[Any]]

_FLOATS = frozenset("efd")
_RESULT_OF_INTEGER = {1: np.dtype(np.float32), 2: np.dtype(np.float32)}
_STRANGERS = {
    "MaskedArray": "pass x.filled(...) and where=~x.mask",
    "matrix": "pass np.asarray(x)",
    "DataFrame": "pass x.to_numpy()",
    "Series": "pass x.to_numpy()",
    "DataArray": "pass x.data",
    "Tensor": "pass x.detach().numpy()",
}


def as_array(call: str, name: str, value: object) -> Array:
    """Return ``value`` as an aligned, native-endian ndarray, without guessing about strangers."""
    if type(value) is np.ndarray:
        x = value
    elif isinstance(value, np.memmap):
        x = value.view(np.ndarray)
    elif isinstance(value, list | tuple | int | float | np.generic):
        x = np.asarray(value)
    else:
        kind = type(value).__name__
        hint = _STRANGERS.get(kind, "convert it with np.asarray first")
        raise TypeError(f"{call}: {name} must be a NumPy array, got {kind}; {hint}")
    if not (x.dtype.isnative and x.flags.aligned):
        x = x.astype(x.dtype.newbyteorder("="))
    return x


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether ``dtype`` is ``ml_dtypes.bfloat16``, without importing it."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def result_dtype(call: str, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a result computed from an array of ``dtype``; refuse what has none."""
    if dtype.char in _FLOATS or is_bfloat16(dtype):
        return dtype
    if dtype.kind in "iu":
        return _RESULT_OF_INTEGER.get(dtype.itemsize, np.dtype(np.float64))
    cast = "np.uint8" if dtype.kind == "b" else "np.float64"
    raise TypeError(
        f"{call}: {name} must have a real floating-point or integer dtype, got {dtype}; "
        f"convert it with {name}.astype({cast})"
    )


def parameter_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of parameters for results of ``dtype``: at least float32."""
    return dtype if dtype.itemsize > 2 else np.dtype(np.float32)


def order_of(x: Array) -> Axes:
    """Return the order of x's axes in memory, slowest first."""
    return tuple(range(x.ndim)) if x.flags.c_contiguous else memory_order(x.shape, x.strides)


def five_axes(x: Array, view: View) -> Array:
    """See ``x`` as the view's five axes: a view where memory allows it, else packed once."""
    return np.ascontiguousarray(x.transpose(view.axes)).reshape(view.shape)


def can_hold(x: Array, view: View) -> bool:
    """Tell whether ``five_axes(x, view)`` is a view of ``x`` that can be written through."""
    return x.transpose(view.axes).flags.c_contiguous


def empty_like_view(shape: Axes, dtype: np.dtype[Any], view: View) -> Array:
    """Return a new array of ``shape`` in the memory order of the view."""
    inverse = sorted(range(len(shape)), key=view.axes.__getitem__)
    return np.empty([shape[a] for a in view.axes], dtype).transpose(inverse)
