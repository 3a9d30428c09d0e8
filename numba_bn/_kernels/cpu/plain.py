"""Norms of plain arrays of one shape: how it is done is found once, and kept.

Plain are C-contiguous arrays of floats that are not written past the caches, without mask, residual
and activation: nothing but shape and dtype says how the very kernels of ``norms`` and ``gradients``
go about them, and to find it out takes as long as a small array.

All arrays are C-contiguous and writable: x, y, dy and dx of one dtype; gamma, beta and given
statistics all of the dtype of parameters for it, or all float64.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from numba_bn._kernels._launch import Prepared
from numba_bn._kernels.cpu import gradients, norms
from numba_bn._kernels.cpu.arrays import Array, held_in, large, per_value, rstd_of
from numba_bn._kernels.cpu.memory import record_of
from numba_bn._kernels.cpu.plan import Plan, Shape, by_rows, one_go, plan_of, samples_apart

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def _flattening(dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """Return what makes of a plain array what kernels take."""
    if (record := record_of(dtype)) is None:
        return np.ndarray.ravel
    return lambda x: x.view(record).ravel()


def _wide(p: Array) -> Array:
    """Return parameters for kernels that are compiled for float64 alone."""
    return p if p.dtype is _DOUBLE else p.astype(_DOUBLE)


class Launches:
    """Kernels for a five-axis shape whose batch is one, and what they take besides arrays."""

    __slots__ = (
        "_applies",
        "_backward",
        "_flat",
        "_forward",
        "_lossless",
        "_normalize",
        "_plan",
        "_rest_of_applies",
        "_rest_of_backward",
        "_rest_of_normalize",
        "_sizes_of_forward",
        "_switches_of_forward",
    )

    _applies: Prepared | None
    trains = differentiates = True

    def __init__(self, plan: Plan, nbytes: int, dtype: np.dtype[Any]) -> None:
        self._plan, self._flat = plan, _flattening(dtype)
        kernel, switches, sizes = norms.applying(plan, False)
        # parameters as they are: to make float64 of them takes a fifth of a small call
        self._normalize = {d: Prepared(kernel, nbytes) for d in (_SINGLE, _DOUBLE)}
        self._rest_of_normalize = False, *switches, *sizes
        self._lossless = np.zeros(plan.groups)
        self._plan_forward(plan, nbytes, dtype.itemsize)
        self._plan_backward(plan, nbytes, dtype.itemsize)

    def _plan_forward(self, plan: Plan, nbytes: int, itemsize: int) -> None:
        self._switches_of_forward: tuple[int, ...] | None = None
        if one_go(plan, itemsize):
            kernel, switches, self._sizes_of_forward = norms.in_one_go(plan, itemsize, False)
            self._switches_of_forward = False, *switches
        else:
            kernel, _, self._sizes_of_forward = norms.summing(plan, itemsize)
        self._forward = Prepared(kernel, nbytes)

    def _plan_backward(self, plan: Plan, nbytes: int, itemsize: int) -> None:
        self._applies = None
        if one_go(plan, 2 * itemsize):
            kernel, switches, sizes = gradients.in_one_go(plan, itemsize, False)
            self._backward = Prepared(kernel, 3 * nbytes)
            self._rest_of_backward = *switches, *sizes
        else:
            kernel, _, self._rest_of_backward = gradients.summing(plan, itemsize)
            self._backward = Prepared(kernel, 2 * nbytes)
            kernel, switches, sizes = gradients.applying(plan, False)
            self._applies = Prepared(kernel, 3 * nbytes)
            self._rest_of_applies = *switches, *sizes

    def normalize(
        self, x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float, y: Array
    ) -> None:
        """x, mean, var (channels,) → y."""
        flat, run = self._flat, self._normalize[gamma.dtype].run
        given = gamma, beta, mean, self._lossless, var, eps
        run(flat(x), flat(y), None, *given, *self._rest_of_normalize)

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> Array:
        """x → y by its own statistics, which are returned: count, mean, low, m2 (4, channels)."""
        flat, result = self._flat, np.empty((4, gamma.size))
        wide = _wide(gamma), _wide(beta)
        if self._switches_of_forward is None:
            parts = norms.parts_of(self._plan)
            self._forward.run(flat(x), None, result, parts, *self._sizes_of_forward)
            _, mean, low, m2 = result
            given = *wide, mean, low, m2 / result[0], eps
            run = self._normalize[_DOUBLE].run
            run(flat(x), flat(y), None, *given, *self._rest_of_normalize)
        else:
            arrays = flat(x), flat(y), None, None, *wide, eps
            rest = result, *self._sizes_of_forward
            self._forward.run(*arrays, *self._switches_of_forward, *rest)
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
        flat, sums = self._flat, np.empty((2, gamma.size))
        arrays, wide = (flat(dy), flat(x), None), _wide(gamma)
        if self._applies is None:
            given = mean, m2, count, wide, eps, sums
            self._backward.run(*arrays, flat(dx), *given, *self._rest_of_backward)
            return sums
        parts = gradients.parts_of(self._plan)
        self._backward.run(*arrays, mean, sums, parts, *self._rest_of_backward)
        rstd = rstd_of(m2 / count, eps)
        gradients.scale(sums, rstd)
        factors = gradients.coefficients(wide, rstd, sums[0], sums[1], count)
        self._applies.run(*arrays, flat(dx), mean, *factors, *self._rest_of_applies)
        return sums


class OwnLaunches:
    """The same for any five-axis shape, of a norm by its own statistics, which nobody keeps."""

    __slots__ = (
        "_backward",
        "_centred",
        "_flat",
        "_forward",
        "_options",
        "_parameter",
        "_plan",
        "_rest_of_backward",
        "_rest_of_forward",
        "differentiates",
        "trains",
    )

    _parameter: Callable[[Array], Array]
    _options: tuple[None, ...]

    def __init__(self, plan: Plan, nbytes: int, dtype: np.dtype[Any], centred: bool) -> None:
        self._plan, self._centred, self._flat = plan, centred, _flattening(dtype)
        self.trains = one_go(plan, dtype.itemsize)
        self.differentiates = plan.kind != "columns" or samples_apart(plan)
        if by_rows(plan, centred):
            held = held_in(dtype, dtype)
            self._parameter, self._options = lambda p: per_value(p, plan, held), ()
            kernel, switches, sizes = norms.rows_in_one_go(plan, dtype.itemsize, centred, False)
        else:
            self._parameter, self._options = _wide, (None, None)
            kernel, switches, sizes = norms.in_one_go(plan, dtype.itemsize, False)
            switches = False, *switches
        self._forward = Prepared(kernel, nbytes)
        self._rest_of_forward = *switches, np.empty((4, 0)), *sizes
        kernel, switches, sizes = gradients.own_in_one_go(plan, dtype.itemsize, False, centred)
        self._backward = Prepared(kernel, 3 * nbytes)
        self._rest_of_backward = *switches, *sizes

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> None:
        """x → y."""
        flat, of = self._flat, self._parameter
        arrays = flat(x), flat(y), *self._options, of(gamma), of(beta)
        self._forward.run(*arrays, eps, *self._rest_of_forward)

    def backward(self, dy: Array, x: Array, gamma: Array, eps: float, dx: Array) -> Array:
        """dy, x → dx; dbeta, dgamma (2, channels)."""
        flat, sums = self._flat, gradients.sums_of_parts(self._plan, self._centred)
        given = flat(dy), flat(x), flat(dx), self._parameter(gamma), eps, sums
        self._backward.run(*given, *self._rest_of_backward)
        return gradients.total_of_parts(sums, self._plan, self._centred)


def launches(shape: Shape, dtype: np.dtype[Any]) -> Launches | None:
    """Return the launches for plain arrays of a shape without a zero; None if there are none."""
    nbytes = prod(shape) * dtype.itemsize
    return None if large(3 * nbytes) else Launches(plan_of(shape), nbytes, dtype)


def own_launches(shape: Shape, dtype: np.dtype[Any], centred: bool) -> OwnLaunches | None:
    """Return those of a norm by own statistics."""
    nbytes = prod(shape) * dtype.itemsize
    return None if large(3 * nbytes) else OwnLaunches(plan_of(shape), nbytes, dtype, centred)
