"""Ratios, which a change of machine leaves readable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from numba_bn import _dispatch

from .cases import RATIOS
from .loops import bytes_moved, limit, limit_name
from .measure import medians
from .suite import Suite
from .workloads import OPERATIONS, Call

_SAMPLES = 9


@contextmanager
def _reference() -> Iterator[None]:
    """Let the public functions compute by plain NumPy."""
    try:
        with patch.dict(_dispatch._BACKENDS, numpy="numba_bn._kernels.reference"):
            _dispatch.backend.cache_clear()
            yield
    finally:
        _dispatch.backend.cache_clear()


class Ratio(Suite):
    """Calls against what memory allows, and against the reference."""

    params = (tuple(OPERATIONS), tuple(map(str, RATIOS)))

    def _times(self, operation: str) -> tuple[float, float]:
        """Return the milliseconds of the call and of the loop that is its limit."""
        calls: dict[str, Call] = {"limit": limit(self.work, limit_name(operation))}
        found = medians({**calls, "call": self.call}, _SAMPLES)
        return found["call"], found["limit"]

    def track_times_limit(self, operation: str, case: str) -> float:
        """How long the call takes in units of a pass, or of a triad if it is a backward."""
        call, loop = self._times(operation)
        return round(call / loop, 3)

    track_times_limit.unit = "x pass or triad"  # type: ignore[attr-defined]

    def track_times_reference(self, operation: str, case: str) -> float:
        """How much faster the call is than plain NumPy."""
        with _reference():
            slow = medians({"call": self.call}, 1)["call"]
        return round(slow / medians({"call": self.call}, _SAMPLES)["call"], 2)

    track_times_reference.unit = "x faster than the reference"  # type: ignore[attr-defined]

    def track_bandwidth(self, operation: str, case: str) -> float:
        """Each array counted once, however often it is read."""
        moved = bytes_moved(self.work, limit_name(operation))
        return round(moved / medians({"call": self.call}, _SAMPLES)["call"] / 1e6, 2)

    track_bandwidth.unit = "GB/s"  # type: ignore[attr-defined]
