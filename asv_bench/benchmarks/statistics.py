"""Statistics alone."""

from __future__ import annotations

from .suite import Suite


class Statistics(Suite):
    """Count, mean and variance of each channel."""

    params = (("statistics",), Suite.params[1])

    def time_channel_stats(self, operation: str, case: str) -> None:
        self.call()
