"""What every public norm does between its checks and its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from numba_bn import _out
from numba_bn._arrays import (
    Array,
    as_array,
    assign,
    can_hold,
    cast,
    empty_like_view,
    five_axes,
    parameter_dtype,
    result_dtype,
)
from numba_bn._device import DeviceArray
from numba_bn._view import View


class Gradients(NamedTuple):
    """Gradients of a norm: into x, gamma and beta, and into the residual where there was one.

    Attributes
    ----------
    dx : ndarray, shape of x
        In the dtype of the forward's result.
    dgamma, dbeta : ndarray, shape of gamma
        In gamma's dtype, at least float32; ``dbeta`` of RMS norm is None.
    dresidual : ndarray, shape of x, or None
        Of batch norm with an activation only.

    Examples
    --------
    >>> import numpy as np
    >>> import numba_bn as nbn
    >>> x = np.array([[1.0, 3.0]])
    >>> dx, dgamma, dbeta, _ = nbn.layer_norm_backward(np.array([[2.0, 0.0]]), x, eps=0.0)
    >>> dgamma, dbeta
    (array([-2.,  0.]), array([2., 0.]))
    """

    dx: Array
    dgamma: Array
    dbeta: Array | None
    dresidual: Array | None = None


class Output:
    """The array a norm writes: the caller's ``out``, or a new one in the view's memory order."""

    def __init__(
        self, call: str, out: object, x: Array, view: View, inputs: Sequence[object] = ()
    ) -> None:
        dtype = result_dtype(call, "x", x.dtype)
        self.array = None if out is None else _out.checked(call, out, x, dtype, (x, *inputs))
        if self.array is not None and can_hold(self.array, view):
            self._written = self.array
        else:
            self._written = empty_like_view(x, dtype, view)
        self.five_axes = five_axes(self._written, view)

    def done(self, out: object) -> Any:
        """Return the result as the caller knows it: ``out`` itself, if it was given."""
        if self.array is None:
            return self._written
        if self._written is not self.array:
            assign(self.array, self._written)
        return out


def per_channel(vector: Array, view: View) -> Array:
    """Return a vector in the kernels' channel order as an array over x's channel axes."""
    if len(view.channels) == 1:
        return vector
    if isinstance(vector, DeviceArray):
        return vector.per_channel(view)
    inverse = sorted(range(len(view.channels)), key=view.channel_axes.__getitem__)
    stored = vector.reshape([view.channels[a] for a in view.channel_axes])
    return np.ascontiguousarray(stored.transpose(inverse))


def gradient_dtype(gamma: object, x: Array) -> np.dtype[Any]:
    """Return the dtype of dgamma and dbeta: gamma's, or that of parameters for x."""
    if gamma is None:
        return parameter_dtype(result_dtype("", "x", x.dtype))
    return parameter_dtype(result_dtype("", "gamma", as_array("", "gamma", gamma).dtype))


def parameter_gradient(vector: Array, gamma: object, x: Array, view: View) -> Array:
    """Return dgamma or dbeta in gamma's dtype, or in that of parameters for x."""
    dtype = gradient_dtype(gamma, x)
    if isinstance(x, DeviceArray):
        vector = x.beside(vector)  # zeros, where x is empty
        dtype = dtype if x.library.CONVERTS else vector.dtype
    return cast(per_channel(vector, view), dtype)


def real_array(call: str, x: object) -> Array:
    """Return x as an array of a dtype that has a norm."""
    array = as_array(call, "x", x)
    result_dtype(call, "x", array.dtype)
    return array
