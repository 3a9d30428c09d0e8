"""Norms of plain arrays of one shape: how it is done is found once, and kept.

Plain are C-contiguous arrays of floats, without mask, residual and activation: nothing but shape
and dtype says how the very kernels of ``norms`` and ``gradients`` go about them, and to find it out
takes as long as a small array, or a twentieth of one that the caches hold.

All arrays are C-contiguous and writable: x, y, dy and dx of one dtype; gamma, beta and given
statistics all of the dtype of parameters for it, or all float64. What is written past the caches,
which ``past`` says of what launches do, must not be what is read.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from numba_bn._kernels._launch import Kernel, Prepared
from numba_bn._kernels.cpu import elementwise, gradients, norms
from numba_bn._kernels.cpu.arrays import Array, held_in, large, may_stream, per_value
from numba_bn._kernels.cpu.elements import record_of
from numba_bn._kernels.cpu.plan import (
    Plan,
    Shape,
    by_rows,
    chunks,
    one_go,
    plan_of,
    samples_apart,
    shared,
)

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def _flattening(dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """Return what makes of a plain array what kernels take."""
    if (record := record_of(dtype)) is None:
        return np.ndarray.ravel
    return lambda x: x.view(record).ravel()


def _for_each(kernel: Kernel, nbytes: int) -> dict[np.dtype[Any], Prepared]:
    """Return a kernel for each dtype of parameters.

    To make float64 of them takes a fifth of a small call, and 12 to 40 µs of one whose arrays drive
    NumPy's code from the caches.
    """
    return {dtype: Prepared(kernel, nbytes) for dtype in (_SINGLE, _DOUBLE)}


_WAYS = {"normalizes": 2, "trains": 2, "differentiates": 3}
"""What launches are able to do, and how many arrays they read and write."""


def _past(
    plan: Plan, nbytes: int, itemsize: int, once: tuple[str, ...], by_value: bool = False
) -> frozenset[str]:
    """Return what is done past the caches; what is done ``once``, by a kernel that does not sum."""
    may = may_stream(plan, itemsize, by_value)
    far = (way for way, count in _WAYS.items() if large(count * nbytes, way in once))
    return frozenset(far if may else ())


class Launches:
    """Kernels for a five-axis shape whose batch is one, and what they take besides arrays.

    Where sums are not taken and used in one go, it is one after the other.
    """

    __slots__ = (
        "_apply",
        "_backward",
        "_channels",
        "_differentiate",
        "_flat",
        "_forward",
        "_normalize",
        "_rest_of_backward",
        "_rest_of_differentiate",
        "_rest_of_normalize",
        "_sizes_of_forward",
        "_sizes_of_sum",
        "_sizes_of_take",
        "_sum",
        "_switches_of_forward",
        "_take",
        "_terms",
        "past",
    )

    normalizes = trains = differentiates = True

    def __init__(self, plan: Plan, nbytes: int, dtype: np.dtype[Any]) -> None:
        itemsize, self._flat = dtype.itemsize, _flattening(dtype)
        self._channels = plan.groups * plan.size
        fused = one_go(plan, itemsize)
        once = ("normalizes",) if fused else ("normalizes", "trains")
        self.past = _past(plan, nbytes, itemsize, once)
        forward, backward = "trains" in self.past, "differentiates" in self.past
        kernel, switches, sizes = norms.applying(plan, itemsize, "normalizes" in self.past)
        self._normalize, self._apply = _for_each(kernel, nbytes), _for_each(kernel, nbytes)
        self._rest_of_normalize = False, *switches, *sizes
        kernel, _, self._sizes_of_take = norms.taking(plan, itemsize)
        self._take = Prepared(kernel, shared(plan, nbytes, chunks(plan)))
        self._forward, self._backward = None, None
        if fused:
            kernel, switches, self._sizes_of_forward = norms.in_one_go(plan, itemsize, forward)
            self._forward = _for_each(kernel, shared(plan, nbytes))
            self._switches_of_forward = False, *switches
        if one_go(plan, 2 * itemsize):
            kernel, switches, sizes = gradients.in_one_go(plan, itemsize, backward)
            self._backward = _for_each(kernel, shared(plan, 3 * nbytes))
            self._rest_of_backward = *switches, *sizes
        kernel, _, self._sizes_of_sum = gradients.summing(plan, itemsize)
        self._sum = Prepared(kernel, shared(plan, 2 * nbytes, chunks(plan)))
        self._terms = _for_each(elementwise.training_terms, 8 * self._channels)
        kernel, switches, sizes = gradients.differentiating(plan, itemsize, backward)
        self._differentiate = Prepared(kernel, 3 * nbytes)
        self._rest_of_differentiate = *switches, *sizes

    def normalize(
        self, x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float, y: Array
    ) -> None:
        """x, mean, var (channels,) → y."""
        flat, given = self._flat, (gamma, beta, mean, var, None, eps)
        self._normalize[gamma.dtype].run(flat(x), flat(y), None, *given, *self._rest_of_normalize)

    def moments(self, x: Array) -> Array:
        """x → count, mean, low, m2 (4, channels)."""
        result = np.empty((4, self._channels))
        self._take.run(self._flat(x), None, result, *self._sizes_of_take)
        return result

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> Array:
        """x → y by its own statistics, which are returned: count, mean, low, m2 (4, channels)."""
        flat, dtype = self._flat, gamma.dtype
        if self._forward is None:
            result = self.moments(x)
            known = None, None, result, eps  # no mean and var: they are made of it
            how = gamma, beta, *known, *self._rest_of_normalize
            self._apply[dtype].run(flat(x), flat(y), None, *how)
            return result
        result = np.empty((4, gamma.size))
        given = flat(x), flat(y), None, None, gamma, beta, eps, *self._switches_of_forward
        self._forward[dtype].run(*given, result, *self._sizes_of_forward)
        return result

    def backward(
        self,
        dy: Array,
        x: Array,
        gamma: Array,
        eps: float,
        dx: Array,
        mean: Array,
        low: Array,
        m2: Array,
        count: Array,
    ) -> Array:
        """dy, x → dx by statistics of a training step; dbeta, dgamma (2, channels) like gamma.

        Kernels write them in its dtype: NumPy takes 20 µs where its code is no longer cached.
        """
        flat, dtype = self._flat, gamma.dtype
        out = np.empty((2, gamma.size), dtype)
        arrays = flat(dy), flat(x), None
        if self._backward is not None:
            given = mean, low, m2, count, gamma, eps, out
            self._backward[dtype].run(*arrays, flat(dx), *given, *self._rest_of_backward)
            return out
        sums, terms = np.empty((2, gamma.size)), np.empty((3, gamma.size))
        self._sum.run(*arrays, mean, sums, *self._sizes_of_sum)
        self._terms[dtype].run(sums, low, m2, count, gamma, eps, out, terms)
        self._differentiate.run(*arrays, flat(dx), mean, low, terms, *self._rest_of_differentiate)
        return out


class OwnLaunches:
    """The same for any five-axis shape, of a norm by its own statistics, which nobody keeps."""

    __slots__ = (
        "_backward",
        "_flat",
        "_forward",
        "_options",
        "_parameter",
        "_rest_of_backward",
        "_rest_of_forward",
        "_shape_of_parts",
        "_total",
        "differentiates",
        "past",
        "trains",
    )

    _parameter: Callable[[Array], Array]
    _options: tuple[None, ...]

    def __init__(self, plan: Plan, nbytes: int, dtype: np.dtype[Any], centred: bool) -> None:
        self._flat = _flattening(dtype)
        self.differentiates = plan.kind != "columns" or samples_apart(plan)
        by_value = by_rows(plan, centred)
        self.past = _past(plan, nbytes, dtype.itemsize, (), by_value)
        forward, backward = "trains" in self.past, "differentiates" in self.past
        if by_value:
            self.trains = norms.rows_one_go(plan, dtype)
            held = held_in(dtype, dtype)
            self._parameter, self._options = lambda p: per_value(p, plan, held), ()
            kernel, switches, sizes = norms.rows_in_one_go(plan, dtype.itemsize, centred, forward)
        else:
            self.trains = one_go(plan, dtype.itemsize)
            self._parameter, self._options = lambda p: p, (None, None)
            kernel, switches, sizes = norms.in_one_go(plan, dtype.itemsize, forward)
            switches = False, *switches
        self._forward = _for_each(kernel, shared(plan, nbytes))
        self._rest_of_forward = *switches, np.empty((4, 0)), *sizes
        how = plan, dtype.itemsize, backward, centred
        kernel, switches, sizes = gradients.own_in_one_go(*how)
        self._backward = _for_each(kernel, shared(plan, 3 * nbytes))
        self._rest_of_backward = *switches, *sizes
        self._shape_of_parts = gradients.shape_of_parts(plan, centred)
        self._total = _for_each(elementwise.total_of_parts, 8 * prod(self._shape_of_parts))

    def forward(self, x: Array, gamma: Array, beta: Array, eps: float, y: Array) -> None:
        """x → y."""
        flat, g, b = self._flat, self._parameter(gamma), self._parameter(beta)
        arrays = flat(x), flat(y), *self._options
        self._forward[g.dtype].run(*arrays, g, b, eps, *self._rest_of_forward)

    def backward(self, dy: Array, x: Array, gamma: Array, eps: float, dx: Array) -> Array:
        """dy, x → dx; dbeta, dgamma (2, channels) like gamma."""
        flat, g, parts = self._flat, self._parameter(gamma), np.empty(self._shape_of_parts)
        given = flat(dy), flat(x), flat(dx), g, eps, parts
        self._backward[g.dtype].run(*given, *self._rest_of_backward)
        out = np.empty((2, gamma.size), gamma.dtype)
        self._total[gamma.dtype].run(parts.reshape(2 * len(parts), -1), out)
        return out


def launches(shape: Shape, dtype: np.dtype[Any]) -> Launches:
    """Return the launches for plain arrays of a shape without a zero."""
    return Launches(plan_of(shape), prod(shape) * dtype.itemsize, dtype)


def own_launches(shape: Shape, dtype: np.dtype[Any], centred: bool) -> OwnLaunches:
    """Return those of a norm by own statistics."""
    return OwnLaunches(plan_of(shape), prod(shape) * dtype.itemsize, dtype, centred)
