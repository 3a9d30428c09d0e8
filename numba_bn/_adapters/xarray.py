"""DataArrays: axes by the names of dimensions, arguments aligned by them, coordinates kept.

The data goes on as it is, NumPy's to the kernels and Dask's into its graph. An argument whose
coordinates are not those of x is refused: to take what both have in common, as arithmetic does,
would normalize a channel by the statistics of another data set without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import xarray as xr

import numba_bn
from numba_bn import _validate as check
from numba_bn._adapters import arguments, telling
from numba_bn._call import Gradients

Dims = tuple[Hashable, ...]

_PARAMETERS = ("gamma", "beta", "mean", "var")


def call(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return what a public function gives for DataArrays, as DataArrays."""
    name, given = function.__name__, arguments(function, args, options)
    if "self" in given or "x" not in given:  # a layer, or what is folded
        return function(*args, **options)  # which says what to do
    out: Any = given.get("out")
    with telling(function, args, options):
        x, dims, own = _unwrapped(name, given)
    result = getattr(numba_bn, name)(**given)
    written = isinstance(out, xr.DataArray)
    if isinstance(result, Gradients):
        dx, dgamma, dbeta, dresidual = result
        return Gradients(
            out if written else _like(x, dx, dims),
            _like(x, dgamma, own),
            _like(x, dbeta, own),
            _like(x, dresidual, dims),
        )
    if name == "channel_stats":
        return result
    y, *stats = result if isinstance(result, tuple) else (result,)
    y = out if written else _like(x, y, dims).rename(x.name).assign_attrs(x.attrs)
    return (y, *stats) if stats else y


def _unwrapped(call: str, given: dict[str, Any]) -> tuple[xr.DataArray, Dims, Dims]:
    """Replace DataArrays by their data; return x, the dimensions of its data, and its own ones."""
    x = given.get("x")
    if not isinstance(x, xr.DataArray):
        kind = type(x).__name__
        hint = "; use Dataset.map" if kind == "Dataset" else ""
        raise TypeError(f"{call}: x must be a DataArray, got {kind}{hint}")
    key = "axis" if "axis" in given else "channel_axis"
    dims, given[key] = _resolved(call, key, given[key], x.dims)
    shape = tuple(x.sizes[d] for d in dims)
    own = tuple(dims[a] for a in check.axis_tuple(call, key, given[key], shape))
    for n, value in given.items():
        if isinstance(value, xr.DataArray):
            given[n] = _data(call, n, value, x, own if n in _PARAMETERS else dims)
    return x, dims, own


def _resolved(call: str, key: str, axis: Any, dims: Dims) -> tuple[Dims, tuple[Any, ...]]:
    """Return the dimensions in the order that a call needs, and in it the positions of ``axis``."""
    names = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    for n in names:
        if isinstance(n, str) and n not in dims:
            raise ValueError(f"{call}: {key} must name dimensions of x, {dims}, got {n!r}")
    if key == "axis" and all(n in dims for n in names):  # by name, they need not be the last
        dims = (*(d for d in dims if d not in names), *(d for d in dims if d in names))
    return dims, tuple(dims.index(n) if n in dims else n for n in names)


def _data(call: str, name: str, value: xr.DataArray, x: xr.DataArray, dims: Dims) -> Any:
    """Return the data of an argument, its axes in the order of ``dims``."""
    others = set(dims) - set(value.dims)
    if set(value.dims) - set(dims) or (others and name != "where"):
        some = "some of " if name == "where" else ""
        raise ValueError(f"{call}: {name} must have {some}the dimensions {dims}, got {value.dims}")
    try:
        xr.align(x, value, join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"{call}: {name} and x: {error}") from None
    return value.expand_dims(list(others)).transpose(*dims).data


def _like(x: xr.DataArray, data: Any, dims: Dims) -> Any:
    """Return data over some dimensions of x, with x's order of them and their coordinates."""
    if data is None:
        return None
    coords = {n: c for n, c in x.coords.items() if set(c.dims) <= set(dims)}
    array = xr.DataArray(data, coords, dims).rename(None)  # not by Dask's name of the data
    return array.transpose(*(d for d in x.dims if d in dims))
