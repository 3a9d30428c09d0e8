"""A layer's state, for outside and from there: all of it is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from numba_bn._arrays import Array, as_array, result_dtype
from numba_bn.stats import RunningStats
from numba_bn.stats.device import on_host
from numba_bn.stats.running import resumed

_OPTIONAL = {"running_count", "num_batches_tracked"}


def state_of(
    gamma: Array | None, beta: Array | None, running: RunningStats | None
) -> dict[str, Array]:
    """Return copies of parameters and running statistics as NumPy arrays, by PyTorch's names."""
    state: dict[str, Any] = {"weight": gamma, "bias": beta}
    if running is not None:
        running._ready()
        state["running_mean"] = running.running_mean
        state["running_var"] = running.running_var
        state["num_batches_tracked"] = running.num_batches_tracked
        if running.momentum is None and running.seen is not None:
            state["running_count"] = running.seen.count
    return {name: np.array(on_host(value)) for name, value in state.items() if value is not None}


def whole_state(
    own: Mapping[str, Array], running: RunningStats | None, new: Mapping[str, Array]
) -> dict[str, Any]:
    """Return the attributes that a layer, of state ``own``, is to have by a checked one."""
    names = {"weight": "gamma", "bias": "beta"}
    whole: dict[str, Any] = {
        name: new[key].astype(own[key].dtype) for key, name in names.items() if key in own
    }
    if running is not None:
        running._leave()
        whole["running"] = resumed(running, new)
    return whole


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
