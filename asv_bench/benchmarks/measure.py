"""Time and memory of a call."""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from .workloads import Call

_SAMPLE = 1e-3
"""Seconds a sample lasts at least: short calls are repeated that long."""


def _seconds(call: Call, number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def medians(calls: Mapping[str, Call], samples: int) -> dict[str, float]:
    """Return the median time of each call in milliseconds; they are made in turn, A B A B."""
    numbers = {}
    for name, call in calls.items():
        call()  # compiles
        numbers[name] = max(round(_SAMPLE / _seconds(call, 1)), 1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(samples):
        for name, call in calls.items():
            times[name].append(1e3 * _seconds(call, numbers[name]))
    return {name: statistics.median(some) for name, some in times.items()}


def _memory(field: str) -> int:
    """Return a size from the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def extra_bytes(call: Call) -> int:
    """Return the peak of memory during a call, beyond what there was before it (Linux, glibc)."""
    if sys.platform != "linux":
        raise NotImplementedError("the peak of one call is known on Linux only")
    call()  # compiles
    ctypes.CDLL(None).malloc_trim(0)  # or what earlier calls freed would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    call()
    return max(_memory("VmHWM") - before, 0)
