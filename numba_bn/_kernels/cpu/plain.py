"""Batch norm of plain arrays of one shape: how it is done is found once, and kept.

Plain are C-contiguous arrays of float32 or float64 that are not written past the caches, without
mask, residual and activation: nothing but shape and itemsize says how the very kernels of ``norms``
and ``gradients`` go about them, and to find it out takes as long as a small array.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from numba_bn._kernels.cpu import gradients, norms
from numba_bn._kernels.cpu.arrays import Array, large
from numba_bn._kernels.cpu.plan import Plan, Shape, one_go, plan_of


class Launches:
    """Kernels for a five-axis shape whose batch is one, and what they take besides arrays."""

    __slots__ = ("_backward", "_forward", "_lossless", "_normalize")

    def __init__(self, plan: Plan, itemsize: int) -> None:
        kernel, switches, sizes = norms.applying(plan, False)
        self._normalize = kernel, (False, *switches, *sizes)
        kernel, switches, sizes = norms.in_one_go(plan, itemsize, False)
        self._forward = kernel, (False, *switches), sizes
        kernel, switches, sizes = gradients.in_one_go(plan, itemsize, False)
        self._backward = kernel, (*switches, *sizes)
        self._lossless = np.zeros(plan.groups)

    def normalize(
        self, x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float, y: Array
    ) -> None:
        """x, mean, var (channels,) → y."""
        kernel, rest = self._normalize
        args = x.ravel(), y.ravel(), None, gamma, beta, mean, self._lossless, var, eps
        kernel.run(x.nbytes, args + rest)

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> Array:
        """x → y by its own statistics, which are returned: count, mean, low, m2 (4, channels)."""
        kernel, switches, sizes = self._forward
        result = np.empty((4, gamma.size))
        args = x.ravel(), y.ravel(), None, None, gamma, beta, eps, *switches, result
        kernel.run(x.nbytes, args + sizes)
        return result

    def backward(
        self,
        dy: Array,
        x: Array,
        gamma: Array,
        eps: float,
        dx: Array,
        mean: Array,
        m2: Array,
        count: Array,
    ) -> Array:
        """dy, x → dx by statistics of a training step; dbeta, dgamma (2, channels)."""
        kernel, rest = self._backward
        sums = np.empty((2, gamma.size))
        args = dy.ravel(), x.ravel(), None, dx.ravel(), mean, m2, count, gamma, eps, sums
        kernel.run(3 * x.nbytes, args + rest)
        return sums


@lru_cache(maxsize=1024)
def launches(shape: Shape, itemsize: int) -> Launches | None:
    """Return the launches for plain arrays of a shape without a zero; None if there are none."""
    plan = plan_of(shape)
    fits = one_go(plan, itemsize) and one_go(plan, 2 * itemsize)
    return Launches(plan, itemsize) if fits and not large(prod(shape) * itemsize) else None
