"""A layer's state as it comes from outside: all of it is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numba_bn._arrays import Array, as_array, result_dtype

_OPTIONAL = {"running_count", "num_batches_tracked"}


def checked(call: str, own: Mapping[str, Array], state: Any, channels: int) -> dict[str, Array]:
    """Return a state as arrays, if it is one for a layer whose own state is ``own``."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{call}: state must be a mapping, got {type(state).__name__}")
    missing = sorted(own.keys() - state.keys() - _OPTIONAL)
    unexpected = sorted(state.keys() - own.keys() - _OPTIONAL, key=str)
    if missing or unexpected:
        raise ValueError(f"{call}: missing keys {missing}, unexpected keys {unexpected}")
    return {name: _array(call, name, value, channels) for name, value in state.items()}


def _array(call: str, name: str, value: object, channels: int) -> Array:
    """Return one array of a state, if it fits."""
    array = as_array(call, name, value)
    scalar = name == "num_batches_tracked"
    expected = () if scalar else (channels,)
    if array.shape != expected:
        raise ValueError(f"{call}: {name} must have shape {expected}, got {array.shape}")
    result_dtype(call, name, array.dtype)
    if scalar and array.dtype.kind not in "iu":
        raise TypeError(f"{call}: {name} must be an integer, got {array}")
    return array
