"""What a result may be written to: checked, like all else, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from numba_bn._arrays import Array, device_kind
from numba_bn._device import DeviceArray


class Passed(Exception):  # noqa: N818, as it is no error
    """Given for ``out``, raised by `checked`: where all else was right, and was all to be known."""


def checked(
    call: str, out: object, x: Array, dtype: np.dtype[Any], inputs: Sequence[object]
) -> Array:
    """Check ``out``: shape, dtype, writable, and no overlap but with exactly the same array."""
    y: Any = out
    # as nearly always: the rest takes a tenth of a small call
    plain = type(y) is np.ndarray and y.dtype is dtype and y.shape == x.shape and y.flags.carray
    if not plain:
        y = _examined(call, out, x, dtype)
    owner = _owner(y)
    for other in inputs:
        if other is out or not isinstance(other, type(y)):
            continue
        theirs = _owner(other)
        if owner is not None and theirs is not None and theirs is not owner:
            continue
        if _overlap(y, other) and not _same(y, other):
            raise ValueError(
                f"{call}: out of shape {y.shape} partly overlaps an input of shape {other.shape}; "
                "it may be that very array or share nothing with it"
            )
    array: Array = y
    return array


def _examined(call: str, out: object, x: Array, dtype: np.dtype[Any]) -> Any:
    """Check what it is, and return it as an array."""
    if out is Passed:
        raise Passed
    if type(out) is not np.ndarray and not isinstance(out, np.memmap | DeviceArray):
        kind = device_kind(out) or type(out).__name__
        raise TypeError(f"{call}: out must be a NumPy array, got {kind}")
    y: Any = out.view(np.ndarray) if isinstance(out, np.memmap) else out
    if y.shape != x.shape:
        raise ValueError(f"{call}: out must have the shape of x, {x.shape}, got {y.shape}")
    if not y.dtype.isnative:
        raise ValueError(f"{call}: out must be in native byte order, got {y.dtype.str}")
    if y.dtype != dtype:
        raise TypeError(
            f"{call}: out must have dtype {dtype}, got {y.dtype} for x of dtype {x.dtype}"
        )
    if not y.flags.writeable:
        raise ValueError(f"{call}: out must be writable, got a read-only array of shape {y.shape}")
    if repeats_memory(y):
        raise ValueError(f"{call}: out must not repeat memory, got strides {y.strides}")
    return y


def repeats_memory(x: Any) -> bool:
    """Tell whether elements of x are in one place, as those of a broadcast array are."""
    if not isinstance(x, DeviceArray) and x.flags.forc:
        return False  # as nearly always: the rest costs a microsecond
    return x.size > 0 and any(s == 0 and n > 1 for s, n in zip(x.strides, x.shape, strict=True))


def may_overlap(out: object, x: Array) -> bool:
    """Tell whether writing to ``out`` may change x."""
    if isinstance(out, DeviceArray) and isinstance(x, DeviceArray):
        return out.overlaps(x)
    return isinstance(out, np.ndarray) and np.may_share_memory(out, x)


def _same(a: Any, b: Any) -> bool:
    """Tell whether two arrays are the same elements in the same places."""
    if isinstance(a, DeviceArray):
        begin = a.pointer == b.pointer
    else:
        begin = a.ctypes.data == b.ctypes.data
    return bool(begin and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype)


def _owner(a: Any) -> Any:
    """Return the array whose memory it is, None where that is not plain to see.

    To compare owners takes a third of what NumPy takes to compare places.
    """
    if isinstance(a, DeviceArray):
        return None
    if a.flags.owndata:
        return a
    base = a.base
    return base if type(base) is np.ndarray and base.flags.owndata else None


def _overlap(a: Any, b: Any) -> bool:
    """Tell whether two arrays share memory; where that is too hard to say, take it for yes."""
    if isinstance(a, DeviceArray):
        return a.overlaps(b)
    if not np.may_share_memory(a, b):
        return False
    effort: Any = 10_000
    try:
        return bool(np.shares_memory(a, b, max_work=effort))
    except np.exceptions.TooHardError:
        return True
