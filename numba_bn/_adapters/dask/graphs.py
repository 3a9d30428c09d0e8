"""What graphs on Dask arrays are made of: functions of blocks, and trees over the blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

import numba_bn
from numba_bn import _validate as check
from numba_bn._adapters.dask import blocks
from numba_bn._arrays import as_array, parameter_dtype, result_dtype
from numba_bn._view import Axes

OF_X = ("dy", "x", "y", "residual", "where")
OF_CHANNELS = ("gamma", "beta", "mean", "var")


class Graph:
    """A checked call: its arrays in the chunks of x, and its options."""

    def __init__(self, name: str, given: dict[str, Any]) -> None:
        self.name, self.function = name, getattr(numba_bn, name)
        x, key = given["x"], "axis" if "axis" in given else "channel_axis"
        self.own = check.axis_tuple(name, key, given[key], x.shape)
        """The axes of x that parameters, statistics and their gradients have."""
        x = _whole(x, self._within(x.ndim))
        self.chunks = x.chunks
        arrays = {n: v for n, v in {**given, "x": x}.items() if n in OF_X + OF_CHANNELS}
        self.arrays = {n: self.aligned(n, value) for n, value in arrays.items()}
        self.stats = given.get("stats")
        self.options = {n: v for n, v in given.items() if n not in arrays and n != "stats"}
        self.dtype = result_dtype(name, "x", x.dtype)

    def _within(self, ndim: int) -> Axes:
        """Return the axes that the statistics of a sample or row extend over."""
        match self.name.partition("_")[0]:
            case "layer" | "rms":
                return self.own
            case "group":
                return tuple(range(1, ndim))
            case "instance":
                return tuple(a for a in range(1, ndim) if a not in self.own)
        return ()

    def _axes(self, name: str, ndim: int) -> Axes:
        """Return which of x's axes an array has, by its name: the last ones, or its own."""
        count = len(self.chunks)
        return tuple(range(count - ndim, count)) if name in OF_X else self.own

    def aligned(self, name: str, value: Any) -> da.Array:
        """Return an array in the chunks of x; axes of length one are broadcast."""
        lazy = isinstance(value, da.Array)
        array = value if lazy else as_array(self.name, name, value)
        pairs = zip(self._axes(name, array.ndim), array.shape, strict=True)
        chunks = [
            self.chunks[axis] if sum(self.chunks[axis]) == length else length
            for axis, length in pairs
        ]
        return value.rechunk(chunks) if lazy else da.from_array(array, chunks)

    def blocks(
        self, function: Callable[..., Any], dtype: Any, *names: str, **more: Any
    ) -> da.Array:
        """Return what a function gives for each block of the arrays of these names, if given.

        ``more`` are options of the function, or arrays by their names.
        """
        arrays = {n: self.arrays[n] for n in names if n in self.arrays}
        arrays |= {n: more.pop(n) for n in [*more] if isinstance(more[n], da.Array)}
        ndim = len(self.chunks)
        return da.blockwise(
            partial(blocks.run, function, tuple(arrays), more),
            tuple(range(ndim)),
            *(item for n, a in arrays.items() for item in (a, self._axes(n, a.ndim))),
            token=self.name,
            align_arrays=False,
            dtype=dtype,
            meta=_meta(ndim, dtype),
        )

    def total(self, parts: da.Array) -> da.Array:
        """Return the sums of blocks over all axes but those of parameters, as a tree."""
        return da.reduction(
            parts,
            chunk=blocks.same,
            aggregate=blocks.merged,
            name=self.name,
            axis=tuple(a for a in range(parts.ndim) if a not in self.own),
            concatenate=False,
            dtype=parts.dtype,
            meta=_meta(len(self.own), parts.dtype),
        )

    def gradients(self, sums: da.Array, number: int = 2) -> list[da.Array]:
        """Return dgamma and dbeta, of which there are sums in float64, as they are to be."""
        of = "gamma" if "gamma" in self.arrays else "x"
        dtype = parameter_dtype(result_dtype(self.name, of, self.arrays[of].dtype))
        return [each(blocks.row, sums, dtype, i, dtype) for i in range(number)]


def each(function: Callable[..., Any], array: da.Array, dtype: Any, *args: Any) -> da.Array:
    """Return an array of what a function gives for each block."""
    axes = tuple(range(array.ndim))
    literals = (item for arg in args for item in (arg, None))
    meta = _meta(array.ndim, dtype)
    return da.blockwise(function, axes, array, axes, *literals, dtype=dtype, meta=meta)


def _meta(ndim: int, dtype: Any) -> Any:
    """Return what Dask knows the blocks of an array by."""
    return np.empty((0,) * ndim, dtype)


def _whole(x: da.Array, axes: Axes) -> da.Array:
    """Return x with each of these axes in one chunk."""
    if all(x.numblocks[a] == 1 for a in axes):
        return x
    return x.rechunk({a: -1 if a in axes else "auto" for a in range(x.ndim)})
