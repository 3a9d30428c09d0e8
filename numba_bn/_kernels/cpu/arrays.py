"""What the backend functions share: arrays as kernels take them, and when to write past caches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu import elementwise
from numba_bn._kernels.cpu.caches import far_bytes, gone_bytes, on_zen
from numba_bn._kernels.cpu.elements import kernel_array
from numba_bn._kernels.cpu.plan import Plan, values_of

Array = np.ndarray[Any, np.dtype[Any]]

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_UNCROWDED = 1536  # columns whose sums leave the L1 room for a row


class Launch(NamedTuple):
    """A kernel, and those of its arguments that say how it is to go about it."""

    kernel: Kernel
    switches: tuple[int, ...]
    """Whether to write past the caches and, where it reads twice, how far to ask for what comes."""
    sizes: tuple[int, ...]
    """The last ones."""


def optional(a: Array | None) -> Array | None:
    return None if a is None else kernel_array(a)


def large(nbytes: int, once: bool = False) -> bool:
    """Tell whether what a call reads, if only once, and writes is too large for the caches."""
    return nbytes >= far_bytes(once)


def streams(y5: Array, *inputs5: Array, once: bool = False) -> bool:
    """Tell whether to write past the caches: large, and not what is being read."""
    far = large(y5.nbytes + sum(a.nbytes for a in inputs5), once)
    return far and not any(np.may_share_memory(y5, a) for a in inputs5)


def may_stream(plan: Plan, itemsize: int, by_value: bool = False) -> bool:
    """Tell whether what a plan writes may go past the caches, by rows of a scale per value or not.

    Rows of columns must all begin alike; a line of memory may hold two runs, but no more. Sixteen
    halves are half a line, for which Intel's cores take 5 to 8 times as long where what they read
    lies up to a line behind in its page: each half then goes to memory by itself.
    """
    if itemsize < 4 and not on_zen():
        return False
    if plan.kind == "columns":
        return plan.stride % 16 == 0
    return (plan.length if by_value else plan.inner) >= 16


def plan_streams(
    plan: Plan, y5: Array, *inputs5: Array, by_value: bool = False, once: bool = False
) -> bool:
    """Tell whether it does: it may, and arrays are large, and ``y5`` is not what is being read."""
    return may_stream(plan, y5.itemsize, by_value) and streams(y5, *inputs5, once=once)


def columns_of(plan: Plan) -> tuple[int, ...]:
    """Return what kernels over columns take of a plan, in their order."""
    return plan.outer, plan.tail, plan.stride, plan.period, plan.length, plan.inner


def far(plan: Plan, itemsize: int, tile: int, arrays: int = 1) -> int:
    """Return how far from the core arrays that are summed as columns are: 0 for what caches hold.

    2 is what they hold next to nothing of, if its rows are whole and not so wide that their sums
    and themselves are more than the L1 holds, in between is 1. Zen alone reads that row by row in
    0.75 of the time: Intel's cores read from memory fastest in many pages at once, which rows at
    once are, in 0.6 to 0.75 of the time.
    """
    nbytes = arrays * itemsize * values_of(plan)
    in_order = on_zen() and tile == plan.stride <= _UNCROWDED
    return large(nbytes) + (in_order and nbytes >= gone_bytes())


def held_in(x: np.dtype[Any], y: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the arithmetic in which an array y is made of an array x."""
    single = y.itemsize <= 4 and (x.itemsize <= 2 or x == _SINGLE)
    return _SINGLE if single else _DOUBLE


def per_value(p: Array, plan: Plan, dtype: np.dtype[Any]) -> Array:
    """(channels,) → (groups · length,), in the dtype of their arithmetic."""
    if p.dtype == dtype:
        return p if plan.inner == 1 else np.repeat(p, plan.inner)
    values = np.empty(p.size * plan.inner, dtype)
    elementwise.repeat(values.nbytes, p, values)  # NumPy would warn of what float32 cannot hold
    return values


@np.errstate(invalid="ignore")  # inf less inf is no number
def summed(sums: Array, axis: int | tuple[int, ...]) -> Array:
    """Return sums over axes."""
    return np.asarray(sums.sum(axis))


@np.errstate(all="ignore")  # tiny ones may be too small for float64
def var_of(m2: Array, count: Array) -> Array:
    """Σ(x - mean)² of so many values → the variance; of none, 0."""
    return np.asarray(m2 / np.maximum(count, 1.0))


@np.errstate(all="ignore")  # there is no root of a negative one
def rstd_of(var: Array, eps: float) -> Array:
    """1/√(var + eps), flat, and 0 where that is 1/0."""
    v: Array = var.reshape(-1) + eps
    if v.all():
        return np.asarray(1.0 / np.sqrt(v))
    return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v != 0.0)
