"""Statistics per channel that merge exactly: of an array, of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array
from numba_bn._call import per_channel
from numba_bn._device import DeviceMoments
from numba_bn._mpi import Ranks
from numba_bn._view import View
from numba_bn.stats import _turns
from numba_bn.stats._exact import Exact, merged
from numba_bn.stats._kept import Kept
from numba_bn.stats._moments import Moments, moments_of, variance
from numba_bn.stats.device import DeviceChannelStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FIELDS = ("count", "mean", "m2")


class ChannelStats(Kept):
    """Number of values, mean, and sum of squared deviations of each channel.

    Statistics of parts merge into those of the whole: ``a + b``, for any counts, empty ones too.
    Threads may `update` one object: all updates count, in the order in which they come.

    Parameters
    ----------
    count, mean, m2 : array_like, one shape
        Values per channel, their mean, and ``sum((x - mean)**2)``; held as float64. Where `count`
        is 0 the mean is undefined and ignored.

    Raises
    ------
    TypeError, ValueError
        If one is no array of real numbers, or the shapes differ.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> a = nbn.channel_stats(np.array([[1.0], [2.0]]))
    >>> b = nbn.channel_stats(np.array([[6.0]]))
    >>> a + b
    ChannelStats(count=[3.], mean=[3.], m2=[14.])
    >>> (a + b).var(correction=1)
    array([7.])
    """

    __slots__ = ()

    def __init__(self, count: ArrayLike, mean: ArrayLike, m2: ArrayLike) -> None:
        self._state = moments_of(count, mean, m2)

    @classmethod
    def _of(cls, moments: Sequence[Array] | DeviceMoments, view: View) -> Any:
        """Return the statistics in a backend's moments (1, channels), which nobody else holds."""
        if isinstance(moments, DeviceMoments):
            return DeviceChannelStats(moments, view)
        return cls._with(Moments(*[per_channel(v[0], view) for v in moments]))

    @classmethod
    def _of_rows(cls, rows: Array) -> ChannelStats:
        """Return the statistics in moments (4, channels), which nobody else holds."""
        return cls._with(Moments(rows[0], rows[1], rows[2], rows[3]))

    @property
    def _moments(self) -> Moments:
        """Count, mean, what the mean lost to rounding, and m2, of one moment."""
        return self._state.moments

    @property
    def reproducible(self) -> bool:
        """Whether they are exact sums, which no order of merging changes."""
        return isinstance(self._state, Exact)

    @property
    def count(self) -> Array:
        """Number of values per channel."""
        return self._moments.count

    @property
    def mean(self) -> Array:
        """Their mean; NaN where there are none."""
        return self._moments.mean

    @property
    def m2(self) -> Array:
        """Their sum of squared deviations from the mean."""
        return self._moments.m2

    @property
    def _low(self) -> Array:
        """What the mean lost to rounding."""
        return self._moments.low

    def var(self, correction: float = 0) -> Array:
        """Return ``m2 / (count - correction)``.

        Parameters
        ----------
        correction : float, default 0
            0 is for the variance of these values, 1 for an unbiased estimate.

        Returns
        -------
        ndarray of float64, shape of the channels
            NaN where `count` is not larger than `correction`.

        Raises
        ------
        TypeError, ValueError
            If `correction` is not a real number.

        Examples
        --------
        >>> import numba_bn as nbn
        >>> nbn.ChannelStats([2, 1], [0, 0], [8, 0]).var(correction=1)
        array([ 8., nan])
        """
        c = check.number("ChannelStats.var", "correction", correction)
        moments = self._moments
        return variance(moments.count, moments.m2, c)

    def std(self, correction: float = 0) -> Array:
        """Return the square root of `var`, which says what the argument and the result are."""
        return np.asarray(np.sqrt(self.var(correction)))

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Return the statistics of the values of both, as ``+`` does; neither is changed.

        Parameters
        ----------
        other : ChannelStats
            Of channels of the same shape.

        Returns
        -------
        ChannelStats

        Raises
        ------
        TypeError
            If `other` is something else, or computed later: Dask's.
        ValueError
            If the shapes differ, or only one of both is `reproducible`.
        """
        if not isinstance(other, ChannelStats):
            raise check.no_stats("ChannelStats.merge", "other", other)
        mine, theirs = self._state, other._state
        if mine.count.shape != theirs.count.shape:
            raise ValueError(
                f"ChannelStats.merge: other must have channels of shape {mine.count.shape}, "
                f"got {theirs.count.shape}"
            )
        return self._with(merged(mine, theirs))

    def __add__(self, other: object) -> ChannelStats:
        return self.merge(other) if isinstance(other, ChannelStats) else NotImplemented

    def update(
        self,
        x: ArrayLike,
        *,
        channel_axis: int | Sequence[int] = 1,
        where: ArrayLike | None = None,
        reproducible: bool | None = None,
    ) -> ChannelStats:
        """Take in the values of an array, and return self; on an error nothing is changed.

        Parameters
        ----------
        x, channel_axis, where
            As for `channel_stats`.
        reproducible : bool, optional
            Whether to sum exactly; by default, if these statistics are so.

        Returns
        -------
        ChannelStats
            Self.

        Raises
        ------
        TypeError, ValueError, AxisError
            If an argument does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_bn as nbn
        >>> nbn.ChannelStats([0], [0], [0]).update(np.array([[1.0], [3.0]]))
        ChannelStats(count=[2.], mean=[2.], m2=[2.])
        """
        from numba_bn.stats.of_array import merging_stats

        exact = self.reproducible if reproducible is None else reproducible
        how: dict[str, Any] = {"channel_axis": channel_axis, "where": where}
        new = merging_stats("ChannelStats.update", "x", x, **how, reproducible=exact)
        with _turns.lock:
            self._state = self.merge(new)._state
        return self

    def allreduce(self, comm: Any) -> ChannelStats:
        """Return the statistics of all ranks, merged in their order: the same bits on each.

        Parameters
        ----------
        comm : mpi4py.MPI.Intracomm or None
            All its ranks make this call, those without a value too.

        Returns
        -------
        ChannelStats

        Raises
        ------
        TypeError, ValueError
            If `comm` is something else, or the channels of the ranks differ in shape.
        """
        call = "ChannelStats.allreduce"
        ranks = Ranks.of(call, comm)
        if ranks is None:
            return copy(self)
        parts = ranks.gather(call, {"the shape of the channels": self._state.count.shape}, self)
        merged: ChannelStats = reduce(add, parts)
        return merged

    @classmethod
    def from_chunks(
        cls,
        chunks: Iterable[ArrayLike],
        *,
        channel_axis: int | Sequence[int] = 1,
        nan_policy: str = "propagate",
        reproducible: bool = False,
        progress: bool | None = None,
    ) -> ChannelStats:
        """Return the statistics of arrays that come one after another, of any sizes.

        Parameters
        ----------
        chunks : iterable of array_like
            At least one; Dask's are computed before, or merged as what `channel_stats` gives.
        channel_axis, nan_policy, reproducible
            As for `channel_stats`, of each.
        progress : bool, optional
            Whether to show a bar, which needs tqdm; by default on a terminal, if tqdm is there.

        Returns
        -------
        ChannelStats

        Raises
        ------
        TypeError, ValueError, AxisError
            If an argument or a chunk does not fit, or there is none.

        Examples
        --------
        >>> import numpy as np
        >>> import numba_bn as nbn
        >>> nbn.ChannelStats.from_chunks(np.full((1, 2), k) for k in range(3))
        ChannelStats(count=[3. 3.], mean=[1. 1.], m2=[2. 2.])
        """
        from numba_bn.chunks.statistics import of_iterable

        how = {"channel_axis": channel_axis, "nan_policy": nan_policy, "reproducible": reproducible}
        return of_iterable("ChannelStats.from_chunks", chunks, progress, how)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={np.array2string(getattr(self._moments, name), threshold=6, precision=6)}"
            for name in _FIELDS
        )
        return f"ChannelStats({fields}{', reproducible=True' if self.reproducible else ''})"
