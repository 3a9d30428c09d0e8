"""Statistics per channel that merge exactly: of an array, of a data set."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters import adapted
from numba_bn._arrays import (
    Array,
    as_array,
    five_axes,
    has_nan,
    kind,
    not_nan,
    order_of,
    result_dtype,
)
from numba_bn._call import per_channel, real_array
from numba_bn._device import DeviceMoments
from numba_bn._dispatch import backend
from numba_bn._view import View, batch_view
from numba_bn.stats import _turns
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

    __slots__ = ("_moments",)
    __hash__ = None  # type: ignore[assignment]
    _moments: tuple[Array, ...]
    """count, mean and m2 in one, so that an interrupt cannot leave them out of step."""

    def __init__(self, count: ArrayLike, mean: ArrayLike, m2: ArrayLike) -> None:
        named = zip(_FIELDS, (count, mean, m2), strict=True)
        arrays = [_float64("ChannelStats", name, value) for name, value in named]
        if len({a.shape for a in arrays}) > 1:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise ValueError(f"ChannelStats: count, mean and m2 must have one shape, got {shapes}")
        self._moments = tuple(arrays)

    @classmethod
    def _of(cls, moments: Sequence[Array] | DeviceMoments, view: View) -> Any:
        """Return the statistics in a backend's moments (1, channels), which nobody else holds."""
        if isinstance(moments, DeviceMoments):
            return DeviceChannelStats(moments, view)
        self = cls.__new__(cls)
        self._moments = tuple([per_channel(v[0], view) for v in moments])
        return self

    @property
    def count(self) -> Array:
        """Number of values per channel."""
        return self._moments[0]

    @property
    def mean(self) -> Array:
        """Their mean; NaN where there are none."""
        return self._moments[1]

    @property
    def m2(self) -> Array:
        """Their sum of squared deviations from the mean."""
        return self._moments[2]

    def var(self, correction: float = 0) -> Array:
        """Return ``m2 / (count - correction)``; NaN where that many values were not seen."""
        c = check.number("ChannelStats.var", "correction", correction)
        count, _, m2 = self._moments
        return variance(count, m2, c)

    def std(self, correction: float = 0) -> Array:
        """Return the square root of `var`."""
        return np.asarray(np.sqrt(self.var(correction)))

    def merge(self, other: ChannelStats) -> ChannelStats:
        """Return the statistics of the values of both."""
        if not isinstance(other, ChannelStats):
            kind = type(other).__name__
            raise TypeError(f"ChannelStats.merge: other must be a ChannelStats, got {kind}")
        mine, theirs = self._moments, other._moments
        if mine[0].shape != theirs[0].shape:
            raise ValueError(
                f"ChannelStats.merge: other must have channels of shape {mine[0].shape}, "
                f"got {theirs[0].shape}"
            )
        return ChannelStats(*_merged(*mine, *theirs))

    def __add__(self, other: object) -> ChannelStats:
        return self.merge(other) if isinstance(other, ChannelStats) else NotImplemented

    def update(
        self,
        x: ArrayLike,
        *,
        channel_axis: int | Sequence[int] = 1,
        where: ArrayLike | None = None,
    ) -> ChannelStats:
        """Take in the values of `x`, and return self; on an error nothing is changed."""
        new: Any = channel_stats(x, channel_axis=channel_axis, where=where)
        if isinstance(new, DeviceChannelStats):
            new = new.get()
        with _turns.lock:
            self._moments = self.merge(new)._moments
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as ``.npz``; the file is replaced whole or not at all."""
        path = os.path.realpath(os.fsdecode(path))
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(
                f"ChannelStats.save: path must be that of a regular file or a new one, got {path}"
            )
        fields: dict[str, Any] = dict(zip(_FIELDS, self._moments, strict=True))
        aside = f"{path}.{secrets.token_hex(8)}.tmp"  # not tempfile: others could not read it
        try:
            with open(aside, "xb") as file:
                np.savez(file, **fields)
                file.flush()
                os.fsync(file.fileno())  # else the name may outlive a power cut, but not the data
            os.replace(aside, path)
        except BaseException:
            with suppress(FileNotFoundError):
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
        pairs = zip(self._moments, other._moments, strict=True)
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    def __reduce__(self) -> tuple[Any, ...]:
        return ChannelStats, self._moments

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={np.array2string(values, threshold=6, precision=6)}"
            for name, values in zip(_FIELDS, self._moments, strict=True)
        )
        return f"ChannelStats({fields})"


def _float64(call: str, name: str, value: object) -> Array:
    """Return a copy of an array argument as float64."""
    array = as_array(call, name, value)
    result_dtype(call, name, array.dtype)
    return array.astype(np.float64)


def variance(count: Array, m2: Array, correction: float) -> Array:
    """Return ``m2 / (count - correction)``, and NaN where that many values were not seen."""
    result = np.full(count.shape, np.nan)
    np.divide(m2, count - correction, out=result, where=count > correction)
    return result


def _merged(
    n0: Array, mean0: Array, m0: Array, n1: Array, mean1: Array, m1: Array
) -> tuple[Array, Array, Array]:
    """Merge count, mean and m2 of two sets by Chan's formula."""
    count = n0 + n1
    both = (n0 > 0) & (n1 > 0)
    delta = np.where(both, mean1 - mean0, 0.0)
    share = np.divide(n1, count, out=np.zeros_like(count), where=both)
    mean = np.where(n0 > 0, mean0 + delta * share, mean1)
    return count, mean, m0 + m1 + delta**2 * n0 * share


@adapted
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
    if not isinstance(nan_policy, str) or nan_policy not in ("propagate", "omit", "raise"):
        raise ValueError(
            f"{call}: nan_policy must be 'propagate', 'omit' or 'raise', got {nan_policy!r}"
        )
    view = batch_view(a.shape, order_of(a), axes)
    w = check.mask(call, where, a)
    if nan_policy == "omit" and a.dtype.kind not in "iu":
        present = not_nan(a)
        w = present if w is None else present & w
    if not a.size:
        empty = np.zeros(view.channels)
        return ChannelStats(empty, np.full(view.channels, np.nan), empty)
    w5 = None if w is None else five_axes(w, view)
    moments = backend(kind(a)).moments(five_axes(a, view), w5)
    stats: Any = ChannelStats._of(moments, view)
    if nan_policy == "raise":
        # an empty channel and one with an infinity have a NaN mean too: look before raising
        mean = stats.mean if isinstance(stats, ChannelStats) else stats.get().mean
        if np.isnan(mean).any() and has_nan(a, w):
            raise ValueError(f"{call}: x of shape {a.shape} has NaN, with nan_policy='raise'")
    return stats  # type: ignore[no-any-return]
