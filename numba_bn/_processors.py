"""How many processors this process may use: its CPU affinity, and the quota of its cgroup."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available(root: Path = Path("/")) -> tuple[int, str]:
    """Return the number of processors, and which of the two it is from."""
    allowed, quota = affinity(), cgroup_quota(root)
    if quota is not None and quota < allowed:
        return quota, "cgroup quota"
    return allowed, "CPU affinity"


def affinity() -> int:
    """Return how many CPUs the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota(root: Path = Path("/")) -> int | None:
    """Return the CPUs, rounded up, that the quotas of cgroups v1 and v2 leave; None without one.

    A container's quota lies in a group of its own or in one above it, so all of them are read.
    """
    found = [q for group in _groups(root) for q in (_quota_v2(group), _quota_v1(group)) if q]
    return max(math.ceil(min(found)), 1) if found else None


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the groups this process is in, and of those above them."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # a group outside of what the container sees is named by "..": its root stands for it
        inside = PurePosixPath(*(part for part in path.split("/") if part not in ("", "..")))
        yield from (mount / group for group in (inside, *inside.parents))


def _quota_v2(group: Path) -> float | None:
    """Return the CPUs of ``cpu.max``: "quota period" or "max period"."""
    quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
    return _ratio(quota, period)


def _quota_v1(group: Path) -> float | None:
    """Return the CPUs of ``cpu.cfs_quota_us``, which is -1 without a quota."""
    period = _read(group / "cpu.cfs_period_us") or ""
    return _ratio(_read(group / "cpu.cfs_quota_us") or "", period)


def _ratio(quota: str, period: str) -> float | None:
    """Return quota / period; None of what is not two positive numbers."""
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _read(path: Path) -> str | None:
    """Return a file's text; None where there is none to read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
