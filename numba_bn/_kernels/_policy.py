"""When a parallel launch is safe."""

from __future__ import annotations

import os
import threading

import numba

_FORK_SAFE = ("tbb", "workqueue")


class _Policy:
    """When a parallel launch is safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forked = False
        self._held = threading.local()

    def after_fork(self) -> None:
        self.lock = threading.Lock()
        self.forked = True

    def enter(self) -> bool:
        """Tell whether this thread may go parallel; if so, `leave` must follow."""
        layer = _layer()
        if self.forked and layer not in _FORK_SAFE:
            return False
        self._held.lock = None
        if layer in ("omp", "tbb"):
            return True
        # workqueue aborts the process under two callers; an unknown layer may turn out to be that
        lock = self.lock
        if not lock.acquire(blocking=layer is None):
            return False
        self._held.lock = lock
        return True

    def leave(self) -> None:
        """End what `enter` allowed."""
        lock = self._held.lock
        self._held.lock = None
        if lock is not None:
            lock.release()


def _layer() -> str | None:
    """Return the threading layer, or None before anything was launched."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


policy = _Policy()
os.register_at_fork(after_in_child=policy.after_fork)
