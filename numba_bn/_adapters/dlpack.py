"""Arrays of other libraries that lie in the CPU's memory and say so by DLPack, as JAX's do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from numba_bn._adapters import _convert
from numba_bn._arrays import Array, is_bfloat16

_CPU = 1  # kDLCPU


def call(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Run a public function on arrays of one library; return arrays of that library."""
    return _convert.call(sys.modules[__name__], function, args, options)


def exports(value: Any) -> bool:
    """Tell whether arrays of this class can be seen, and made, through DLPack."""
    kind = type(value)
    return hasattr(kind, "__dlpack__") and hasattr(kind, "__array_namespace__")


def owns(value: Any, lead: Any) -> bool:
    """Tell whether ``value`` is an array of the library that ``lead`` is of."""
    if isinstance(value, np.ndarray) or not exports(value):
        return False
    return value is lead or value.__array_namespace__() is lead.__array_namespace__()


def seen(call: str, name: str, value: Any) -> Array:
    """Return an array's memory as an ndarray; it is read-only where the library says so."""
    try:
        device = value.__dlpack_device__()[0]
        if device != _CPU:
            raise BufferError(f"it is on device type {int(device)} of DLPack")
        if getattr(value.dtype, "name", "") == "bfloat16":  # which NumPy's DLPack does not know
            return np.asarray(value)
        return np.from_dlpack(value)
    except Exception as error:  # what a library raises is its own affair: JAX's tracers, say
        about = str(error).partition("\n")[0]
        raise TypeError(
            f"{call}: {name} must be an array of real numbers in the CPU's memory, "
            f"got {_convert.kind_of(value)}: {about}"
        ) from None


def theirs(result: Array, lead: Any) -> Any:
    """Return a result as an array of the library of ``lead``."""
    space = lead.__array_namespace__()
    return (space.asarray if is_bfloat16(result.dtype) else space.from_dlpack)(result)
