"""Statistics per channel that are on a device, and states that go where arrays are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters._convert import is_array
from numba_bn._device import COUNT, LOW, M2, MEAN, DeviceArray, DeviceMoments
from numba_bn._view import Axes, View


class DeviceChannelStats:
    """Number of values, mean and m2 of each channel, on the device where they were computed.

    `batch_norm_backward` and `RunningStats.update` take them as they are. Everything else, merging
    and saving among it, is done by the `ChannelStats` that `get` returns.
    """

    __slots__ = ("_moments", "_view")

    def __init__(self, moments: DeviceMoments, view: View) -> None:
        self._moments, self._view = moments, view

    @property
    def count(self) -> Any:
        """Number of values per channel: float64, of x's own library, as are the others."""
        return self._row(COUNT).owner

    @property
    def mean(self) -> Any:
        """Their mean; NaN where there are none."""
        return self._row(MEAN).owner

    @property
    def m2(self) -> Any:
        """Their sum of squared deviations from the mean."""
        return self._row(M2).owner

    @property
    def ordinal(self) -> int:
        """Number of the device that they are on."""
        return self._moments.rows.ordinal

    def _row(self, which: int) -> DeviceArray:
        row, view = self._moments.rows.row(which), self._view
        return row if len(view.channels) == 1 else row.per_channel(view)

    def given(self, call: str, view: View, shape: Axes) -> tuple[Any, ...]:
        """Return mean, m2, count and low in the channel order of another view, for its backend."""
        mine, rows = self._view, self._moments.rows
        if (view.channels, view.channel_axes) == (mine.channels, mine.channel_axes):
            return tuple(rows.row(which) for which in (MEAN, M2, COUNT, LOW))
        named = (("mean", MEAN), ("m2", M2), ("count", COUNT), ("mean", LOW))
        return tuple(
            check.parameter(call, f"stats.{name}", self._row(which), view, shape)
            for name, which in named
        )

    def get(self) -> Any:
        """Return them as a `ChannelStats`; waits for the device."""
        from numba_bn.stats.channel import ChannelStats

        rows = self._moments.rows
        host = rows.library.download(rows.owner)
        return ChannelStats._of([host[i : i + 1] for i in (COUNT, MEAN, LOW, M2)], self._view)

    def __repr__(self) -> str:
        return f"DeviceChannelStats(channels={self._view.channels}, device='cuda:{self.ordinal}')"


def is_on_device(value: Any) -> bool:
    """Tell whether an array is on a device."""
    return _library_of(value) is not None


def _library_of(value: Any) -> Any:
    """Return the module for an array's library, or None on the CPU."""
    finder = _finder(type(value))  # type: ignore[arg-type]
    return None if finder is None else finder(value)


@cache
def _finder(kind: Any) -> Callable[[Any], Any] | None:
    """Return what finds the library of an array, None for a class that none on a device is of."""
    if kind is not DeviceArray and not hasattr(kind, "__cuda_array_interface__"):
        return None
    from numba_bn._adapters.cuda.looks import library_of

    return library_of


def seen(value: Any) -> DeviceArray:
    """Return an array on a device as the calls see it."""
    if isinstance(value, DeviceArray):
        return value
    array: DeviceArray = _library_of(value).seen("", "", value)
    return array


def require_place(call: str, like: Any) -> None:
    """Raise unless ``like`` is an array: where it is, and of which library, is where to move."""
    if not isinstance(like, np.ndarray | DeviceArray) and not is_array(like):
        raise TypeError(
            f"{call}: like must be an array, got {like!r}: the name of a device does not say of "
            "which library arrays there are to be. A layer, or its statistics, moves to its input "
            "by itself, or before that to where an array is, as in .to(x)"
        )


def is_beside(value: Any, like: Any) -> bool:
    """Tell whether an array is where ``like`` is, and of its library."""
    here, there = _library_of(value), _library_of(like)
    return here is there and (there is None or seen(value).ordinal == seen(like).ordinal)


def beside(value: Any, like: Any) -> Any:
    """Return an array where ``like`` is, of its library; itself if it is there."""
    if is_beside(value, like):
        return value
    there = _library_of(like)
    if there is None:
        return on_host(value)
    new = there.upload(on_host(value), seen(like))
    from numba_bn._kernels.cuda.driver import driver

    driver().synchronize(seen(new).ordinal, there.stream(seen(new)))  # any stream may use it now
    return new


def on_host(value: Any) -> Any:
    """Return an array, if it is on a device, as NumPy's; waits for the device."""
    library = _library_of(value)
    return value if library is None else library.download(value)
