"""What the backend functions share: arrays as kernels take them, and when to write past caches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu import elementwise
from numba_bn._kernels.cpu.memory import kernel_array
from numba_bn._kernels.cpu.plan import Plan, l2_bytes

Array = np.ndarray[Any, np.dtype[Any]]

_STREAM_CACHES = 32  # outputs of this many L2 caches and more go past them


class Launch(NamedTuple):
    """A kernel, and those of its arguments that say how it is to go about it."""

    kernel: Kernel
    switches: tuple[int, ...]
    """Whether to write past the caches and, where it reads twice, how far to ask for what comes."""
    sizes: tuple[int, ...]
    """The last ones."""


def optional(a: Array | None) -> Array | None:
    return None if a is None else kernel_array(a)


def large(nbytes: int) -> bool:
    """Tell whether an output is too large for the caches."""
    return nbytes >= _STREAM_CACHES * l2_bytes()


def streams(y5: Array, *inputs5: Array) -> bool:
    """Tell whether to write past the caches: large, and not what is being read."""
    return large(y5.nbytes) and not any(np.may_share_memory(y5, a) for a in inputs5)


def run_streams(length: int, y5: Array, *inputs5: Array) -> bool:
    """Tell the same of runs so long: a line of memory may hold two, but no more."""
    return length >= 16 and streams(y5, *inputs5)


def plan_streams(plan: Plan, y5: Array, *inputs5: Array) -> bool:
    """Tell the same of what a plan walks: rows of columns must all begin alike."""
    if plan.kind == "columns":
        return plan.stride % 16 == 0 and streams(y5, *inputs5)
    return run_streams(plan.inner, y5, *inputs5)


def columns_of(plan: Plan) -> tuple[int, ...]:
    return plan.outer, plan.tail, plan.stride, plan.period


def per_value(p: Array, plan: Plan, x5: Array, y5: Array) -> Array:
    """(channels,) → (groups · length,), as the arithmetic in which y is made of x holds them."""
    single = y5.itemsize <= 4 and (x5.itemsize <= 2 or x5.dtype == np.float32)
    if plan.inner == 1 and not single:
        return p
    values = np.empty(p.size * plan.inner, np.float32 if single else np.float64)
    elementwise.repeat(values.nbytes, p, values)  # NumPy would warn of what float32 cannot hold
    return values


def rstd_of(var: Array, eps: float) -> Array:
    """1/√(var + eps), flat, and 0 where that is 1/0."""
    v: Array = var.reshape(-1) + eps
    if v.all():
        return np.asarray(1.0 / np.sqrt(v))
    return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v != 0.0)
