"""Statistics alone."""

from __future__ import annotations

import numba_bn as nbn

from .cases import RATIOS
from .measure import medians
from .suite import Suite


class Statistics(Suite):
    """Count, mean and variance of each channel."""

    params = (("statistics",), Suite.params[1])

    def time_channel_stats(self, operation: str, case: str) -> None:
        self.call()


class Reproducible(Suite):
    """The same as exact sums."""

    params = (("statistics",), tuple(map(str, RATIOS)))

    def track_cost(self, operation: str, case: str) -> float:
        """How long exact statistics take, in units of the default."""
        x, axis = self.work.x, self.work.axis

        def exact() -> object:
            return nbn.channel_stats(x, channel_axis=axis, reproducible=True)

        found = medians({"default": self.call, "exact": exact}, 9)
        return round(found["exact"] / found["default"], 2)

    track_cost.unit = "x the default"  # type: ignore[attr-defined]
