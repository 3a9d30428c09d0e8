"""Statistics per channel that merge exactly: of an array, of a data set, of a training run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array, as_array, five_axes, order_of, result_dtype
from numba_bn._call import per_channel, real_array
from numba_bn._dispatch import backend
from numba_bn._view import View, batch_view

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FIELDS = ("count", "mean", "m2")


class ChannelStats:
    """Number of values, mean, and sum of squared deviations of each channel.

    Statistics of parts merge into those of the whole: ``a + b``, for any counts, empty ones too.

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

    __slots__ = _FIELDS
    __hash__ = None  # type: ignore[assignment]
    count: Array
    mean: Array
    m2: Array

    def __init__(self, count: ArrayLike, mean: ArrayLike, m2: ArrayLike) -> None:
        named = zip(_FIELDS, (count, mean, m2), strict=True)
        arrays = [_float64("ChannelStats", name, value) for name, value in named]
        if len({a.shape for a in arrays}) > 1:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise ValueError(f"ChannelStats: count, mean and m2 must have one shape, got {shapes}")
        self.count, self.mean, self.m2 = arrays

    @classmethod
    def _of(cls, moments: Sequence[Array], view: View) -> ChannelStats:
        """Return the statistics in a backend's moments (1, channels), which nobody else holds."""
        self = cls.__new__(cls)
        self.count, self.mean, self.m2 = [per_channel(v[0], view) for v in moments]
        return self

    def var(self, correction: float = 0) -> Array:
        """Return ``m2 / (count - correction)``; NaN where that many values were not seen."""
        c = check.number("ChannelStats.var", "correction", correction)
        result = np.full(self.count.shape, np.nan)
        np.divide(self.m2, self.count - c, out=result, where=self.count > c)
        return result

    def std(self, correction: float = 0) -> Array:
        """Return the square root of `var`."""
        return np.asarray(np.sqrt(self.var(correction)))

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Return the statistics of the values of both."""
        if not isinstance(other, ChannelStats):
            kind = type(other).__name__
            raise TypeError(f"ChannelStats.merge: other must be a ChannelStats, got {kind}")
        if self.count.shape != other.count.shape:
            raise ValueError(
                f"ChannelStats.merge: other must have channels of shape {self.count.shape}, "
                f"got {other.count.shape}"
            )
        count = self.count + other.count
        both = (self.count > 0) & (other.count > 0)
        delta = np.where(both, other.mean - self.mean, 0.0)
        share = np.divide(other.count, count, out=np.zeros_like(count), where=both)
        mean = np.where(self.count > 0, self.mean + delta * share, other.mean)
        return ChannelStats(count, mean, self.m2 + other.m2 + delta**2 * self.count * share)

    def __add__(self, other: object) -> ChannelStats:
        return self.merge(other) if isinstance(other, ChannelStats) else NotImplemented

    def update(
        self,
        x: ArrayLike,
        *,
        channel_axis: int | Sequence[int] = 1,
        where: ArrayLike | None = None,
    ) -> ChannelStats:
        """Take in the values of `x`, and return self."""
        merged = self.merge(channel_stats(x, channel_axis=channel_axis, where=where))
        self.count, self.mean, self.m2 = merged.count, merged.mean, merged.m2
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as ``.npz``; the file is replaced whole or not at all."""
        path = os.fsdecode(path)
        aside = f"{path}.{secrets.token_hex(4)}.tmp"
        with open(aside, "xb") as file:  # not tempfile: it would keep others from reading
            try:
                np.savez(file, **{name: getattr(self, name) for name in _FIELDS})
                file.close()
                os.replace(aside, path)
            except BaseException:
                os.unlink(aside)
                raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ChannelStats:
        """Read what `save` wrote; never executes what it reads."""
        with open(path, "rb") as handle:
            try:
                with np.load(handle, allow_pickle=False) as file:
                    return cls(*(file[name] for name in _FIELDS))
            except Exception as error:  # a damaged file can raise nearly anything
                raise ValueError(
                    f"ChannelStats.load: {os.fsdecode(path)} is not a file of ChannelStats "
                    f"({error})"
                ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChannelStats):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in _FIELDS)
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChannelStats, (self.count, self.mean, self.m2)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={np.array2string(getattr(self, name), threshold=6, precision=6)}"
            for name in _FIELDS
        )
        return f"ChannelStats({fields})"


def _float64(call: str, name: str, value: object) -> Array:
    """Return a copy of an array argument as float64."""
    array = as_array(call, name, value)
    result_dtype(call, name, array.dtype)
    return array.astype(np.float64)


