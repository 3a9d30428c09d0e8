"""Vectors that kernels keep for themselves: each begins with a line of memory.

To load sixteen floats of which some lie in the next line takes columns 1.2 to 1.5 × the time, and
where ``np.empty`` begins is left to chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn._kernels._compile import inlined, overload, unit
from numba_bn._kernels.cpu.lanes import singles
from numba_bn._kernels.cpu.memory import before_aligned
from numba_bn._kernels.cpu.precision import kind_of


@inlined
def _padded(width: int) -> int:
    """Columns → room for them, and for the sixteen that a loop may write beyond, in whole lines."""
    return (width + 31) // 16 * 16


@unit
def _in_lines(values: Any, count: int, width: int, lead: int) -> Any:
    """Sixteen values more than (count, width) → those of which column ``lead`` begins a line."""
    start = before_aligned(values, lead)
    return values[start : start + count * width].reshape((count, width))


@unit
def doubles(count: int, width: int) -> Any:
    """Return room for ``count`` vectors of ``width`` float64, and for what loops write beyond."""
    wide = _padded(width)
    return _in_lines(np.empty(count * wide + 16), count, wide, 0)


def vectors_as(x: Any, y: Any, count: int, width: int, lead: int) -> Any:
    """Return the same of the kind in which y is made of x; a line begins at column ``lead``."""
    raise NotImplementedError("for kernels alone")


@overload(vectors_as)
def _vectors_as(x: Any, y: Any, count: int, width: int, lead: int) -> Any:
    def room(x, y, count, width, lead):  # type: ignore[no-untyped-def]
        wide = _padded(width)
        return _in_lines(np.empty(count * wide + 16, dtype), count, wide, lead)

    dtype = np.float32 if kind_of(x, y) is singles else np.float64
    return room


def vector_like(like: Any, size: int) -> Any:
    """Return one of the kind of lanes."""
    raise NotImplementedError("for kernels alone")


@overload(vector_like)
def _vector_like(like: Any, size: int) -> Any:
    def room(like, size):  # type: ignore[no-untyped-def]
        wide = _padded(size)
        return _in_lines(np.empty(wide + 16, dtype), 1, wide, 0)[0]

    dtype = np.float32 if like is singles else np.float64
    return room
