"""Statistics per channel of an array, in memory or in a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import five_axes, has_nan, kind, not_nan, order_of
from numba_bn._call import real_array
from numba_bn._dispatch import backend
from numba_bn._view import batch_view
from numba_bn.chunks.sources import is_chunked
from numba_bn.stats._exact import Exact
from numba_bn.stats.channel import ChannelStats
from numba_bn.stats.device import DeviceChannelStats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
        changed in place since, which is seen of memory maps, zarr in a folder, and HDF5 and zip
        files that are open for reading alone.
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
    propagates = isinstance(nan_policy, str) and nan_policy == "propagate"
    if where is checkpoint is None and propagates and not reproducible:
        from numba_bn.functional import _plain  # which imports this package

        if (done := _plain.statistics(x, channel_axis)) is not None:
            return done
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


def merging_stats(call: str, name: str, x: ArrayLike, **how: Any) -> ChannelStats:
    """Return `channel_stats` of x to merge at once: computed, and on the CPU."""
    found: Any = channel_stats(x, **how)
    if isinstance(found, DeviceChannelStats):
        found = found.get()
    if not isinstance(found, ChannelStats):  # Dask's, which are computed later
        raise check.no_stats(call, f"channel_stats of {name}", found)
    return found