def channel_stats(
    x: ArrayLike,
    *,
    channel_axis: int | Sequence[int] = 1,
    where: ArrayLike | None = None,
    nan_policy: str = "propagate",
) -> ChannelStats:
    """Return the number of values, mean and sum of squared deviations of each channel of `x`.

    Per block of values, differences to one of them are summed in float64; blocks merge by Chan's
    formula, in an order that depends on shapes alone: same bits at any number of threads.

    Parameters
    ----------
    x : array_like, any shape
        float16, bfloat16, float32, float64, or integers.
    channel_axis : int or tuple of int, default 1
        The axis, or axes, that hold the channels.
    where : array_like of bool, broadcasts to x, optional
        False keeps a value out.
    nan_policy : {"propagate", "omit", "raise"}
        What NaN does: make its channel NaN, not count, or raise.

    Returns
    -------
    ChannelStats
        float64, of the shape of x's channel axes.

    Raises
    ------
    TypeError, ValueError, AxisError
        If an argument does not fit; of NaN if so asked.

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
    a = real_array(call, x)
    axes = check.axis_tuple(call, "channel_axis", channel_axis, a.shape)
    if nan_policy not in ("propagate", "omit", "raise"):
        raise ValueError(
            f"{call}: nan_policy must be 'propagate', 'omit' or 'raise', got {nan_policy!r}"
        )
    view = batch_view(a.shape, order_of(a), axes)
    w = check.mask(call, where, a)
    if nan_policy == "omit" and a.dtype.kind not in "iu":
        present = ~np.isnan(a)
        w = present if w is None else present & w
    if not a.size:
        empty = np.zeros(view.channels)
        return ChannelStats(empty, np.full(view.channels, np.nan), empty)
    w5 = None if w is None else five_axes(w, view)
    moments = backend().moments(five_axes(a, view), w5)
    stats = ChannelStats._of(moments, view)
    if nan_policy == "raise":
        # an empty channel and one with an infinity have a NaN mean too: look before raising
        nan = np.isnan(stats.mean).any() and (np.isnan(a) if w is None else np.isnan(a) & w).any()
        if nan:
            raise ValueError(f"{call}: x of shape {a.shape} has NaN, with nan_policy='raise'")
    return stats


class RunningStats:
    """Running mean and variance of a training run.

    ``running = (1 - momentum) * running + momentum * batch``; with ``momentum=None`` the exact
    statistics of all that was seen. Channels without a value in a batch keep what they have.

    Parameters
    ----------
    num_channels : int
        Number of channels.
    momentum : float or None, default 0.1
        Weight of the new value (PyTorch's convention; Keras and ONNX give 1 - momentum).
    correction : int, default 1
        The stored variance divides by ``count - correction``: 1 is PyTorch's, 0 Keras' and ONNX's.

    Attributes
    ----------
    running_mean, running_var : ndarray of float64, shape (num_channels,)
        0 and 1 at first.
    num_batches_tracked : int
        Number of updates so far.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    References
    ----------
    PyTorch's BatchNorm, whose conventions these are.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> running = nbn.RunningStats(1, momentum=0.5)
    >>> running.update(nbn.channel_stats(np.array([[1.0], [3.0]])))
    >>> running.running_mean, running.running_var
    (array([1.]), array([1.5]))
    """

    def __init__(
        self, num_channels: int, *, momentum: float | None = 0.1, correction: float = 1
    ) -> None:
        channels = check.positive_int("RunningStats", "num_channels", num_channels)
        self.momentum = check.momentum("RunningStats", momentum)
        self.correction = check.number("RunningStats", "correction", correction)
        self.running_mean = np.zeros(channels)
        self.running_var = np.ones(channels)
        self.num_batches_tracked = 0
        self.seen: ChannelStats | None = ChannelStats(*np.zeros((3, channels)))
        """All that was seen, for ``momentum=None``; None where a loaded state does not say."""

    def update(self, stats: ChannelStats) -> None:
        """Take in the statistics of a batch; on an error nothing is changed."""
        call = "RunningStats.update"
        if not isinstance(stats, ChannelStats):
            raise TypeError(f"{call}: stats must be a ChannelStats, got {type(stats).__name__}")
        if stats.count.shape != self.running_mean.shape:
            raise ValueError(
                f"{call}: stats must have channels of shape {self.running_mean.shape}, "
                f"got {stats.count.shape}"
            )
        few = (stats.count > 0) & (stats.count <= self.correction)
        if few.any():
            raise ValueError(
                f"{call}: expected more than {self.correction:g} value per channel in training, "
                f"got {stats.count[few][0]:g}"
            )
        seen = self._require_count(call)
        if self.momentum is None:
            seen = seen.merge(stats)
            mean, var, kept = seen.mean, seen.var(self.correction), seen.count > 0
        else:
            m, kept = self.momentum, stats.count > 0
            mean = (1 - m) * self.running_mean + m * stats.mean
            var = (1 - m) * self.running_var + m * stats.var(self.correction)
        mean = np.where(kept, mean, self.running_mean)
        var = np.where(kept, var, self.running_var)
        self.__dict__.update(
            seen=seen,
            running_mean=mean,
            running_var=var,
            num_batches_tracked=self.num_batches_tracked + 1,
        )

    def _require_count(self, call: str) -> ChannelStats:
        """Return what was seen so far, of which ``momentum=None`` must know the count."""
        if self.seen is not None:
            return self.seen
        if self.momentum is None:
            raise ValueError(
                f"{call}: momentum=None needs the number of values seen so far, "
                "which the loaded state does not have"
            )
        return ChannelStats(*np.zeros((3, self.running_mean.size)))

    def __repr__(self) -> str:
        return (
            f"RunningStats({self.running_mean.size}, momentum={self.momentum}, "
            f"correction={self.correction:g}, num_batches_tracked={self.num_batches_tracked})"
        )
