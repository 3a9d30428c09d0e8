"""Statistics per channel that merge exactly: of an array, of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import Array, five_axes, has_nan, kind, not_nan, order_of
from numba_bn._call import per_channel, real_array
from numba_bn._device import DeviceMoments
from numba_bn._dispatch import backend
from numba_bn._files import write
from numba_bn._mpi import Ranks
from numba_bn._view import View, batch_view
from numba_bn.chunks.sources import is_chunked
from numba_bn.stats import _turns
from numba_bn.stats._exact import Exact, exact_from
from numba_bn.stats._moments import Moments, moments_of
from numba_bn.stats.device import DeviceChannelStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FIELDS = ("count", "mean", "m2")


class ChannelStats:
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
    ValueError
        If the shapes differ.

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

    __slots__ = ("_state",)
    __hash__ = None  # type: ignore[assignment]
    _state: Moments | Exact
    """All there is in one, so that an interrupt cannot leave it out of step."""

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

    @classmethod
    def _with(cls, state: Moments | Exact) -> ChannelStats:
        """Return the statistics in a state."""
        self = cls.__new__(cls)
        self._state = state
        return self

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

    def var(self, correction: float = 0) -> Array:
        """Return ``m2 / (count - correction)``; NaN where that many values were not seen."""
        c = check.number("ChannelStats.var", "correction", correction)
        moments = self._moments
        return variance(moments.count, moments.m2, c)

    def std(self, correction: float = 0) -> Array:
        """Return the square root of `var`."""
        return np.asarray(np.sqrt(self.var(correction)))

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Return the statistics of the values of both."""
        if not isinstance(other, ChannelStats):
            raise check.no_stats("ChannelStats.merge", "other", other)
        mine, theirs = self._state, other._state
        if mine.count.shape != theirs.count.shape:
            raise ValueError(
                f"ChannelStats.merge: other must have channels of shape {mine.count.shape}, "
                f"got {theirs.count.shape}"
            )
        return self._with(_merged(mine, theirs))

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
        """Take in the values of `x`, and return self; on an error nothing is changed.

        They are summed exactly if `reproducible`, by default if these statistics are.
        """
        exact = self.reproducible if reproducible is None else reproducible
        how: dict[str, Any] = {"channel_axis": channel_axis, "where": where}
        new: Any = channel_stats(x, **how, reproducible=exact)
        if isinstance(new, DeviceChannelStats):
            new = new.get()
        with _turns.lock:
            self._state = self.merge(new)._state
        return self

    def allreduce(self, comm: Any) -> ChannelStats:
        """Return the statistics of all ranks of a communicator of mpi4py, the same bits on each.

        All ranks make this call, those without a value too; they merge in the order of the ranks.
        """
        call = "ChannelStats.allreduce"
        ranks = Ranks.of(call, comm)
        if ranks is None:
            return copy(self)
        parts = ranks.gather(call, {"the shape of the channels": self._state.count.shape}, self)
        merged: ChannelStats = reduce(add, parts)
        return merged

    def _arrays(self) -> dict[str, Array]:
        """Return all there is to keep, by name."""
        return self._state.arrays()

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, Array]) -> ChannelStats:
        """Return the statistics in what `_arrays` gave."""
        exact = "exact_version" in arrays
        return cls._with(exact_from(arrays) if exact else moments_of(**arrays))

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

        `channel_axis`, `nan_policy` and `reproducible` are those of `channel_stats`. `progress`
        shows a bar, by tqdm; by default on a terminal, if tqdm is there.
        """
        from numba_bn.chunks.statistics import of_iterable

        how = {"channel_axis": channel_axis, "nan_policy": nan_policy, "reproducible": reproducible}
        return of_iterable("ChannelStats.from_chunks", chunks, progress, how)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as ``.npz``; the file is replaced whole or not at all."""
        write("ChannelStats.save", path, self._arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ChannelStats:
        """Read what `save` wrote; never executes what it reads."""
        with open(path, "rb") as handle:
            try:
                with np.load(handle, allow_pickle=False) as file:
                    return cls._from_arrays(file)
            except Exception as error:  # a damaged file can raise nearly anything
                raise ValueError(
                    f"ChannelStats.load: {os.fsdecode(path)} is not a file of ChannelStats "
                    f"({error})"
                ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChannelStats):
            return NotImplemented
        mine, theirs = self._arrays(), other._arrays()
        return mine.keys() == theirs.keys() and all(
            np.array_equal(mine[k], theirs[k], equal_nan=True) for k in mine
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ChannelStats._from_arrays, (self._arrays(),)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={np.array2string(getattr(self._moments, name), threshold=6, precision=6)}"
            for name in _FIELDS
        )
        return f"ChannelStats({fields}{', reproducible=True' if self.reproducible else ''})"


def _merged(mine: Moments | Exact, theirs: Moments | Exact) -> Moments | Exact:
    """Return the state of both; what is empty goes with any."""
    if isinstance(mine, Exact) and isinstance(theirs, Exact):
        return mine.merge(theirs)
    if isinstance(mine, Moments) and isinstance(theirs, Moments):
        return mine.merge(theirs)
    exact, rounded = (mine, theirs) if isinstance(mine, Exact) else (theirs, mine)
    if rounded.count.any():
        raise ValueError(
            "ChannelStats.merge: statistics with reproducible=True merge with such alone, "
            f"got {'other' if rounded is theirs else 'self'} without"
        )
    return exact


def variance(count: Array, m2: Array, correction: float) -> Array:
    """Return ``m2 / (count - correction)``, and NaN where that many values were not seen."""
    result = np.full(count.shape, np.nan)
    np.divide(m2, count - correction, out=result, where=count > correction)
    return result


@adapted
def channel_stats(
    x: ArrayLike,
    *,
    channel_axis: int | Sequence[int] = 1,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
    reproducible: bool = False,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 5.0,
) -> ChannelStats:
    """Return the number of values, mean and sum of squared deviations of each channel of `x`.

    Per block of values, differences to one of them are summed in float64; blocks merge by Chan's
    formula, in an order that depends on shapes alone: same bits at any number of threads.

    Parameters
    ----------
    x : array_like, any shape
        float16, bfloat16, float32, float64, or integers. A memory map of more than 112 MB, an HDF5
        dataset (h5py), a zarr array, and whatever else has chunks and slices alike is read block by
        block, along its own chunks, the next one while the kernels work.
    channel_axis : int or tuple of int, default 1
        The axis, or axes, that hold the channels.
    where : array_like of bool, broadcasts to x, optional
        False keeps a value out.
    nan_policy : {"propagate", "omit", "raise"}
        What NaN does: make its channel NaN, not count, or raise.
    reproducible : bool, default False
        Sum exactly: the same bits however a data set is cut into arrays and in whatever order their
        statistics are merged, by any number of threads and processes.
    progress : bool, optional
        Of what is read block by block, whether to show a bar, which needs tqdm; by default on a
        terminal, if tqdm is there.
    checkpoint : path, optional
        File that keeps what was done, for a call that is stopped, or killed, and made again; the
        result has the same bits. A job that is done is not done again: remove the file if x was
        changed in place since, which is seen of memory maps, zarr on a disk, and HDF5 that is open
        for reading alone.
    checkpoint_every : float, default 5.0
        Seconds from one checkpoint to the next.

    Returns
    -------
    ChannelStats
        float64, of the shape of x's channel axes.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit; of NaN if so asked; if the checkpoint is of another job.
    OSError
        If x cannot be read, or the checkpoint not be written.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for Computing the Sample Variance", 1983.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> nbn.channel_stats(np.array([[1, 10], [3, 30]], np.uint8))
    ChannelStats(count=[2. 2.], mean=[ 2. 20.], m2=[  2. 200.])
    """
    call = "channel_stats"
    if type(x) is not np.ndarray and is_chunked(x, checkpoint is not None):
        from numba_bn.chunks import statistics, work

        options = work.Options(progress, checkpoint, checkpoint_every)
        how = {"nan_policy": nan_policy, "reproducible": bool(reproducible)}
        return statistics.of_source(call, x, channel_axis, where, how, options)
    a = real_array(call, x)
    if checkpoint is not None:
        raise ValueError(
            f"{call}: checkpoint is for what is read in blocks, not for arrays in memory"
        )
    if reproducible:
        check.in_host_memory(call, "reproducible", a)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, a.shape)
    check.nan_policy(call, nan_policy)
    view = batch_view(a.shape, order_of(a), axes)
    w = check.mask(call, where, a)
    if nan_policy == "omit" and a.dtype.kind not in "iu":
        present = not_nan(a)
        w = present if w is None else present & w
    if not a.size:
        empty = np.zeros(view.channels)
        if reproducible:
            return ChannelStats._with(Exact.empty(view.channels))
        return ChannelStats(empty, np.full(view.channels, np.nan), empty)
    a5, w5 = five_axes(a, view), None if w is None else five_axes(w, view)
    if reproducible:
        stats: Any = ChannelStats._with(Exact.of(backend().exact_sums(a5, w5), view))
    else:
        stats = ChannelStats._of(backend(kind(a)).moments(a5, w5), view)
    if nan_policy == "raise":
        # an empty channel and one with an infinity have a NaN mean too: look before raising
        mean = stats.mean if isinstance(stats, ChannelStats) else stats.get().mean
        if np.isnan(mean).any() and has_nan(a, w):
            raise ValueError(f"{call}: x of shape {a.shape} has NaN, with nan_policy='raise'")
    return stats  # type: ignore[no-any-return]
