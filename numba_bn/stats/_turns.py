"""Threads that update one state take turns, so that no update is lost."""

from __future__ import annotations

import os
import threading

lock = threading.RLock()
"""Held while a state is read, merged with, and replaced whole; a signal handler may do so too."""


def _after_fork() -> None:
    """Let a forked child begin with a free lock: the thread that held it is not there."""
    global lock
    lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
