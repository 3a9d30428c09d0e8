"""Batch norm of plain arrays of one shape: how it is done is found once, and kept.

Plain are C-contiguous arrays of float32 or float64 that are not written past the caches, without
mask, residual and activation: nothing but shape and dtype says how the very kernels of ``norms``
and ``gradients`` go about them, and to find it out takes as long as a small array.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numba_bn._kernels._launch import Prepared
from numba_bn._kernels.cpu import gradients, norms
from numba_bn._kernels.cpu.arrays import Array, large
from numba_bn._kernels.cpu.plan import Plan, Shape, one_go, plan_of


class Launches:
    """Kernels for a five-axis shape whose batch is one, and what they take besides arrays.

    ``trains`` and ``differentiates`` tell whether there is one for it, as there is where sums are
    taken and used in one go. All arrays are C-contiguous and writable: x, y, dy and dx of one
    dtype, the others float64.
    """

    __slots__ = (
        "_backward",
        "_forward",
        "_lossless",
        "_normalize",
        "_rest_of_backward",
        "_rest_of_normalize",
        "_sizes_of_forward",
        "_switches_of_forward",
        "differentiates",
        "trains",
    )

    def __init__(self, plan: Plan, nbytes: int, itemsize: int) -> None:
        kernel, switches, sizes = norms.applying(plan, False)
        self._normalize = Prepared(kernel, nbytes)
        self._rest_of_normalize = False, *switches, *sizes
        self.trains, self.differentiates = one_go(plan, itemsize), one_go(plan, 2 * itemsize)
        kernel, switches, self._sizes_of_forward = norms.in_one_go(plan, itemsize, False)
        self._forward = Prepared(kernel, nbytes)
        self._switches_of_forward = False, *switches
        kernel, switches, sizes = gradients.in_one_go(plan, itemsize, False)
        self._backward = Prepared(kernel, 3 * nbytes)
        self._rest_of_backward = *switches, *sizes
        self._lossless = np.zeros(plan.groups)

    def normalize(
        self, x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float, y: Array
    ) -> None:
        """x, mean, var (channels,) → y."""
        given = gamma, beta, mean, self._lossless, var, eps
        self._normalize.run(x.ravel(), y.ravel(), None, *given, *self._rest_of_normalize)

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> Array:
        """x → y by its own statistics, which are returned: count, mean, low, m2 (4, channels)."""
        result = np.empty((4, gamma.size))
        given = x.ravel(), y.ravel(), None, None, gamma, beta, eps
        self._forward.run(*given, *self._switches_of_forward, result, *self._sizes_of_forward)
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
        sums = np.empty((2, gamma.size))
        given = mean, m2, count, gamma, eps, sums
        self._backward.run(dy.ravel(), x.ravel(), None, dx.ravel(), *given, *self._rest_of_backward)
        return sums


def launches(shape: Shape, itemsize: int) -> Launches | None:
    """Return the launches for plain arrays of a shape without a zero; None if there are none."""
    nbytes = prod(shape) * itemsize
    return None if large(nbytes) else Launches(plan_of(shape), nbytes, itemsize)
