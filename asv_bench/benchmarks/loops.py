"""What memory allows: the plain loops that every ratio is a ratio to."""

from __future__ import annotations

import numba
import numpy as np

from .workloads import Array, Call, Work

LIMITS = ("pass", "triad")


@numba.njit(parallel=True, cache=True)
def plain_pass(x, y, a, b):  # type: ignore[no-untyped-def]
    """``y = a*x + b``: one array read, one written."""
    for i in numba.prange(x.size):
        y[i] = a * x[i] + b


@numba.njit(parallel=True, cache=True)
def triad(x, y, z, a, b):  # type: ignore[no-untyped-def]
    """``z = a*x + b*y``: two arrays read, one written."""
    for i in numba.prange(x.size):
        z[i] = a * x[i] + b * y[i]


def _flat(array: Array) -> Array:
    """Return the values in a row; halves, which Numba has no arithmetic for, as integers."""
    halves = array.dtype.itemsize == 2 and array.dtype.kind not in "ui"
    return array.reshape(-1).view(np.uint16 if halves else array.dtype)


def limit_name(operation: str) -> str:
    """Return the loop an operation is measured against."""
    return "triad" if operation.endswith("backward") else "pass"


def beside(operation: str) -> str:
    """Return the name of the limit's time that was taken in turn with an operation."""
    return f"{operation} {limit_name(operation)}"


def limit(work: Work, name: str) -> Call:
    """Return the loop over the arrays of a case as a call without arguments."""
    x, out = _flat(work.x), _flat(work.out)
    a, b = out.dtype.type(3), out.dtype.type(1)
    if name == "pass":
        return lambda: plain_pass(x, out, a, b)
    dy = _flat(work.dy)
    return lambda: triad(x, dy, out, a, b)


def bytes_moved(work: Work, name: str) -> int:
    """Return what a loop reads and writes."""
    return work.x.nbytes + work.out.nbytes + (work.dy.nbytes if name == "triad" else 0)
