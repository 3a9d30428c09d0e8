"""Statistics of a Dask array, as a Dask collection."""

from __future__ import annotations

from operator import add
from typing import Any

import dask.array as da
import numpy as np
from dask.base import DaskMethodsMixin

from numba_bn import _validate as check
from numba_bn._adapters.dask import blocks as of_block
from numba_bn._adapters.dask.graphs import each
from numba_bn.stats import ChannelStats


class DaskChannelStats(DaskMethodsMixin):  # type: ignore[misc]
    """Statistics per channel of a Dask array: a Dask collection that computes to `ChannelStats`.

    Its arrays are Dask arrays, in the chunks of the channels.
    """

    __dask_optimize__ = staticmethod(da.Array.__dask_optimize__)
    __dask_scheduler__ = staticmethod(da.Array.__dask_scheduler__)

    def __init__(self, blocks: da.Array) -> None:
        self.blocks = blocks
        """An array over the channels, each block of which is a `ChannelStats`."""

    @property
    def count(self) -> da.Array:
        """Number of values per channel."""
        return self._field("count")

    @property
    def mean(self) -> da.Array:
        """Their mean; NaN where there are none."""
        return self._field("mean")

    @property
    def m2(self) -> da.Array:
        """Their sum of squared deviations from the mean."""
        return self._field("m2")

    @property
    def _low(self) -> da.Array:
        """What the mean lost to rounding."""
        return self._field("_low")

    def var(self, correction: float = 0) -> da.Array:
        """Return ``m2 / (count - correction)``; NaN where that many values were not seen."""
        return self._field("var", check.number("ChannelStats.var", "correction", correction))

    def std(self, correction: float = 0) -> da.Array:
        """Return the square root of `var`."""
        return self._field("std", check.number("ChannelStats.std", "correction", correction))

    def merge(self, other: DaskChannelStats) -> DaskChannelStats:
        """Return the statistics of the values of both, in the chunks of the channels of self."""
        call = "DaskChannelStats.merge"
        if not isinstance(other, DaskChannelStats):
            kind = type(other).__name__
            hint = "; compute() the lazy ones first" if isinstance(other, ChannelStats) else ""
            raise TypeError(f"{call}: other must be a DaskChannelStats, got {kind}{hint}")
        mine, theirs = self.blocks, other.blocks
        if mine.chunks != theirs.chunks:
            raise ValueError(
                f"{call}: other must have channels in the chunks {mine.chunks}, "
                f"got {theirs.chunks}; compute() both first"
            )
        axes = tuple(range(mine.ndim))
        how = {"dtype": mine.dtype, "meta": mine._meta}
        return DaskChannelStats(da.blockwise(add, axes, mine, axes, theirs, axes, **how))

    def __add__(self, other: Any) -> DaskChannelStats:
        ours = isinstance(other, DaskChannelStats | ChannelStats)  # of which merge says what to do
        return self.merge(other) if ours else NotImplemented

    __radd__ = __add__  # only ever of a ChannelStats, to be refused in the same words

    def counted(self, otherwise: str) -> DaskChannelStats:
        """Return these statistics, which raise when computed if a channel has no values."""
        return DaskChannelStats(each(of_block.counted, self.blocks, np.float64, otherwise))

    def _field(self, *name: Any) -> da.Array:
        return each(of_block.field, self.blocks, np.float64, *name)

    def __repr__(self) -> str:
        return f"DaskChannelStats(shape={self.blocks.shape}, chunks={self.blocks.chunks})"

    def __dask_graph__(self) -> Any:
        return self.blocks.__dask_graph__()

    def __dask_keys__(self) -> Any:
        return self.blocks.__dask_keys__()

    def __dask_layers__(self) -> Any:
        return self.blocks.__dask_layers__()

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, self.blocks.name

    def __dask_postcompute__(self) -> Any:
        return of_block.joined, ()

    def __dask_postpersist__(self) -> Any:
        return _persisted, self.blocks.__dask_postpersist__()


def _persisted(graph: Any, rebuild: Any, args: Any, rename: Any = None) -> DaskChannelStats:
    """Return statistics whose blocks are computed."""
    return DaskChannelStats(rebuild(graph, *args, rename=rename))
