"""What kind of array is this, which dtype rule applies, and how is its like laid out and made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numba_bn._device import DeviceArray
from numba_bn._memory import empty
from numba_bn._view import Axes, View, memory_order

Array = np.ndarray[Any, np.dtype[Any]]

_FLOATS = frozenset("efd")
_RESULT_OF_INTEGER = {1: np.dtype(np.float32), 2: np.dtype(np.float32)}
_STRANGERS = {
    "MaskedArray": "pass {0}.filled(...); where=~x.mask leaves values of x out",
    "matrix": "pass np.asarray({0})",
    "DataFrame": "pass {0}.to_numpy()",
    "Series": "pass {0}.to_numpy()",
    "DataArray": "pass {0}.data",
    "Tensor": "pass {0}.detach().numpy()",
}
_KEPT = "read it, {0}[...]; channel_stats and normalize_chunks take what exceeds memory"
_OTHERS = "convert it with np.asarray first"


def as_array(call: str, name: str, value: object) -> Array:
    """Return ``value`` as an aligned, native-endian ndarray, without guessing about strangers."""
    if type(value) is np.ndarray:
        x = value
    elif type(value) is DeviceArray:  # it has what the calls use of an ndarray
        return value  # type: ignore[return-value]
    elif isinstance(value, np.memmap):
        x = value.view(np.ndarray)
    elif isinstance(value, list | tuple | int | float | np.generic):
        if isinstance(value, list | tuple):
            _refuse_strangers(call, name, value)
        try:
            x = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{call}: {name} must be an array of numbers: {error}") from None
    else:
        kind = type(value).__name__
        hint = _STRANGERS.get(kind, _KEPT if hasattr(value, "chunks") else _OTHERS).format(name)
        if place := device_kind(value):
            kind, hint = place, "all arrays of a call must be in one place"
        raise TypeError(f"{call}: {name} must be a NumPy array, got {kind}; {hint}")
    if not (x.dtype.isnative and x.flags.aligned):
        x = x.astype(x.dtype.newbyteorder("="))
    return x


def device_kind(value: object) -> str | None:
    """Name the kind of an array that is on a device; None of what is not."""
    if not hasattr(type(value), "__cuda_array_interface__"):
        return None
    from numba_bn._adapters._convert import kind_of
    from numba_bn._adapters.cuda.looks import library_of

    return None if library_of(value) is None else f"{kind_of(value)}, an array on a device"


def _refuse_strangers(call: str, name: str, values: Sequence[object], deeper: int = 1) -> None:
    """Raise if a list holds arrays of other kinds, which NumPy would convert without a word."""
    for value in values:
        if isinstance(value, list | tuple):
            if deeper:  # a list of lists of them is as far as this looks
                _refuse_strangers(call, name, value, deeper - 1)
        elif hasattr(value, "__array__") and not (
            type(value) is np.ndarray or isinstance(value, np.generic | np.memmap)
        ):
            kind = type(value).__name__
            raise TypeError(f"{call}: {name} must be an array of numbers, got a list with a {kind}")


def dtype_named(name: Any) -> np.dtype[Any]:
    """Return a dtype; of the name of one that NumPy lacks, too."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether ``dtype`` is ``ml_dtypes.bfloat16``, without importing it."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Tell whether ``dtype`` is one of the floating-point dtypes that norms compute in."""
    return dtype.char in _FLOATS or is_bfloat16(dtype)


def result_dtype(call: str, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of a result computed from an array of ``dtype``; refuse what has none."""
    if is_float(dtype):
        return dtype
    if dtype.kind in "iu":
        return _RESULT_OF_INTEGER.get(dtype.itemsize, np.dtype(np.float64))
    if dtype.names:
        hint = f"take one of its fields, {name}[{dtype.names[0]!r}]"
    else:
        hint = f"convert it with {name}.astype({'np.uint8' if dtype.kind == 'b' else 'np.float64'})"
    raise TypeError(
        f"{call}: {name} must have a real floating-point or integer dtype, got {dtype}; {hint}"
    )


def parameter_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of parameters for results of ``dtype``: at least float32."""
    return dtype if dtype.itemsize > 2 else np.dtype(np.float32)


@np.errstate(over="ignore")  # not a with: Ctrl-C at its start would keep it
def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in a dtype that may not hold all of it: what it does not is infinite."""
    return array.astype(dtype, copy=False)


def kind(x: Array) -> str:
    """Return the kind of backend that computes on an array."""
    return "cuda" if isinstance(x, DeviceArray) else "numpy"


def order_of(x: Array) -> Axes:
    """Return the order of x's axes in memory, slowest first."""
    return tuple(range(x.ndim)) if x.flags.c_contiguous else memory_order(x.shape, x.strides)


def five_axes(x: Array, view: View) -> Array:
    """See ``x`` as the view's five axes: a view where memory allows it, else packed once."""
    if isinstance(x, DeviceArray):
        return x.five_axes(view)
    if x.flags.c_contiguous and view.plain:
        return x.reshape(view.shape)
    return np.ascontiguousarray(x.transpose(view.axes)).reshape(view.shape)


def can_hold(x: Array, view: View) -> bool:
    """Tell whether ``five_axes(x, view)`` is a view of ``x`` that can be written through."""
    flags = x.transpose(view.axes).flags
    return flags.c_contiguous and flags.aligned


def not_nan(x: Array) -> Array:
    """Return where x is not NaN."""
    return x.not_nan() if isinstance(x, DeviceArray) else ~np.isnan(x)


def has_nan(x: Array, where: Array | None) -> bool:
    """Tell whether x has NaN where it counts; waits for a device."""
    if isinstance(x, DeviceArray):
        present, counts = x.not_nan().get(), True if where is None else where.get()
    else:
        present, counts = ~np.isnan(x), True if where is None else where
    return bool((~present & counts).any())


def assign(x: Array, value: Array) -> None:
    """Copy ``value`` into x."""
    if isinstance(x, DeviceArray):
        x.assign(value)
    else:
        x[...] = value


def empty_like_view(x: Array, dtype: np.dtype[Any], view: View) -> Array:
    """Return a new array of x's shape in the memory order of the view."""
    if isinstance(x, DeviceArray):
        return x.empty_like_view(dtype, view)
    shape = x.shape
    if view.plain:
        return empty(shape, dtype)
    inverse = sorted(range(len(shape)), key=view.axes.__getitem__)
    return empty(tuple(shape[a] for a in view.axes), dtype).transpose(inverse)
