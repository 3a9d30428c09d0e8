"""How large the caches are, and what that means for how much is done at once."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.registry import cpu_target

CORES = os.cpu_count() or 1


@cache
def _cache_bytes(index: int) -> int | None:
    """Return the size of a cache that the first core uses; None where nobody but Linux knows."""
    try:
        size = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read_text().strip()
        return int(size.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return None


def l2_bytes() -> int:
    """Return the size of a core's own cache: Linux tells, elsewhere it is taken for 1 MB."""
    return _cache_bytes(2) or 1 << 20


def held_bytes() -> int:
    """Return how much a core finds again near by: in its own cache, or half its part of the last.

    To train so on groups of 3 MB takes 0.75 of the time of two sweeps over memory.
    """
    part = (_cache_bytes(3) or 0) // (2 * CORES)
    return max(l2_bytes(), min(part, 8 * l2_bytes()))


def far_bytes(once: bool) -> int:
    """Return from how many bytes, read and written in all, results are better written past caches.

    That is three quarters of the last cache (there it takes 0.8 of the time), and more for what a
    kernel reads ``once`` to normalize it: seven eighths, below which into the cache takes 0.65 to
    0.95 of the time, and of AMD's ten, as up to there it takes 0.47 to 1.0 of it.
    """
    if once:
        return _of_last(10 if on_zen() else 7)
    return _of_last(6)


def gone_bytes() -> int:
    """Return of how many bytes, read one after the other, the caches hold next to nothing."""
    return _of_last(7)


def _of_last(eighths: int) -> int:
    """Return so much of the last cache, or 64 L2 caches where it is so large that many share it."""
    most, last = 64 * l2_bytes(), _cache_bytes(3)
    return max(l2_bytes(), min(most, last * eighths // 8)) if last else most


def is_zen(context: Any) -> bool:
    """Tell whether the CPU compiled for is one of AMD's Zen."""
    return str(context.codegen().magic_tuple()[1]).startswith("znver")


@cache
def on_zen() -> bool:
    """Tell whether this CPU is one of them."""
    return is_zen(cpu_target.target_context)
