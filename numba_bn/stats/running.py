"""Running statistics of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from numba_bn import _validate as check
from numba_bn._arrays import Array
from numba_bn._device import DeviceArray
from numba_bn._dispatch import backend
from numba_bn.stats import _turns
from numba_bn.stats._moments import variance
from numba_bn.stats._streams import Streams, captures
from numba_bn.stats.channel import ChannelStats
from numba_bn.stats.device import (
    DeviceChannelStats,
    beside,
    is_beside,
    is_on_device,
    require_place,
    seen,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class RunningStats:
    """Running mean and variance of a training run.

    ``running = (1 - momentum) * running + momentum * batch``; with ``momentum=None`` the exact
    statistics of all that was seen. Channels without a value in a batch keep what they have.
    Threads may `update` one object: all updates count, in the order in which they come.

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
        self._streams: Streams | None = None  # the first to be copied: it waits for the arrays
        self.momentum = check.momentum("RunningStats", momentum)
        self.correction = check.number("RunningStats", "correction", correction)
        self.running_mean = np.zeros(channels)
        self.running_var = np.ones(channels)
        self.num_batches_tracked = 0
        self.seen: ChannelStats | None = ChannelStats(*np.zeros((3, channels)))
        """All that was seen, for ``momentum=None``; None where a loaded state does not say."""

    def update(self, stats: ChannelStats | DeviceChannelStats) -> None:
        """Take in the statistics of a batch; on an error nothing is changed.

        The running statistics are new arrays then, on the CPU and on a device: what was read
        before stays as it was. Once a CUDA graph captured an update, or a layer at test time, all
        updates write to the arrays of that time: replays go on from them, and they from replays,
        which are not counted. `to` and `load_state_dict` leave these arrays to the graph; capture
        it anew then.

        Statistics on a device are taken in there, where this state then is, without waiting for
        it; with ``momentum=None`` they are waited for.
        """
        call = "RunningStats.update"
        if isinstance(stats, DeviceChannelStats):
            if self.momentum is not None:
                self._update_on_device(call, stats)
                return
            stats = stats.get()  # of all that was seen there is a state on the host alone
        if not isinstance(stats, ChannelStats):
            raise check.no_stats(call, "stats", stats)
        batch = stats._moments
        count = batch.count
        if count.shape != self.running_mean.shape:
            raise ValueError(
                f"{call}: stats must have channels of shape {self.running_mean.shape}, "
                f"got {count.shape}"
            )
        # as nearly always: else each channel is looked at by itself, which takes 6 µs
        enough = bool(np.minimum.reduce(count) > max(self.correction, 0.0))
        if not enough:
            self._require_more_than_correction(call, count)
        with _turns.lock:
            if not isinstance(self.running_mean, np.ndarray):
                self.to(stats.mean)
            seen = self._require_count(call)
            if self.momentum is None:
                seen = seen.merge(stats)
                new, kept = (seen.mean, seen.var(self.correction)), seen.count > 0
            elif enough:
                new, kept = self._moved(batch.mean, batch.m2 / (count - self.correction)), None
            else:
                var = variance(count, batch.m2, self.correction)
                new, kept = self._moved(batch.mean, var), count > 0
            if kept is not None:
                old = self.running_mean, self.running_var
                new = np.where(kept, new[0], old[0]), np.where(kept, new[1], old[1])
            # in one call into C: an interrupt finds the old state or the new one
            vars(self).update(
                seen=seen,
                running_mean=new[0],
                running_var=new[1],
                num_batches_tracked=self.num_batches_tracked + 1,
            )

    def _moved(self, mean: Array, var: Array) -> tuple[Array, Array]:
        """Return the running mean and variance on their way to those of a batch."""
        assert self.momentum is not None
        new, old = self.momentum, 1 - self.momentum
        return old * self.running_mean + new * mean, old * self.running_var + new * var

    def _update_on_device(self, call: str, stats: DeviceChannelStats) -> None:
        """Take in statistics where they are; of masked ones the counts are not looked at."""
        (rows, values), view = stats._moments, stats._view
        if view.channels != self.running_mean.shape:
            raise ValueError(
                f"{call}: stats must have channels of shape {tuple(self.running_mean.shape)}, "
                f"got {view.channels}"
            )
        if values is not None and 0 < values <= self.correction:
            raise self._too_few(call, values)
        with _turns.lock:
            self.to(rows)
            state = [seen(vector) for vector in (self.running_mean, self.running_var)]
            streams = self._streams or Streams(state[0])
            streams.join(rows)
            captured = captures(rows)
            if captured:
                streams.capture(state)
            elif streams.stay:
                streams.overwrite(rows)
            new = state if streams.stay else [rows.empty(v.shape, v.dtype) for v in state]
            backend("cuda").update_running(rows, state, new, self.momentum, self.correction)
            if not streams.stay:
                streams.leave()
            if not captured:
                streams = Streams(rows, streams.stay)
            vars(self).update(
                _streams=streams,
                running_mean=new[0].owner,
                running_var=new[1].owner,
                num_batches_tracked=self.num_batches_tracked + 1,
            )

    def _ready(self) -> None:
        """Let the stream that now reads the running statistics wait until they are there."""
        if self._streams is not None:
            state = [seen(vector) for vector in (self.running_mean, self.running_var)]
            self._streams.join(state[0])
            if captures(state[0]):
                self._streams.capture(state)

    def _leave(self) -> None:
        """Let the memory of the running statistics wait for who reads it: others have it next."""
        if self._streams is not None:
            self._streams.leave()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take over the state of what is copied; arrays of a deep copy are made now."""
        vars(self).update(state)
        if self._streams is None and not isinstance(self.running_mean, np.ndarray):
            self._streams = Streams(seen(self.running_mean))

    def _require_more_than_correction(self, call: str, count: Array) -> None:
        few = (count > 0) & (count <= self.correction)
        if few.any():
            raise self._too_few(call, count[few][0])

    def _too_few(self, call: str, count: float) -> ValueError:
        return ValueError(
            f"{call}: expected more than {self.correction:g} value per channel in training, "
            f"got {count:g}"
        )

    def to(self, like: ArrayLike | DeviceArray) -> RunningStats:
        """Move the running statistics to where the array `like` is; returns self.

        To the CPU as NumPy arrays, to a device as arrays of the library of `like`; only moving
        waits for a device.
        """
        require_place("RunningStats.to", like)
        with _turns.lock:
            if not is_beside(self.running_mean, like):
                self._leave()
                self._ready()
                old = self.running_mean, self.running_var
                mean, var = (beside(vector, like) for vector in old)
                streams = Streams(seen(mean)) if is_on_device(mean) else None
                vars(self).update(_streams=streams, running_mean=mean, running_var=var)
        return self

    def _require_count(self, call: str) -> ChannelStats:
        """Return what was seen so far, of which ``momentum=None`` must know the count."""
        if self.seen is not None:
            return self.seen
        if self.momentum is None:
            raise ValueError(
                f"{call}: momentum=None needs the number of values seen so far, "
                "which the loaded state does not have"
            )
        return ChannelStats(*np.zeros((3, *self.running_mean.shape)))

    def __repr__(self) -> str:
        return (
            f"RunningStats({self.running_mean.shape[0]}, momentum={self.momentum}, "
            f"correction={self.correction:g}, num_batches_tracked={self.num_batches_tracked})"
        )


def resumed(running: RunningStats, state: Mapping[str, Array]) -> RunningStats:
    """Return running statistics that go on from a state."""
    mean, var = (np.asarray(state[k], np.float64) for k in ("running_mean", "running_var"))
    new = RunningStats(mean.size, momentum=running.momentum, correction=running.correction)
    new.running_mean, new.running_var = mean.copy(), var.copy()
    new.num_batches_tracked = int(state.get("num_batches_tracked", np.array(0)))
    if "running_count" in state:
        count = np.asarray(state["running_count"], np.float64)
        m2 = np.where(count > running.correction, var * (count - running.correction), 0.0)
        new.seen = ChannelStats(count, mean, m2)
    elif new.num_batches_tracked:
        new.seen = None
    return new
