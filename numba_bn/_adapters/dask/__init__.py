"""Dask arrays: the public functions make graphs over blocks, computed when asked for.

Statistics and gradients of parameters are trees over the blocks, in an order that the chunks alone
decide. A norm whose statistics lie within samples or rows needs these in one chunk: where they are
in several, x is chunked anew, with blocks of about the usual size, as `dask.array.median` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask.array as da
import numpy as np

from numba_bn import _out
from numba_bn import _validate as check
from numba_bn._adapters import arguments, telling
from numba_bn._adapters.dask import norms
from numba_bn._adapters.dask.graphs import OF_CHANNELS, OF_X, Graph
from numba_bn._adapters.dask.stats import DaskChannelStats
from numba_bn._arrays import as_array
from numba_bn.stats import ChannelStats

_REFUSED = {
    "out": "whose results are computed later, into memory of their own",
    "comm": "whose blocks are computed by the workers of Dask",
    "progress": "whose progress dask.diagnostics shows",
    "checkpoint": "which are not read in order: persist what is to be kept",
}


def call(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return what a public function gives for Dask arrays, as Dask collections."""
    name = function.__name__
    given = arguments(function, args, options)
    if "self" in given or "x" not in given:  # a layer, or what is folded
        return function(*args, **options)  # which says what to do
    with telling(function, args, options):
        for option in _REFUSED.keys() & given.keys():
            raise TypeError(f"{name}: {option} must be None for Dask arrays, {_REFUSED[option]}")
    if not isinstance(given["x"], da.Array):
        kind = type(given["x"]).__name__
        raise TypeError(f"{name}: x must be a Dask array as other arguments are, got {kind}")
    _check(function, {n: _stand_in(name, n, value) for n, value in given.items()})
    way = getattr(norms, name, norms.backward if "dy" in given else norms.forward)
    return way(Graph(name, given))


def _stand_in(call: str, name: str, value: Any) -> Any:
    """Return an argument for the checks: of a lazy one its like, of zeros that take no memory."""
    if isinstance(value, DaskChannelStats):
        zeros = np.zeros(value.blocks.shape)
        return ChannelStats(zeros + 1, zeros, zeros)
    if name not in OF_X + OF_CHANNELS or not isinstance(value, da.Array):
        return value
    if math.isnan(sum(value.shape)):
        raise ValueError(
            f"{call}: {name} must have chunks of known sizes, got shape {value.shape}; "
            f"call {name}.compute_chunk_sizes() first"
        )
    dtype = as_array(call, name, value._meta).dtype
    return np.broadcast_to(np.zeros((), dtype), value.shape)


def _check(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Raise what the function raises for NumPy arrays of these shapes and dtypes."""
    name, x, where = function.__name__, given["x"], given.pop("where", None)
    if name == "channel_stats":  # it has no out to end with, but computes nothing of no values
        check.axis_tuple(name, "channel_axis", given["channel_axis"], x.shape)
        function(**{**given, "x": x[(slice(0),) * x.ndim]})
    else:
        with suppress(_out.Passed):
            function(**given, out=_out.Passed)
    check.mask(name, where, x)
